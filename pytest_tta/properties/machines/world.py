"""The world of one state machine: a loop in virtual time, and a step to be answered."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop
from tta_primitives.context import WorkflowContext
from tta_primitives.primitive import StepPrimitive, WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Caller", "Load", "World"]

# Timers of floats fire at the nanosecond next to them: all that is due has happened
# when this much has passed.
_MOMENT = 2e-9

_caller: ContextVar[Caller] = ContextVar("tta_machine_caller")


class Caller:
    """Somebody who has called the primitive under test.

    Attributes:
        number: Which caller, from 1.
        value: What was given.
        expected: Where the model says the call stands: "waiting", "inside" the step,
            or how it has ended: "returned", "failed", "rejected" or "cancelled".
        why: Why, in words.
        result: What it must return; None where the model does not say.
        task: The call.
        loads: The executions of the step that it has begun.
    """

    __slots__ = ("expected", "loads", "number", "result", "task", "value", "why")

    task: asyncio.Task[Any]

    def __init__(self, number: int, value: int) -> None:
        self.number: int = number
        self.value: int = value
        self.expected: str = "inside"
        self.why: str = ""
        self.result: object = None
        self.loads: list[Load] = []

    def expect(self, state: str, why: str = "", result: object = None) -> None:
        """Say where the call must stand from now on.

        Args:
            state: As for `expected`.
            why: In words, for the message.
            result: What it must return.
        """
        self.expected, self.why, self.result = state, why, result

    def __repr__(self) -> str:
        return f"<Caller {self.number} value={self.value}>"


class Load:
    """One execution of the step, which ends when the machine answers it.

    Attributes:
        caller: Whose call has begun it.
        value: What the step was given.
        began_at: When, in seconds.
        number: Which execution of the step it is, from 1.
        future: Its answer.
    """

    __slots__ = ("began_at", "caller", "future", "number", "value")

    def __init__(
        self, caller: Caller, value: int, number: int, future: asyncio.Future[Any]
    ) -> None:
        self.caller: Caller = caller
        self.number: int = number
        self.value: int = value
        self.began_at: float = future.get_loop().time()
        self.future: asyncio.Future[Any] = future


class World:
    """A loop in virtual time, the step, and those who call.

    Attributes:
        loop: The loop; it runs only while something is done here.
        step: The step to put the primitive around.
        callers: All callers so far.
        loads: The executions of the step that are under way, the oldest first.
    """

    def __init__(self) -> None:
        self.loop: SimulationLoop = SimulationLoop(VirtualClock(wall=False))
        self.step: WorkflowPrimitive[int, Any] = StepPrimitive(
            self._execute, name="step"
        )
        self.callers: list[Caller] = []
        self.loads: list[Load] = []
        self._begun = 0

    @property
    def now(self) -> float:
        """The present, in seconds."""
        return self.loop.time()

    async def _execute(self, value: int) -> object:
        future = self.loop.create_future()
        self._begun += 1
        load = Load(_caller.get(), value, self._begun, future)
        self.loads.append(load)
        load.caller.loads.append(load)
        try:
            return await future
        finally:
            self.loads.remove(load)

    def call(self, primitive: WorkflowPrimitive[int, Any], value: int) -> Caller:
        """Call the primitive; what comes of it is seen when `settle` has returned."""
        caller = Caller(len(self.callers) + 1, value)
        self.callers.append(caller)
        coro = _called(primitive, caller)
        caller.task = self.loop.create_task(coro, name=f"caller {caller.number}")
        return caller

    def settle(self) -> None:
        """Let everybody go on who can, in no time."""
        self.loop.run(_quiet(self.loop))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everybody go on meanwhile."""
        self.loop.run(_pass(self.loop, seconds))

    def run(self, function: Callable[[], Awaitable[object]]) -> None:
        """Await something that belongs to the test and not to a caller."""

        async def main() -> None:
            """Await it, and let all that follows from it happen."""
            await function()
            await _quiet(self.loop)

        self.loop.run(main())

    def standing(self, caller: Caller) -> str:
        """Return where a call stands in truth, in the words of `Caller.expected`."""
        task = caller.task
        if not task.done():
            is_inside = any(not load.future.done() for load in caller.loads)
            return "inside" if is_inside else "waiting"
        if task.cancelled():
            return "cancelled"
        error = task.exception()
        if error is None:
            return "returned"
        return "failed" if isinstance(error, ConnectionError) else "rejected"

    def close(self) -> None:
        """End everything that is left."""
        self.loop.close()


async def _called(primitive: WorkflowPrimitive[int, Any], caller: Caller) -> object:
    _caller.set(caller)
    return await primitive.execute(caller.value, WorkflowContext())


async def _quiet(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until nothing is left to run now.

    Timers fire when nothing is ready, and of those that are due the youngest is last.
    """
    done = loop.create_future()
    loop.call_at(loop.time(), done.set_result, None)
    await done


async def _pass(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await asyncio.sleep(_MOMENT)
    await _quiet(loop)
