"""How an execution is judged: what is broken, what is fair, what has no say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import MockPrimitive, op
from pytest_tta.explore.plan import Plan
from tests.explore.bodies import (
    cancelling,
    exploring,
    faults,
    outcome_of,
    said,
    schedule,
)
from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta import Harness

ERROR = faults("a#1:error")


def with_op(then: Callable[[], Any], *, limit: float = 5) -> Callable[[Any], None]:
    """Return a body that awaits one operation; on its error, `then` is called."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for an operation within a limit."""
            try:
                async with asyncio.timeout(limit):
                    await op("a")
            except (ConnectionError, TimeoutError):
                then()

        tta.run(main, None)

    return body


def raising(error: BaseException) -> Callable[[], None]:
    """Return what raises an error."""

    def then() -> None:
        raise error

    return then


# Without a deviation every failure counts.


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (AssertionError("two charges"), "assertion: two charges"),
        (ValueError("no"), "error: ValueError: no"),
        (ConnectionError("gone"), "error: ConnectionError: gone"),
        (asyncio.CancelledError("why"), "error: CancelledError: why"),
    ],
)
def test_without_a_fault_every_failure_counts(
    error: BaseException, verdict: str
) -> None:
    """Nothing that went wrong explains it."""

    def body(_: Harness) -> None:
        raise error

    outcome = outcome_of(body)
    assert said(outcome) == verdict
    assert outcome.ended == "broken"
    assert outcome.verdict is not None
    assert outcome.verdict.where.startswith("tests/explore/test_judging.py:")


def test_another_order_explains_nothing() -> None:
    """A schedule without faults is something that happens."""

    def body(tta: Harness) -> None:
        order: list[str] = []

        async def run(name: str) -> None:
            """Say that it was here."""
            await op(name)
            order.append(name)

        async def main(_: None) -> None:
            """Run both."""
            await asyncio.gather(run("a"), run("b"))

        tta.run(main, None)
        if order != ["a", "b"]:
            raise ConnectionError("lost")

    assert said(outcome_of(body, schedule((0, 1)))) == "error: ConnectionError: lost"


def test_a_failed_test_of_pytest_is_an_assertion() -> None:
    """`pytest.fail`, or a `pytest.raises` that nothing was raised in."""

    def body(_: Harness) -> None:
        with pytest.raises(ValueError, match="no"):
            pass

    assert said(outcome_of(body)).startswith("assertion: DID NOT RAISE")


def test_a_skipped_body_is_fair() -> None:
    """It says itself that it does not apply."""

    def body(_: Harness) -> None:
        pytest.skip("not here")

    assert said(outcome_of(body)) == "told"


# With a fault, an error that reaches the caller is fair.


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("gone"),
        RuntimeError("out of order"),
        ExceptionGroup("several", [ValueError("no"), OSError("gone")]),
        asyncio.CancelledError(),
    ],
)
def test_a_fault_may_reach_the_caller(error: BaseException) -> None:
    """The caller knows, in whatever words."""
    outcome = outcome_of(with_op(raising(error)), ERROR)
    assert outcome.verdict is None
    assert outcome.ended in {"told", "cancelled"}


@pytest.mark.parametrize(
    "error",
    [
        TypeError("wrong"),
        AttributeError("wrong"),
        NameError("wrong"),
        KeyError("wrong"),
        ZeroDivisionError("wrong"),
        NotImplementedError("wrong"),
        RecursionError("wrong"),
        asyncio.InvalidStateError("wrong"),
        ExceptionGroup("several", [OSError("gone"), KeyError("wrong")]),
        BaseExceptionGroup("several", [GeneratorExit("wrong")]),
    ],
)
def test_programming_errors_are_never_fair(error: BaseException) -> None:
    """What handles a fault has a mistake of its own."""
    outcome = outcome_of(with_op(raising(error)), ERROR)
    assert said(outcome).startswith(f"error: {type(error).__name__}")


def test_a_programming_error_that_was_injected_is_fair() -> None:
    """A retry expects it, so a fault has it; nobody else made the mistake."""

    async def look(_: str) -> str:
        """Look something up."""
        return "found"

    def body(tta: Harness) -> None:
        tta.run(RetryPrimitive(look, retry_on=(KeyError,), max_retries=0), "x")

    outcome = outcome_of(body, faults("retry/look#1:error"))
    assert (said(outcome), outcome.calls[0].is_struck) == ("told", True)


def test_assertions_are_judged_under_a_fault() -> None:
    """A body whose code has dealt with the fault goes on to its assertions."""
    body = with_op(raising(AssertionError("two charges")))
    assert said(outcome_of(body, ERROR)) == "assertion: two charges"


def test_an_early_limit_is_a_deviation() -> None:
    """An error of a limit that ran out is fair, if it reaches the caller."""
    early = schedule((0, 1), early=1)
    fair = outcome_of(with_op(raising(TimeoutError("late"))), early)
    wrong = outcome_of(with_op(raising(KeyError("late"))), early)
    assert (said(fair), fair.early) == ("told", 1)
    assert said(wrong) == "error: KeyError: 'late'"


# What has no say under a fault.


async def fail_or_not(word: str) -> str:
    """Say a word."""
    return word


def degraded(tta: Harness) -> None:
    """Let a fallback answer, and expect the primary's answer."""
    workflow = FallbackPrimitive(fail_or_not, [step(str.upper)])
    assert tta.run(workflow, "x") == "x"


FALLBACK = faults("fallback/fail_or_not#1:error")


def test_a_fallback_excuses_the_bodys_assertions() -> None:
    """Another answer was given, as it is meant."""
    outcome = outcome_of(degraded, FALLBACK)
    assert (outcome.verdict, outcome.is_judged, outcome.ended) == (None, False, "told")


def test_a_strict_test_judges_in_any_case() -> None:
    """Its assertions are meant to hold whatever goes wrong."""
    outcome = outcome_of(degraded, FALLBACK, strict=True)
    assert said(outcome).startswith("assertion")


def test_a_stale_answer_excuses_the_bodys_assertions() -> None:
    """As a fallback does."""
    versions: list[str] = []

    async def load(_: str) -> str:
        """Load the next version."""
        versions.append(f"v{len(versions) + 1}")
        return versions[-1]

    def body(tta: Harness) -> None:
        versions.clear()
        cache = CachePrimitive(load, ttl=1, stale_if_error=60)
        assert tta.run(cache, "x") == "v1"
        tta.clock.stall(2)
        assert tta.run(cache, "x") == "v2"

    with exploring(body) as subject:
        assert subject(Plan()).verdict is None
        outcome = subject(faults("cache/load#2:error"))
    assert (outcome.verdict, outcome.is_judged) == (None, False)


def about_the_trace(tta: Harness) -> None:
    """Expect one attempt."""
    tta.run(RetryPrimitive(fail_or_not, jitter="none"), "x")
    assert len(tta.trace.spans) == 2


def about_the_exact_time(tta: Harness) -> None:
    """Expect no delay."""
    tta.run(RetryPrimitive(fail_or_not, jitter="none"), "x")
    assert tta.elapsed == 0


def about_the_sleeps(tta: Harness) -> None:
    """Expect no wait."""
    tta.run(RetryPrimitive(fail_or_not, jitter="none"), "x")
    assert tta.clock.sleeps.delays == []


def about_a_span_that_is_no_more_alone(tta: Harness) -> None:
    """Find the only attempt."""
    tta.run(RetryPrimitive(fail_or_not, jitter="none"), "x")
    tta.trace.find("fail_or_not")


def about_an_upper_limit(tta: Harness) -> None:
    """Promise to be quick."""
    tta.run(RetryPrimitive(fail_or_not, jitter="none"), "x")
    assert tta.elapsed < 0.1


RETRIED = faults("retry/fail_or_not#1:error")


@pytest.mark.parametrize(
    "body",
    [
        about_the_trace,
        about_the_exact_time,
        about_the_sleeps,
        about_a_span_that_is_no_more_alone,
    ],
)
def test_what_is_asserted_of_the_way_has_no_say(body: Callable[[Any], None]) -> None:
    """A retry changes trace and time, which is what it is for."""
    assert outcome_of(body).verdict is None
    outcome = outcome_of(body, RETRIED)
    assert (outcome.verdict, outcome.is_judged) == (None, False)
    assert outcome_of(body, RETRIED, strict=True).verdict is not None


def test_an_upper_limit_on_time_is_a_promise() -> None:
    """It holds whatever goes wrong."""
    assert said(outcome_of(about_an_upper_limit, RETRIED)).startswith("assertion")


def test_a_script_that_foresaw_fewer_calls_has_no_say() -> None:
    """Neither a mock's, nor the double's; what is unused is explained as well."""

    def body(tta: Harness) -> None:
        tta.llm.reply("fine")
        look = MockPrimitive("look", side_effect=["seen"])
        tta.run(RetryPrimitive(look, jitter="none") >> tta.llm.primitive(), "x")

    assert outcome_of(body).verdict is None
    again = outcome_of(body, faults("sequential/retry/look#1:lost-ack"))
    assert (again.verdict, again.is_judged) == (None, False)
    never = outcome_of(body, faults("sequential/llm#1:error"))
    assert said(never) == "told"


def test_a_script_has_its_say_without_a_fault() -> None:
    """As at the end of an ordinary test."""

    def body(tta: Harness) -> None:
        tta.llm.reply("never asked for")

    assert said(outcome_of(body)).startswith("double or wire: ")


def test_the_audit_of_the_wire_has_its_say_in_any_case() -> None:
    """What clients do wrong with an answer is wrong after a fault as well."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for an operation."""
            await op("a")

        vars(tta.wire)["audit"] = lambda: [_Finding()]
        tta.run(main, None)

    assert said(outcome_of(body, ERROR)) == "double or wire: leaked"


class _Finding:
    """Something that a client did wrong."""

    kind = "leaked_response"

    def __str__(self) -> str:
        return "leaked"


# Invariants have the last word, after a fair end as well.


def test_invariants_are_judged_after_a_fair_end() -> None:
    """An order is paid once, whether or not the caller was told of an error."""

    def body(tta: Harness) -> None:
        paid: list[int] = []
        tta.always(lambda: len(paid) <= 1, "an order is paid once")

        async def main(_: None) -> None:
            """Pay, and pay again if that fails."""
            for _ in range(2):
                try:
                    async with op("pay"):
                        paid.append(1)
                        return
                except ConnectionError:
                    continue
            raise ConnectionError

        tta.run(main, None)

    with exploring(body) as subject:
        assert subject(Plan()).verdict is None
        assert subject(faults("pay#1:error")).verdict is None
        twice = subject(faults("pay#1:lost-ack"))
        told = subject(faults("pay#1:lost-ack", "pay#2:lost-ack"))
    text = "invariant: invariant does not hold: an order is paid once, stated at "
    assert said(twice).startswith(text)
    assert said(told).startswith(text)
    assert (twice.ended, told.ended) == ("returned", "told")
    assert twice.verdict is not None
    assert twice.verdict.where.startswith("tests/explore/test_judging.py:")


def test_what_is_sometimes_reached_is_kept_over_executions() -> None:
    """One of them is enough."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for an operation."""
            try:
                await op("a")
            except ConnectionError:
                tta.sometimes("failed")
            tta.sometimes("never", condition=False)

        tta.run(main, None)

    with exploring(body) as subject:
        for plan in (Plan(), ERROR, Plan()):
            subject(plan)
        assert subject.reached == {"failed": True, "never": False}


# Cancellations.


def test_cancelling_what_the_test_runs_judges_its_assertions() -> None:
    """Whoever cancels still relies on what they assert."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait, and clean up badly."""
            try:
                await op("a")
            except asyncio.CancelledError:
                raise KeyError("cleanup") from None

        tta.run(main, None)

    assert said(outcome_of(body, cancelling("main", 0))) == "error: KeyError: 'cleanup'"


def test_a_cancellation_that_is_swallowed_is_found() -> None:
    """What was cancelled while it waited must not return as if nothing had been."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> str:
            """Wait, whatever happens."""
            try:
                await op("a")
            except BaseException:
                return "fallback"
            return "fine"

        tta.run(main, None)

    with exploring(body) as subject:
        assert subject(Plan()).verdict is None
        outcome = subject(cancelling("main", 0))
    assert said(outcome).startswith("swallowed cancellation: what the test runs was")


# Being stuck.


def test_a_deadlock_is_found() -> None:
    """Everybody waits, and no fault explains it."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for ever."""
            await asyncio.get_running_loop().create_future()

        tta.run(main, None)

    assert said(outcome_of(body)).startswith("deadlock: every task waits")


def test_an_unbounded_wait_is_found() -> None:
    """A call never answers, and nothing ends the wait."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for an operation."""
            await op("a")

        tta.run(main, None)

    text = "unbounded wait: call 1 of a never answers, and nothing bounds the wait"
    assert said(outcome_of(body, faults("a#1:hang"))).startswith(text)


def test_a_livelock_is_found() -> None:
    """Tasks run for ever, and nothing comes of it."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Ask again and again."""
            while True:
                await asyncio.sleep(0)

        tta.run(main, None)

    with exploring(body) as subject:
        subject.loop.max_steps = 1000
        assert said(subject(Plan())).startswith("livelock: ")


def test_a_retry_storm_is_found() -> None:
    """One fault makes one run call a site again and again."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Ask until it works."""
            while True:
                try:
                    return await op("a")
                except ConnectionError:
                    await asyncio.sleep(0.5)

        tta.run(main, None)

    text = (
        "retry storm: a was called 32 times in one run, because of one outage, within "
        "15.5 virtual s\nbound the retries"
    )
    with exploring(body) as subject:
        subject(Plan())
        assert said(subject(faults("a#1:outage"))).startswith(text)


@pytest.mark.parametrize(
    ("most", "product"),
    [
        ((3, 3, 3), "3 retries around each other, up to 4 tries each: 4 x 4 x 4 = 64"),
        ((5, 7), "2 retries around each other, up to 6 and 8 tries each: 6 x 8 = 48"),
        ((40,), ""),
        ((40, None), ""),
        ((3, 40), ""),
    ],
)
def test_retries_around_each_other_are_multiplied(
    most: tuple[int | None, ...], product: str
) -> None:
    """The outermost first; nothing is said of one, or where there is no bound."""
    nested = most != (3, 40)

    def body(tta: Harness) -> None:
        @step
        async def search(text: str) -> str:
            await op("a")
            return text

        workflow: Any = search
        for number in reversed(most):
            limit = None if number is not None else 3600
            workflow = RetryPrimitive(
                workflow,
                max_retries=number,
                max_elapsed=limit,
                max_delay=0.1,
                retry_nested=nested,
            )
        tta.run(workflow, "x")

    with exploring(body) as subject:
        subject(Plan())
        lines = said(subject(faults("a#1:outage"))).splitlines()
    assert len(lines) == (3 if product else 2)
    assert lines[1].startswith(product or "bound the retries")


def polling(times: int, seconds: float) -> Callable[[Harness], None]:
    """Return a body that asks again and again, and gives up in the end."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> str:
            for _ in range(times):
                try:
                    return await op("a") or "done"
                except ConnectionError:
                    await asyncio.sleep(seconds)
            return "gave up"

        tta.run(main, None)

    return body


@pytest.mark.parametrize(
    ("times", "seconds", "max_calls", "is_storm"),
    [
        (60, 1.0, 30, False),
        (60, 0.9, 30, True),
        (60, 0.9, 60, False),
        (320, 1.0, 30, True),
        (21, 1.0, 1, True),
        (20, 1.0, 2, False),
    ],
)
def test_polling_is_no_storm(
    times: int, seconds: float, max_calls: int, *, is_storm: bool
) -> None:
    """A second between calls is calm, for ten times as many; others need a number."""
    with exploring(polling(times, seconds)) as subject:
        subject.sites.max_calls = max_calls
        subject(Plan())
        verdict = subject(faults("a#1:outage")).verdict
    assert (verdict is not None and verdict.kind == "retry storm") is is_storm


def test_what_is_called_often_anyway_is_no_storm() -> None:
    """A site that a plain run calls a hundred times may be called once more."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Poll, and forgive."""
            for _ in range(100):
                try:
                    await op("a")
                except ConnectionError:
                    continue

        tta.run(main, None)

    with exploring(body) as subject:
        assert subject(Plan()).verdict is None
        assert subject(ERROR).verdict is None


def test_a_storm_is_counted_in_one_run() -> None:
    """A body that runs its workflow often calls its sites often."""

    def body(tta: Harness) -> None:
        for _ in range(40):
            tta.run(TimeoutPrimitive(fail_or_not, timeout_seconds=1), "x")

    site = "timeout/fail_or_not"
    with exploring(body) as subject:
        outcome = subject(faults(f"{site}#40:lost-ack"))
    assert outcome.calls[-1].is_struck
    assert outcome.ended == "told"


def test_a_limit_is_fair_where_the_outside_was_slow() -> None:
    """An answer that comes after a timer has taken that long, without a fault."""

    def body(tta: Harness) -> None:
        async def main(_: None) -> None:
            """Wait for an operation and 9 s, with another timer beside it."""
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(2))
                await op("x")
                await asyncio.sleep(9)

        tta.run(main, None)

    assert said(outcome_of(body)) == "returned"
    slow = outcome_of(body, schedule((0, 1)))
    assert (said(slow), slow.seconds) == ("told", 10)
