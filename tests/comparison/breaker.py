"""Circuit breaker: the cases, each with the probe that finds out who keeps it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.comparison.breaker_libraries import LIBRARIES, RECOVERY
from tests.comparison.cases import Area, NoServerError, verdict
from tests.comparison.steps import Boom, Script, outcome_of, settle
from tests.services import address_of, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.comparison.breaker_libraries import Breaker
    from tests.comparison.cases import Finding, Function

__all__ = ["BREAKER"]

BREAKER = Area("Circuit breaker", *LIBRARIES)


class Service:
    """What is guarded: it fails, answers or waits as it is told at the moment.

    Attributes:
        state: `fails`, `answers`, `waits` or an error to raise.
        calls: How often it was reached.
        gate: Opens for those who wait; then they end as the state is.
    """

    def __init__(self, state: object = "fails") -> None:
        self.state = state
        self.calls = 0
        self.gate = asyncio.Event()

    def step(self) -> Function:
        """Return it as a plain async function."""

        async def service(value: object = None) -> object:
            self.calls += 1
            if self.state == "waits":
                await self.gate.wait()
            if self.state == "fails":
                raise Boom
            if isinstance(self.state, BaseException):
                raise self.state
            return "ok"

        return service


async def opened(call: Function, service: Service, failures: int = 3) -> None:
    """Let the service fail until the circuit is open."""
    service.state = "fails"
    for _ in range(failures):
        await outcome_of(call())
    service.calls = 0


async def half_opened(library: type[Breaker], call: Function, service: Service) -> None:
    """Wait until an open circuit would let a probe through."""
    await opened(call, service)
    # cashews notes in a rejected call that there is something to be tried.
    assert library.is_rejection(await outcome_of(call()))
    await asyncio.sleep(RECOVERY * 1.2)
    service.calls = 0


@BREAKER.case("A success between failures begins the count anew", 36)
async def successes_reset(library: type[Breaker]) -> Finding:
    """Fail four times, succeed, and fail four times, where five in a row open."""
    script = Script(*[Boom()] * 4, "ok", *[Boom()] * 4, "ok")
    call = library.consecutive(script.step(), failures=5)
    outcomes = [await outcome_of(call()) for _ in range(10)]
    return verdict(outcomes[-1] == "ok", "it has opened")


@BREAKER.case("By rate: nine failures of nine do not open it, the tenth does", 37)
async def rates_need_calls(library: type[Breaker]) -> Finding:
    """Fail ten times where half of at least ten calls open."""
    service = Service()
    call = library.rate(service.step())
    rejected = [library.is_rejection(await outcome_of(call())) for _ in range(11)]
    return verdict(
        rejected == [False] * 10 + [True],
        f"opens after {rejected.index(True) if True in rejected else 'more'}",
    )


@BREAKER.case("20 calls at the moment of half-open: 1 is let through", 38)
async def one_probe_is_let_through(library: type[Breaker]) -> Finding:
    """Count who reaches the service."""
    service = Service()
    call = library.breaker(service.step())
    await half_opened(library, call, service)
    service.state = "waits"
    tasks = [asyncio.create_task(outcome_of(call())) for _ in range(20)]
    await settle()
    reached = service.calls
    service.state = "answers"
    service.gate.set()
    await asyncio.gather(*tasks)
    return verdict(reached == 1, f"{reached} of 20 reach the service")


@BREAKER.case("Calls that the client cancels do not open it", "rule 2")
async def cancellations_are_no_failures(library: type[Breaker]) -> Finding:
    """Cancel three calls where three failures open."""
    service = Service("waits")
    call = library.breaker(service.step())
    for _ in range(3):
        task = asyncio.create_task(call())
        await settle()
        task.cancel()
        await outcome_of(task)
    service.state = "answers"
    outcome = await outcome_of(call())
    return verdict(outcome == "ok", "three cancelled calls open it")


@BREAKER.case("A slow call from before has no vote while a probe runs", 39)
async def stale_results_have_no_vote(library: type[Breaker]) -> Finding:
    """Let it succeed beside a probe that fails, which must open the circuit again."""
    old, probe = asyncio.Event(), asyncio.Event()

    async def service(value: object = None) -> object:
        if value == "slow":
            await old.wait()
        elif value != "last":
            if value == "probe":
                await probe.wait()
            raise Boom
        return "ok"

    call = library.breaker(service)
    slow = asyncio.create_task(outcome_of(call("slow")))
    await settle()
    for _ in range(4):  # By rate the call that has begun counts as well.
        await outcome_of(call("fail"))
    assert library.is_rejection(await outcome_of(call("fail")))
    await asyncio.sleep(RECOVERY * 1.2)
    probing = asyncio.create_task(outcome_of(call("probe")))
    await settle()
    old.set()
    await slow
    probe.set()
    await probing
    outcome = await outcome_of(call("last"))
    return verdict(library.is_rejection(outcome), "it closes the circuit")


@BREAKER.case("A probe that is cancelled frees its place: the next call probes", 40)
async def cancelled_probes_free_their_place(library: type[Breaker]) -> Finding:
    """Cancel the probe; then call once."""
    service = Service()
    call = library.breaker(service.step())
    await half_opened(library, call, service)
    probing = await _probing(library, call, service)
    probing.cancel()
    await outcome_of(probing)
    return await _next_probes(library, call, service)


@BREAKER.case("A probe that ends in an ignored error frees its place", 41)
async def ignored_errors_free_their_place(library: type[Breaker]) -> Finding:
    """Let the probe fail by the caller's fault; then call once."""
    service = Service()
    call = library.ignoring(service.step(), KeyError)
    await half_opened(library, call, service)
    probing = await _probing(library, call, service)
    service.state = KeyError("the caller's")
    service.gate.set()
    await outcome_of(probing)
    return await _next_probes(library, call, service)


@BREAKER.case("A probe that hangs does not keep it shut for ever", 42)
async def hanging_probes_are_given_up(library: type[Breaker]) -> Finding:
    """Let a probe hang for three recovery times; then call once."""
    service = Service()
    call = library.breaker(service.step())
    await half_opened(library, call, service)
    probing = await _probing(library, call, service)
    await asyncio.sleep(RECOVERY * 3)
    finding = await _next_probes(library, call, service)
    probing.cancel()
    await outcome_of(probing)
    return finding


async def _probing(
    library: type[Breaker], call: Function, service: Service
) -> asyncio.Task[object]:
    """Begin a probe that waits; where chance decides who may, ask until one may."""
    service.state = "waits"
    for _ in range(20):
        task = asyncio.create_task(call())
        await settle()
        if service.calls:
            return task
        await outcome_of(task)
    msg = f"{library.name} lets no probe through"
    raise RuntimeError(msg)


async def _next_probes(
    library: type[Breaker], call: Function, service: Service
) -> Finding:
    service.state, service.calls = "answers", 0
    outcome = None
    for _ in range(20 if library.name == "cashews" else 1):  # There chance decides.
        outcome = await outcome_of(call())
        if outcome == "ok":
            break
    return verdict(outcome == "ok", "the next call is rejected")


@BREAKER.case("The call that opens it gets its own error", 45)
async def tripping_calls_keep_their_error(library: type[Breaker]) -> Finding:
    """Look at what the third of three failures raises."""
    call = library.breaker(Script(Boom()).step())
    outcomes = [await outcome_of(call()) for _ in range(3)]
    kind = type(outcomes[-1]).__name__
    return verdict(isinstance(outcomes[-1], Boom), f"{kind} instead")


@BREAKER.case("A rejection says when to come back, also far from Greenwich", 43)
async def rejections_carry_the_time(library: type[Breaker]) -> Finding:
    """Ask in New York."""
    with in_zone("America/New_York"):
        service = Service()
        call = library.breaker(service.step())
        await opened(call, service)
        seconds = library.retry_after(await outcome_of(call()))
    return verdict(0 < seconds <= RECOVERY, f"in {seconds:.0f} s")


@contextmanager
def in_zone(name: str) -> Iterator[None]:
    """Live in a time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


@BREAKER.case("200 rejections do not pile up on one error", 43)
async def rejections_are_fresh(library: type[Breaker]) -> Finding:
    """Count the frames of the last one's traceback."""
    service = Service()
    call = library.breaker(service.step())
    await opened(call, service)
    error = None
    for _ in range(200):
        error = await outcome_of(call())
    frames, trace = 0, getattr(error, "__traceback__", None)
    while trace is not None:
        frames, trace = frames + 1, trace.tb_next
    return verdict(frames < 20, f"a traceback of {frames} frames")


@BREAKER.case("A clock on the wall that is set forward does not close it", 92)
async def wall_clocks_do_not_count(library: type[Breaker]) -> Finding:
    """Set it forward by an hour right after it has opened."""
    import time_machine

    service = Service()
    call = library.breaker(service.step())
    await opened(call, service)
    service.state = "answers"
    with time_machine.travel(time.time() + 3600):
        outcome = await outcome_of(call())
    return verdict(library.is_rejection(outcome), "the next call is let through")


@BREAKER.case("A listener that raises changes nothing", 50)
async def listeners_change_nothing(library: type[Breaker]) -> Finding:
    """Let the listener fail when the circuit opens."""

    def hook(*args: object) -> None:
        raise KeyError("hook")

    call = library.told(Script(Boom()).step(), hook)
    outcomes = [await outcome_of(call()) for _ in range(4)]
    kinds = [type(one).__name__ for one in outcomes[2:]]
    is_kept = isinstance(outcomes[2], Boom) and library.is_rejection(outcomes[3])
    return verdict(is_kept, f"{kinds[0]}, then {kinds[1]}")


@BREAKER.case("It opens for calls that succeed too slowly", 48)
async def slow_calls_open(library: type[Breaker]) -> Finding:
    """Let ten calls succeed, each beyond the limit."""
    call = library.slow(Script(0.01).step(), 0.005)
    outcomes = [await outcome_of(call()) for _ in range(11)]
    return verdict(library.is_rejection(outcomes[-1]), "it stays closed")


@BREAKER.case("It stays open longer each time that the probe fails", 47)
async def breaks_grow(library: type[Breaker]) -> Finding:
    """Let the first probe fail, and call again after the first break."""
    service = Service()
    call = library.growing(service.step())
    await outcome_of(call())
    await asyncio.sleep(RECOVERY * 2.2)
    await outcome_of(call())
    await asyncio.sleep(RECOVERY * 1.5)
    rejected = library.is_rejection(await outcome_of(call()))
    return verdict(rejected, "it tries again as soon as before")


@BREAKER.case("Opened by one process, it is open for the other (on Redis)", 51)
async def state_is_shared(library: type[Breaker]) -> Finding:
    """Let one of two fail three times, and call the other."""
    service = Service()
    with _pair(library, service) as (one, other):
        for _ in range(3):
            await outcome_of(one())
        service.state = "answers"
        outcome = await outcome_of(other())
    return verdict(library.is_rejection(outcome), "the other is let through")


@BREAKER.case("Failures of both processes are counted together (on Redis)", 51)
async def counts_are_shared(library: type[Breaker]) -> Finding:
    """Let two fail side by side, one and two times, where three open."""
    service = Service()
    with _pair(library, service) as (one, other):
        await asyncio.gather(outcome_of(one()), outcome_of(other()))
        await outcome_of(one())
        service.state = "answers"
        outcome = await outcome_of(other())
    return verdict(library.is_rejection(outcome), "three failures do not open it")


@contextmanager
def _pair(
    library: type[Breaker], service: Service
) -> Iterator[tuple[Function, Function]]:
    """Lend the function as two processes would have it."""
    from redis import Redis

    host, port = address_of("redis")
    if not listens(host, port):
        raise NoServerError
    name, url = f"tta-comparison-{uuid4().hex}", f"redis://{host}:{port}"
    try:
        yield (
            library.shared(service.step(), url, name),
            library.shared(service.step(), url, name),
        )
    finally:
        with Redis.from_url(url) as clerk:
            for key in clerk.scan_iter(f"*{name}*", count=1000):
                clerk.delete(key)
