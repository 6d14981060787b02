"""One call of a hedge: executions that race, until one of them has the answer."""

from __future__ import annotations

from asyncio import CancelledError, get_running_loop, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from tta_primitives.cancellation import is_cancellation
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.recovery.attempts import _replace_note, _repr
from tta_primitives.recovery.classify import matches
from tta_primitives.recovery.results import discard

if TYPE_CHECKING:
    from asyncio import Future, Task, TimerHandle
    from collections.abc import AsyncIterator, Coroutine

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.hedge import HedgePrimitive

__all__ = ["HedgeOutcome", "Race", "Skip", "StreamRace"]

Skip: TypeAlias = Literal[
    "budget", "deadline", "latency_unknown", "not_eligible", "not_idempotent"
]

# Under it stands on an error what note a hedge has left there.
_NOTE = "_tta_hedge_note"


@dataclass(frozen=True, slots=True)
class HedgeOutcome:
    """Which hedge answered before the primary, as `context.outcomes[path]` tells it.

    Attributes:
        number: Which hedge: 1 is the first that was started.
        name: The name of the primitive that answered.
    """

    number: int
    name: str


class Execution:
    """One of the executions of a call, in a task of its own.

    Attributes:
        number: 0 for the primary, then the number of the hedge.
        name: Of the primitive that is executed.
        task: Where it runs.
        is_cancelled: Whether it has failed because it was cancelled.
        is_discarded: Whether its result, if it had one, was closed.
        is_heard: Whether it has told of its end.
        is_unwanted: Whether it was told to end.
        has_chunk: Whether it has read a chunk that nobody was given yet.
        chunk: That chunk.
        asked: For what it waits before it reads the next chunk.
    """

    __slots__ = (
        "asked",
        "chunk",
        "has_chunk",
        "is_cancelled",
        "is_discarded",
        "is_heard",
        "is_unwanted",
        "name",
        "number",
        "task",
    )

    task: Task[Any]

    def __init__(self, number: int, name: str) -> None:
        self.number: int = number
        self.name: str = name
        self.is_cancelled: bool = False
        self.is_discarded: bool = False
        self.is_heard: bool = False
        self.is_unwanted: bool = False
        self.has_chunk: bool = False
        self.chunk: Any = None
        self.asked: Future[None] | None = None

    def error(self) -> BaseException | None:
        """Return what it raised; None if it was cancelled, or has not failed."""
        task = self.task
        return task.exception() if task.done() and not task.cancelled() else None

    def has_succeeded(self) -> bool:
        """Tell whether there is a result, or the first chunk of one."""
        task = self.task
        if not task.done():
            return self.has_chunk
        return not task.cancelled() and task.exception() is None

    def has_no_verdict(self) -> bool:
        """Tell whether somebody else has cancelled it, whatever it made of that."""
        return self.is_cancelled or self.task.cancelled()

    def result(self) -> Any:  # noqa: ANN401 - any primitive's output
        """Return the result; None if there is none."""
        is_there = self.task.done() and self.has_succeeded()
        return self.task.result() if is_there else None


class Race:
    """One call of a hedge.

    Executions run in tasks. All decisions are taken in the caller's own task, which is
    woken when one of them has ended and when the next is due; so what a predicate of
    the user's raises comes out of the call like any other error.
    """

    __slots__ = (
        "_answer",
        "_began_at",
        "_context",
        "_executions",
        "_has_failed",
        "_hedge",
        "_input",
        "_is_due",
        "_is_last",
        "_latest_at",
        "_loop",
        "_news",
        "_running",
        "_timer",
        "_view",
        "_waiter",
    )

    def __init__(
        self,
        hedge: HedgePrimitive[Any, Any],
        input_data: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
    ) -> None:
        self._hedge = hedge
        self._input = input_data
        self._context = context
        self._view: WorkflowContext | None = None
        self._loop = get_running_loop()
        self._executions: list[Execution] = []
        # How many of them have not ended yet, as far as was looked at.
        self._running = 0
        self._answer: Execution | None = None
        # What has ended, or has a first chunk, and was not looked at yet: in order.
        self._news: list[Execution] = []
        self._waiter: Future[None] | None = None
        self._timer: TimerHandle | None = None
        # When the first and the latest execution began.
        self._began_at = self._latest_at = 0.0
        self._is_due = False
        # Whether no further hedge is started, whatever happens.
        self._is_last = False
        # Whether all executions have failed.
        self._has_failed = False

    def place(self, number: int) -> tuple[WorkflowPrimitive[Any, Any], WorkflowContext]:
        """Return what an execution executes, and the view that it gets.

        All are the same logical operation, so what is executed again sees the same
        idempotency keys.

        Args:
            number: 0 for the primary, then the number of the hedge.
        """
        hedge, context = self._hedge, self._context
        plan = hedge._heard_plan if is_listening() else hedge._plan
        index = 1 + (number - 1) % (len(plan) - 1) if number and len(plan) > 1 else 0
        one, label = plan[index]
        if label is None:
            return one, context
        if not one._needs_position:
            return one, context.below(hedge, one, label)
        if self._view is None:
            self._view = context.child()
            self._view.open_key_scope(hedge)
        view = self._view.below(hedge, one, label)
        if number:
            view.reopen_key_scope()
        return one, view

    async def alone(self) -> Any:  # noqa: ANN401 - any primitive's output
        """Return what the primary returns, without any hedge."""
        one, view = self.place(0)
        began_at = self._loop.time()
        result = await one.execute(self._input, view)
        if self._hedge._latencies is not None:
            self._hedge._latencies.note(self._loop.time() - began_at)
        return result

    async def run(self) -> None:
        """See the executions through until one has the answer and no other runs."""
        is_settled = False
        try:
            self._begin()
            self._schedule()
            while not self._is_decided():
                # Here, because each coroutine that waits takes memory.
                self._waiter = self._loop.create_future()
                await self._waiter
            self._disarm()
            self._note_latency()
            if len(self._executions) > 1:
                await self._end_others()
            is_settled = True
        finally:
            if not is_settled:
                self._answer = None
                try:
                    await self._end_others()
                finally:
                    self._let_go()
        self._tell_win()

    def result(self) -> Any:  # noqa: ANN401 - any primitive's output
        """Return the answer's result, or raise its error.

        If all have failed, that is the primary's, with a note on the others.
        """
        answer = cast("Execution", self._answer)
        result, error = answer.result(), answer.error()
        if error is None and not answer.has_succeeded():
            error = CancelledError()
        if isinstance(error, Exception):
            self._leave_note(error)
        self._let_go()
        if error is None:
            return result
        # The error's traceback will hold this frame, which must not hold the error.
        try:
            raise error
        finally:
            del error

    def _let_go(self) -> None:
        """Let go of the tasks: what they raised leads to frames that hold this."""
        for one in self._executions:
            del one.task
        self._executions.clear()
        self._news.clear()
        self._answer = None

    def _is_decided(self) -> bool:
        """Look at the news, start what is due, and tell whether there is an answer."""
        while self._answer is None:
            if self._news:
                self._look_at(self._news.pop(0))
            elif self._is_due:
                self._start_next()
            else:
                return False
        return True

    def _note_latency(self) -> None:
        """Count how long the primary took, if it has not failed."""
        latencies, primary = self._hedge._latencies, self._executions[0]
        answer = cast("Execution", self._answer)
        if latencies is None or not answer.has_succeeded():
            return
        # A primary that was overtaken has taken at least so long.
        if not primary.task.done() or primary.has_succeeded():
            latencies.note(self._loop.time() - self._began_at)

    def _look_at(self, execution: Execution) -> None:
        """Take an execution's end for the answer, or let the next one start at once."""
        self._running -= execution.task.done()
        error = execution.error()
        if execution.has_no_verdict():
            # Such an end has no vote. Of the primary, it is what the caller would have
            # seen without a hedge.
            if not execution.number:
                self._answer = execution
                return
        elif isinstance(error, Exception) and matches(self._hedge.hedge_on, error):
            self._start_next()
        else:
            self._answer = execution
            return
        if not self._running:
            self._has_failed = True
            self._answer = self._executions[0]

    def _begin(self) -> None:
        """Begin the next execution, in a task of its own."""
        number = len(self._executions)
        one, view = self.place(number)
        path = self._context.position_of(self._hedge).path
        which = f", hedge {number}" if number else ""
        execution = Execution(number, one.name)
        self._latest_at = self._loop.time()
        if not number:
            self._began_at = self._latest_at
        execution.task = self._loop.create_task(
            self._execute(execution, one, view), name=f"{path}/{one.name}{which}"
        )
        self._executions.append(execution)
        self._running += 1
        # One that is cancelled before its first step cannot tell by itself.
        execution.task.add_done_callback(self._heard_end)

    async def _execute(
        self,
        execution: Execution,
        one: WorkflowPrimitive[Any, Any],
        view: WorkflowContext,
    ) -> Any:  # noqa: ANN401 - any primitive's output
        try:
            return await self._outcome(execution, one, view)
        except Exception as error:
            execution.is_cancelled = is_cancellation(error)
            raise
        finally:
            # The caller learns it a turn of the loop earlier than by a callback.
            execution.is_heard = True
            self._hear(execution)

    def _outcome(
        self,
        execution: Execution,  # noqa: ARG002 - for streams
        one: WorkflowPrimitive[Any, Any],
        view: WorkflowContext,
    ) -> Coroutine[Any, Any, Any]:
        return one.execute(self._input, view)

    def _schedule(self) -> None:
        """Set the time at which the next hedge is due."""
        number = len(self._executions)
        if self._is_last or number > self._hedge.max_hedges:
            return
        delay = self._hedge._delay_before(number)
        if delay is None:
            return
        due_at = self._latest_at + delay
        deadline = self._context.deadline
        if deadline is not None and due_at >= deadline:
            # A failure before it may still start one at once.
            self.skip("deadline")
        elif delay > 0:
            self._timer = self._loop.call_at(due_at, self._ring)
        else:
            self._is_due = True

    def _start_next(self) -> None:
        """Start the next hedge, unless nothing allows it."""
        self._disarm()
        hedge, number, now = self._hedge, len(self._executions), self._loop.time()
        if self._is_last or number > hedge.max_hedges:
            return
        deadline = self._context.deadline
        if deadline is not None and now >= deadline:
            self.skip("deadline")
        elif hedge.budget is not None and not hedge.budget.take():
            self._is_last = True
            self.skip("budget")
        else:
            hedge._counts.hedges += 1
            if is_listening():
                delay = now - self._latest_at
                emit(self._context, "hedge.started", number=number, delay=delay)
            self._begin()
            self._schedule()

    def skip(self, reason: Skip) -> None:
        """Tell why a hedge is not started."""
        self._hedge._counts.skipped += 1
        if is_listening():
            emit(self._context, "hedge.skipped", reason=reason)

    def _ring(self) -> None:
        self._is_due = True
        self._wake()

    def _disarm(self) -> None:
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        waiter = self._waiter
        # On a loop that was closed, tasks may still be thrown away.
        if waiter is not None and not waiter.done() and not self._loop.is_closed():
            waiter.set_result(None)

    def _hear(self, execution: Execution) -> None:
        """Look at an execution as soon as possible."""
        self._news.append(execution)
        self._wake()

    def _heard_end(self, task: Task[Any]) -> None:
        for one in self._executions:
            if one.task is task and not one.is_heard:
                self._hear(one)

    async def _end_others(self) -> None:
        """Cancel all but the answer, see them end, and close the results they had."""
        self._disarm()
        answer = self._answer
        others = [one for one in self._executions if one is not answer]
        try:
            await _end(others)
        finally:
            await _discard_all(self._unwanted(others))

    def _unwanted(self, executions: list[Execution]) -> list[Any]:
        """Return the results of executions that are to be closed, each of them once."""
        found = {
            id(result): result
            for one in executions
            if not one.is_discarded and (result := one.result()) is not None
        }
        for one in executions:
            one.is_discarded = True
        if self._answer is not None:
            # Two executions may return one object, for instance a shared connection.
            found.pop(id(self._answer.result()), None)
        return list(found.values())

    def _tell_win(self) -> None:
        """Tell that another than the primary has answered, if it has."""
        answer = self._answer
        if answer is None or not answer.number or not answer.has_succeeded():
            return
        self._hedge._counts.wins += 1
        context = self._context
        if is_listening():
            emit(context, "hedge.won", number=answer.number)
        path = context.position_of(self._hedge).path
        context.outcomes[path] = HedgeOutcome(answer.number, answer.name)

    def _leave_note(self, error: Exception) -> None:
        """Leave on the primary's error what became of the hedges, if all have failed.

        A note from an earlier run on the same error object is replaced.
        """
        note = None
        hedges = self._executions[1:]
        if self._has_failed and hedges:
            path = self._context.position_of(self._hedge).path
            lines = [f"{one.number}. {_how_it_failed(one)}" for one in hedges]
            note = "\n  ".join([f"{path}: its hedges failed as well:", *lines])
        fields = vars(error)
        _replace_note(fields, fields.pop(_NOTE, None), note)
        if note is not None:
            fields[_NOTE] = note


class StreamRace(Race):
    """One call of a hedge's `stream`: the first chunk wins.

    Each stream is read by its own task from its first chunk to its last, because what
    it may hold open between two chunks (a time limit, a group of tasks) belongs to the
    task that opened it. It reads no further than the consumer asks.
    """

    __slots__ = ()

    async def _outcome(
        self,
        execution: Execution,
        one: WorkflowPrimitive[Any, Any],
        view: WorkflowContext,
    ) -> None:
        async with closing(one.stream(self._input, view)) as chunks:
            async for chunk in chunks:
                if execution.is_unwanted:
                    return  # It has swallowed its cancellation.
                execution.chunk = chunk
                execution.has_chunk = True
                execution.asked = self._loop.create_future()
                self._hear(execution)
                await execution.asked

    async def chunks_alone(self) -> AsyncIterator[Any]:
        """Yield the chunks of the primary, without any hedge."""
        one, view = self.place(0)
        began_at = self._loop.time()
        latencies = self._hedge._latencies
        async with closing(one.stream(self._input, view)) as chunks:
            async for chunk in chunks:
                if latencies is not None:
                    latencies.note(self._loop.time() - began_at)
                    latencies = None
                yield chunk

    async def chunks(self) -> AsyncIterator[Any]:
        """Yield the chunks of the answer as they are asked for, or raise its error."""
        answer = cast("Execution", self._answer)
        try:
            while answer.has_chunk or not answer.task.done():
                if answer.has_chunk:
                    answer.has_chunk = False
                    yield answer.chunk
                    answer.chunk = None
                    cast("Future[None]", answer.asked).set_result(None)
                else:
                    self._waiter = self._loop.create_future()
                    await self._waiter
            self.result()
        finally:
            try:
                await _end(self._executions)
            finally:
                self._let_go()


def _how_it_failed(execution: Execution) -> str:
    error = execution.error()
    return _repr(error) if isinstance(error, Exception) else "it was cancelled"


async def _end(executions: list[Execution]) -> None:
    """Cancel executions and see them end, also if this is cancelled meanwhile."""
    interruption: CancelledError | None = None
    for one in executions:
        one.is_unwanted = True
        one.task.cancel()  # Nothing to one that has ended.
    while pending := [one.task for one in executions if not one.task.done()]:
        try:
            await wait(pending)
        except CancelledError as error:
            interruption = error
            for task in pending:
                task.cancel()  # Once more, as it happened to us.
    if interruption is not None:
        try:
            raise interruption
        finally:
            del interruption


async def _discard_all(results: list[Any]) -> None:
    """Close results that nobody gets, also if this is cancelled meanwhile."""
    while results:
        try:
            await discard(results.pop())
        finally:
            await _discard_all(results)
