"""Retry: the cases, each with the probe that finds out who keeps it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.comparison.cases import Area, verdict
from tests.comparison.retry_libraries import LIBRARIES
from tests.comparison.steps import (
    Boom,
    Hinted,
    NotedLoop,
    Script,
    chunks_of,
    many,
    outcome_of,
    settle,
    took,
)

if TYPE_CHECKING:
    from tests.comparison.cases import Finding
    from tests.comparison.retry_libraries import Retry

__all__ = ["RETRY"]

RETRY = Area("Retry", *LIBRARIES)


@RETRY.case(
    "Up to 4 calls are asked for: a step that always fails is called 4 times", 1
)
async def calls_are_counted(library: type[Retry]) -> Finding:
    """Count the calls of a step that always fails."""
    script = Script(Boom())
    await outcome_of(library.retry(script.step())())
    return verdict(script.calls == 4, f"{many(script.calls, 'call')}")


@RETRY.case("At the end the caller gets the last error, that very object", 1)
async def last_error_is_raised(library: type[Retry]) -> Finding:
    """Look at what comes out when all attempts have failed."""
    errors = [Boom(str(number)) for number in range(4)]
    outcome = await outcome_of(library.retry(Script(*errors).step())())
    return verdict(outcome is errors[-1], f"{type(outcome).__name__}")


@RETRY.case("The attempts that are reported are those of the caller's own call", 5)
async def attempts_are_told(library: type[Retry]) -> Finding:
    """Let a call fail four times, and one beside it succeed at once."""

    async def first_fails(value: object = None) -> object:
        await asyncio.sleep(0)
        if asyncio.current_task() is failing:
            raise Boom
        return value

    call = library.counted(first_fails)
    failing = asyncio.create_task(call())
    await settle(2)
    await call()
    told = await failing
    return verdict(told == 4, f"{told} instead of 4")


@RETRY.case(
    "A filter that retries everything but one type lets a cancelled task be cancelled",
    3,
)
async def cancellation_passes_filters(library: type[Retry]) -> Finding:
    """Cancel a task in its first attempt."""
    script = Script(30.0, "done")
    task = asyncio.create_task(library.but(script.step(), ValueError)())
    await settle()
    task.cancel()
    outcome = await outcome_of(task)
    is_kept = task.cancelled() and script.calls == 1
    return verdict(
        is_kept, f"{many(script.calls, 'call')}, the task returns {outcome!r}"
    )


@RETRY.case("Cancelled in a pause of a minute, it ends at once", 4)
async def pauses_can_be_cancelled(library: type[Retry]) -> Finding:
    """Cancel a task while it waits for its second attempt."""
    script = Script(Boom())
    task = asyncio.create_task(library.retry(script.step(), pause=60)())
    await settle()
    task.cancel()
    _, seconds = await took(asyncio.wait([task], timeout=2))
    is_kept = task.cancelled() and script.calls == 1
    return verdict(is_kept, f"{many(script.calls, 'call')}, after {seconds:.1f} s")


@RETRY.case("Pauses double for each call by itself, whoever else retries", "rule 9")
async def pauses_belong_to_a_call(library: type[Retry]) -> Finding:
    """Let two calls of one guarded function fail side by side; look at their pauses."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, NotedLoop)
    call = library.doubling(Script(Boom()).step(), first=0.01)
    await asyncio.gather(outcome_of(call()), outcome_of(call()))
    pauses = sorted(delay for delay in loop.delays if 0 < delay < 1)
    is_kept = pauses == [0.01, 0.01, 0.02, 0.02, 0.04, 0.04]
    in_ms = " ".join(f"{pause * 1000:.0f}" for pause in pauses)
    return verdict(is_kept, f"pauses of {in_ms} ms")


@RETRY.case(
    "A block under `async for attempt in policy` that succeeds runs once, whoever "
    "shares the policy",
    "rule 9",
)
async def blocks_run_once(library: type[Retry]) -> Finding:
    """Let three tasks use one policy object; the first and the last succeed at once."""
    run = library.shared()
    counts = [0, 0, 0]

    async def body(number: int, failures: int) -> None:
        counts[number] += 1
        await asyncio.sleep(0.005 * (number + 1))
        if counts[number] <= failures:
            raise Boom

    blocks = [run(lambda n=n, f=f: body(n, f)) for n, f in enumerate((0, 2, 0))]
    await asyncio.gather(*map(outcome_of, blocks))
    is_kept = counts == [1, 3, 1]
    return verdict(is_kept, f"runs {counts[0]}, {counts[1]} and {counts[2]} times")


@RETRY.case("When a series of pauses ends early, the error stays the step's own", 8)
async def short_series_change_no_error(library: type[Retry]) -> Finding:
    """Retry four times with two pauses."""
    script = Script(Boom())
    outcome = await outcome_of(library.listed(script.step(), [0.001, 0.002])())
    return verdict(isinstance(outcome, Boom), f"{outcome!r}")


@RETRY.case("The pause is at least as long as the server asks for", 11)
async def hints_are_followed(library: type[Retry]) -> Finding:
    """Fail once with a hint, and measure."""
    call = library.following(Script(Hinted(0.1), "ok").step())
    outcome, seconds = await took(call())
    return verdict(
        outcome == "ok" and seconds > 0.095, f"{outcome!r} after {seconds:.2f} s"
    )


@RETRY.case("A pause that would outlast the time limit does not begin", 12)
async def pauses_end_in_time(library: type[Retry]) -> Finding:
    """Fail at once with 0.1 s in all and pauses of 0.4 s."""
    call = library.within(Script(Boom()).step(), limit=0.1, pause=0.4)
    _, seconds = await took(call())
    return verdict(seconds < 0.08, f"gives up after {seconds:.1f} s")


@RETRY.case("A hint that would outlast the time limit ends it at once", 12)
async def hints_end_in_time(library: type[Retry]) -> Finding:
    """Fail with 0.1 s in all and a server that asks for 0.4 s."""
    script = Script(Hinted(0.4))
    _, seconds = await took(library.within_following(script.step(), limit=0.1)())
    return verdict(
        seconds < 0.08, f"gives up after {seconds:.1f} s, {many(script.calls, 'call')}"
    )


@RETRY.case("An attempt that hangs is interrupted at the time limit", 13)
async def hanging_attempts_end_in_time(library: type[Retry]) -> Finding:
    """Give 0.1 s in all to an attempt that takes 0.5 s."""
    call = library.within(Script(0.5).step(), limit=0.1, pause=0.01)
    _, seconds = await took(call())
    return verdict(seconds < 0.3, f"returns after {seconds:.1f} s")


@RETRY.case("Each attempt may have a limit of its own", 14)
async def attempts_are_limited(library: type[Retry]) -> Finding:
    """Let the first attempt hang and the second succeed."""
    script = Script(30.0, "ok")
    outcome, seconds = await took(library.limited(script.step(), limit=0.05)())
    is_kept = outcome == "ok" and script.calls == 2
    return verdict(
        is_kept, f"{outcome!r} after {seconds:.1f} s, {many(script.calls, 'call')}"
    )


@RETRY.case("A hook that raises changes nothing", 19)
async def hooks_change_nothing(library: type[Retry]) -> Finding:
    """Let the hook fail at the first retry."""

    def hook(*args: object, **kwargs: object) -> None:
        raise KeyError("hook")

    script = Script(Boom(), "ok")
    outcome = await outcome_of(library.told(script.step(), hook)())
    return verdict(outcome == "ok", f"{outcome!r} after {many(script.calls, 'call')}")


@RETRY.case("A group of nothing but retryable errors is retried", "rule 11")
async def groups_are_looked_into(library: type[Retry]) -> Finding:
    """Fail once with a group, as task groups do."""
    script = Script(ExceptionGroup("two", [Boom(), Boom()]), "ok")
    outcome = await outcome_of(library.retry(script.step())())
    return verdict(
        outcome == "ok", f"{many(script.calls, 'call')}, {type(outcome).__name__}"
    )


@RETRY.case("100 calls fail at once under a budget of 3 retries: 3 retries", 21)
async def budgets_hold(library: type[Retry]) -> Finding:
    """Count the calls of a hundred that fail together."""
    script = Script(Boom())
    calls = library.budgeted([script.step()] * 100)
    await asyncio.gather(*[outcome_of(call()) for call in calls])
    return verdict(script.calls == 103, f"{script.calls - 100} retries")


@RETRY.case("A retry in a retry does not multiply: 4 calls, not 16", 22)
async def retries_do_not_multiply(library: type[Retry]) -> Finding:
    """Put two retries around a step that always fails."""
    single, script = Script(Boom()), Script(Boom())
    await outcome_of(library.retry(single.step())())
    inner = library.retry(script.step())

    async def once(value: object = None) -> object:
        return await inner(value)

    await outcome_of(library.retry(once)())
    return verdict(script.calls == single.calls, f"{many(script.calls, 'call')}")


@RETRY.case("A stream that fails before its first chunk is retried", 23)
async def streams_are_retried(library: type[Retry]) -> Finding:
    """Fail once before anything has come."""
    script = Script((Boom(),), ("a", "b"))
    seen, error = await chunks_of(library.stream(script.stream())(1))
    return verdict(
        seen == ["a", "b"], f"{many(script.calls, 'call')}, {type(error).__name__}"
    )


@RETRY.case("A stream that fails later repeats no chunk", 23)
async def streams_repeat_nothing(library: type[Retry]) -> Finding:
    """Fail once after two chunks; look at what the caller got."""
    script = Script(("a", "b", Boom()), ("a", "b", "c"))
    seen, _ = await chunks_of(library.stream(script.stream())(1))
    return verdict(len(set(seen)) == len(seen), " ".join(map(str, seen)))


@RETRY.case("The first chunk of a stream comes before the last is made", 23)
async def streams_are_not_kept_back(library: type[Retry]) -> Finding:
    """Look at how far the stream is when its first chunk arrives."""
    made = []

    async def stream(value: object = None):
        for chunk in "abc":
            made.append(chunk)
            yield chunk

    async for _ in library.stream(stream)(1):
        break
    return verdict(len(made) == 1, f"{len(made)} of 3 chunks are made before")


@RETRY.case("100 retries that give up leave nothing for the garbage collector", 6)
async def nothing_is_left_over(library: type[Retry]) -> Finding:
    """Count what only the collector can free."""

    async def fails(value: object = None) -> None:
        raise Boom

    call = library.retry(fails)

    async def exhaust(count: int) -> None:
        for _ in range(count):
            with suppress(Exception):
                await call()

    await exhaust(2)
    gc.collect()
    gc.disable()
    try:
        await exhaust(100)
        count = gc.collect() / 100
    finally:
        gc.enable()
    return verdict(count == 0, f"{count:.0f} objects for each")
