"""Timeout: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import Script, outcome_of, settle
from tta_primitives import WorkflowContext
from tta_primitives.door import Observer, listening
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import TimeoutPrimitive

if TYPE_CHECKING:
    from tests.comparison.cases import Finding, Function

__all__ = ["TIMEOUT"]


class Timeout(Library):
    """What a limit may be asked for."""

    @classmethod
    async def is_own(cls, function: Function, seconds: float) -> bool:
        """Let a limited call fail; tell, where that is caught, whose limit it was."""
        raise LacksError

    @classmethod
    def limit(cls, function: Function, seconds: float) -> Function:
        """Limit how long a function may take."""
        raise LacksError

    @classmethod
    async def told(
        cls, function: Function, seconds: float
    ) -> tuple[object, list[str] | None]:
        """Return what a limited call returns, and what is told of it.

        None where there is nothing that could tell.
        """
        raise LacksError


class Ours(Timeout):
    """TimeoutPrimitive."""

    name = OURS

    @classmethod
    def limit(cls, function, seconds):
        made = TimeoutPrimitive(function, timeout_seconds=seconds)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    async def is_own(cls, function, seconds):
        outcome = await outcome_of(cls.limit(function, seconds)())
        return isinstance(outcome, TimeoutExceededError)

    @classmethod
    async def told(cls, function, seconds):
        told = []

        class Ear(Observer):
            def event(self, call: Any, name: str, detail: Any) -> None:
                told.append(name)

        with listening(observers=(Ear(),)):
            return await cls.limit(function, seconds)(), told


class AsyncioTimeout(Timeout):
    """`async with asyncio.timeout(...)`."""

    name = "asyncio.timeout"

    @classmethod
    def limit(cls, function, seconds):
        async def limited(value=None):
            async with asyncio.timeout(seconds):
                return await function(value)

        return limited

    @classmethod
    async def is_own(cls, function, seconds):
        try:
            async with asyncio.timeout(seconds) as limit:
                await function()
        except TimeoutError:
            return limit.expired()

    @classmethod
    async def told(cls, function, seconds):
        async with asyncio.timeout(seconds) as limit:
            value = await function()
        return value, ["expired"] if limit.expired() else []


class AsyncioWaitFor(Timeout):
    """`asyncio.wait_for`."""

    name = "asyncio.wait_for"

    @classmethod
    def limit(cls, function, seconds):
        return lambda value=None: asyncio.wait_for(function(value), seconds)

    @classmethod
    async def is_own(cls, function, seconds):
        outcome = await outcome_of(asyncio.wait_for(function(), seconds))
        return isinstance(outcome, TimeoutError)

    @classmethod
    async def told(cls, function, seconds):
        return await asyncio.wait_for(function(), seconds), None


class Hyx(Timeout):
    """`async with hyx.timeout`."""

    name = distribution = "hyx"

    @classmethod
    def limit(cls, function, seconds):
        from hyx.timeout import timeout

        async def limited(value=None):
            async with timeout(seconds):
                return await function(value)

        return limited

    @classmethod
    async def is_own(cls, function, seconds):
        from hyx.timeout.exceptions import MaxDurationExceeded

        outcome = await outcome_of(cls.limit(function, seconds)())
        return isinstance(outcome, MaxDurationExceeded)

    @classmethod
    async def told(cls, function, seconds):
        return await cls.limit(function, seconds)(), None


class HyxDecorator(Hyx):
    """`@hyx.timeout`."""

    name = "hyx, as decorator"

    @classmethod
    def limit(cls, function, seconds):
        from hyx.timeout import timeout

        return timeout(seconds)(function)


TIMEOUT = Area("Timeout", Ours, AsyncioTimeout, AsyncioWaitFor, Hyx, HyxDecorator)


@TIMEOUT.case("A TimeoutError of the step itself passes as the object that it is", 25)
async def inner_errors_pass(library: type[Timeout]) -> Finding:
    """Raise one at once under a limit of 5 s."""
    error = TimeoutError("of the socket")
    outcome = await outcome_of(library.limit(Script(error).step(), 5)())
    return verdict(outcome is error, f"{type(outcome).__name__} at once")


@TIMEOUT.case("Where the error is caught it is known whose limit it was", 25)
async def own_errors_are_known(library: type[Timeout]) -> Finding:
    """Ask of an error of the step's own, and of one of the limit."""
    of_step = await library.is_own(Script(TimeoutError("of the socket")).step(), 5)
    of_limit = await library.is_own(Script(30.0).step(), 0.02)
    return verdict(of_limit and not of_step, "both look the same")


@TIMEOUT.case("An expired limit leaves no cancellation on the task", 26)
async def no_cancellation_is_left(library: type[Timeout]) -> Finding:
    """Count what is left, and use the task again."""
    await outcome_of(library.limit(Script(30.0).step(), 0.02)())
    task = asyncio.current_task()
    count = task.cancelling() if task else 0
    for _ in range(count):
        task.uncancel()
    return verdict(count == 0, f"cancelling() is {count}")


@TIMEOUT.case("A limit around an expired one still raises its own error", 26)
async def outer_limits_work(library: type[Timeout]) -> Finding:
    """Let an inner limit expire, and then asyncio's around it."""
    inner = library.limit(Script(30.0).step(), 0.02)

    async def outer() -> None:
        async with asyncio.timeout(0.08):
            await outcome_of(inner())
            await asyncio.sleep(30)

    # In a task of its own, so that what is left over stays there.
    outcome = await outcome_of(asyncio.create_task(outer()))
    return verdict(isinstance(outcome, TimeoutError), type(outcome).__name__)


@TIMEOUT.case("A cancellation from outside stays one", 28)
async def cancellation_passes(library: type[Timeout]) -> Finding:
    """Cancel the task under a limit of 5 s."""
    task = asyncio.create_task(library.limit(Script(30.0).step(), 5)())
    await settle()
    task.cancel()
    outcome = await outcome_of(task)
    return verdict(task.cancelled(), type(outcome).__name__)


@TIMEOUT.case(
    "A step that catches its cancellation keeps its value, and that is told", 30
)
async def caught_cancellation_is_told(library: type[Timeout]) -> Finding:
    """Return a value in spite of the limit; look at who is told."""

    async def stubborn(value: object = None) -> object:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "in spite"

    return _told(await outcome_of(library.told(stubborn, 0.02)), "in spite")


def _told(outcome: object, value: str) -> Finding:
    if not isinstance(outcome, tuple) or outcome[0] != value:
        return verdict(False, f"{type(outcome).__name__} instead of the value")
    if outcome[1] is None:
        raise LacksError
    return verdict(outcome[1], "nobody is told")


@TIMEOUT.case("Cleanup that waits is over when the error comes", 31)
async def cleanup_is_awaited(library: type[Timeout]) -> Finding:
    """Wait for 30 ms in a `finally`."""
    ended = []

    async def tidy(value: object = None) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.03)
            ended.append(True)

    await outcome_of(library.limit(tidy, 0.02)())
    return verdict(ended, "the error comes before")


@TIMEOUT.case("Code that blocks beyond the limit is told of", 32)
async def overruns_are_told(library: type[Timeout]) -> Finding:
    """Hold the event loop for longer than the limit."""

    async def blocks(value: object = None) -> str:
        end = time.perf_counter() + 0.03
        while time.perf_counter() < end:
            pass
        return "late"

    return _told(await outcome_of(library.told(blocks, 0.01)), "late")


@TIMEOUT.case("A ContextVar that is set inside is seen afterwards", "rule 4")
async def context_is_kept(library: type[Timeout]) -> Finding:
    """Set one in the step, and look at it after the call."""
    variable = contextvars.ContextVar("variable", default="lost")

    async def sets(value: object = None) -> None:
        variable.set("kept")

    await library.limit(sets, 5)()
    return verdict(variable.get() == "kept", "lost")


@TIMEOUT.case("One limited function serves many calls at once", "rule 9")
async def many_calls_are_limited(library: type[Timeout]) -> Finding:
    """Let one call of a function expire while another ends well."""

    async def waits(seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return "ok"

    call = library.limit(waits, 0.05)
    outcomes = await asyncio.gather(*map(outcome_of, (call(0.01), call(30), call(0.0))))
    ends = [outcomes[0], outcomes[2]]
    return verdict(ends == ["ok", "ok"], f"{ends}")


@TIMEOUT.case("The time that is left is known inside", 35)
async def deadline_travels(library: type[Timeout]) -> Finding:
    """Ask in the step how much time there is."""
    if library is not Ours:
        raise LacksError
    seen = []

    async def asks(value: object, context: WorkflowContext) -> None:
        seen.append(context.remaining())

    limited = TimeoutPrimitive(
        TimeoutPrimitive(asks, timeout_seconds=30), timeout_seconds=1
    )
    await limited.execute(None, WorkflowContext())
    return verdict(0.9 < seen[0] <= 1, f"{seen[0]:.1f} s")
