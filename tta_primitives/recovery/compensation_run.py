"""How the steps of a saga are done, and how they are undone: whoever cancels it."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tta_primitives.context import earlier
from tta_primitives.deadline import expired, until
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.errors import (
    ExecutionRejectedError,
    PrimitiveError,
    SagaCompensationError,
)
from tta_primitives.recovery.classify import rejects_as_a_whole
from tta_primitives.recovery.compensation_ledger import (
    Ledger,
    current,
    leave,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.compensation_ledger import Counts, Entry

__all__ = ["carry_out", "carry_out_stream", "inside", "late", "undo"]

_END = object()
_MOST_NAMES = 5


async def inside(
    ledger: Ledger, chunks: AsyncIterator[Any]
) -> AsyncGenerator[Any, None]:
    """Yield chunks; what completes while they are made is entered in the ledger."""
    async with closing(chunks) as stream:
        while True:
            # Between two chunks the task is the consumer's, and may be another.
            token = current.set(ledger)
            try:
                chunk = await anext(stream, _END)
            finally:
                leave(token)
            if chunk is _END:
                return
            yield chunk


def late(
    owner: WorkflowPrimitive[Any, Any], context: WorkflowContext
) -> PrimitiveError:
    """Return the error of what completed after its saga was undone.

    That happens in a task which nobody has waited for. It is undone as well.
    """
    path = context.position_of(owner).path
    msg = f"{path} completed after its saga was undone, and was undone as well"
    return PrimitiveError(msg)


async def carry_out(entry: Entry, saga: Ledger) -> Any:  # noqa: ANN401 - any output
    """Execute a step, and enter how it is undone.

    Args:
        entry: The step, with its input.
        saga: Where it is entered.
    """
    own = Ledger(saga.terms, saga)
    token = current.set(own)
    try:
        output = await entry.pair.step.execute(entry.input_data, entry.step_view())
    except GeneratorExit:
        own.hand_over()  # A coroutine that is closed cannot wait for anything.
        raise
    except BaseException as error:
        await _leave_failed(entry, own, error)
        # The error's traceback holds this frame, which must not hold the error.
        del entry
        raise
    finally:
        leave(token)
    entry.output = output
    # What undoes the whole takes the place of what would undo its parts.
    own.entries = [entry]
    if not own.hand_over():
        await _undo_late(entry, own)
    return output


async def carry_out_stream(entry: Entry, saga: Ledger) -> AsyncGenerator[Any, None]:
    """Yield the chunks of a step, and enter how it is undone; the output is a list."""
    own = Ledger(saga.terms, saga)
    output = []
    try:
        raw = entry.pair.step.stream(entry.input_data, entry.step_view())
        async with closing(inside(own, raw)) as chunks:
            async for chunk in chunks:
                output.append(chunk)
                yield chunk
    except BaseException as error:
        await _leave_failed(entry, own, error)
        del entry  # As above.
        raise
    entry.output = output
    own.entries = [entry]
    if not own.hand_over():
        await _undo_late(entry, own)


async def _leave_failed(entry: Entry, own: Ledger, error: BaseException) -> None:
    is_rejection = isinstance(error, ExecutionRejectedError)
    left_no_trace = is_rejection and rejects_as_a_whole(entry.pair.step)
    if entry.compensate_failed and not left_no_trace:
        entry.error = error
        own.entries.append(entry)
    if not own.hand_over():
        await undo(own, error, entry.owner, entry.context, entry.counts)


async def _undo_late(entry: Entry, own: Ledger) -> None:
    error = late(entry.owner, entry.context)
    try:
        await undo(own, error, entry.owner, entry.context, entry.counts)
        raise error
    finally:
        # The traceback holds this frame, which must not hold the error.
        del error


async def undo(
    ledger: Ledger,
    error: BaseException,
    owner: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
    counts: Counts,
) -> None:
    """Run the compensations of all that a ledger holds, the last one first.

    A cancellation meanwhile stops none of them, and is raised at the end.

    Args:
        ledger: What is to be undone; it is empty afterwards.
        error: The failure that began it.
        owner: The saga.
        context: Its view.
        counts: Its counts.

    Raises:
        SagaCompensationError: At least one compensation failed.
        CancelledError: The task was cancelled meanwhile, and all is undone.
    """
    due = ledger.due()
    if not due:
        return
    undoing = _Undoing(due, error, context, ledger.terms.total, counts)
    try:
        try:
            await undoing.to_the_end(owner)
        except CancelledError:
            if undoing.failures:
                _raise(undoing, error, owner, context)
            raise
        if undoing.failures:
            _raise(undoing, error, owner, context)
        counts.compensated += 1
    finally:
        undoing.clear()


def _raise(
    undoing: _Undoing,
    error: BaseException,
    owner: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
) -> NoReturn:
    names = [path for path, _ in undoing.failures[:_MOST_NAMES]]
    if len(undoing.failures) > _MOST_NAMES:
        names.append(f"{len(undoing.failures) - _MOST_NAMES} more")
    msg = (
        f"{context.position_of(owner).path} could not undo {', '.join(names)}, "
        "and is neither done nor undone"
    )
    failures = [failure for _, failure in undoing.failures]
    try:
        raise SagaCompensationError(msg, failures) from error
    finally:
        # The traceback holds this frame, which must not hold the errors.
        del error, failures, undoing


class _Undoing:
    """The compensations of one saga while they run, one after the other.

    Args:
        entries: What is to be undone, in the order of completion.
        error: The failure that began it.
        context: The view of the saga.
        total: How long all may take together, in seconds; None for no such limit.
        counts: The counts of the saga.

    Attributes:
        failures: The path of each step that could not be undone, and why.
    """

    def __init__(
        self,
        entries: list[Entry],
        error: BaseException,
        context: WorkflowContext,
        total: float | None,
        counts: Counts,
    ) -> None:
        self._pending = entries
        self._error: BaseException | None = error
        self._context = context
        self._deadline = None if total is None else get_running_loop().time() + total
        self._counts = counts
        self._task: asyncio.Task[None] | None = None
        self.failures: list[tuple[str, Exception]] = []

    async def to_the_end(self, owner: WorkflowPrimitive[Any, Any]) -> None:
        """Run them all; a cancellation meanwhile is raised when they are done."""
        name = f"compensations of {self._context.position_of(owner).path}"
        try:
            await self._drive(name)
        except CancelledError:
            is_over = False
            while not is_over:
                with suppress(CancelledError):
                    await self._drive(name)
                    is_over = True
            raise

    async def _drive(self, name: str) -> None:
        # In a task of its own, which nobody knows who cancels this one. If somebody who
        # ends all tasks cancels that as well, another does the rest.
        while self._task is None or self._pending or not self._task.done():
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run(), name=name)
            await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        while self._pending:
            entry = self._pending.pop()
            try:
                await self._one(entry)
            except CancelledError as error:
                path = entry.compensation_path
                failure = PrimitiveError(f"{path} was cancelled before it was done")
                failure.__cause__ = error
                self._fail(entry, failure)
                del failure
                return
            except Exception as error:  # noqa: BLE001 - raised when all have run
                self._fail(entry, error)
            except BaseException:
                # Who ends the process does not wait for the others.
                self._pending.clear()
                raise
            else:
                self._succeed(entry)
            finally:
                del entry

    async def _one(self, entry: Entry) -> None:
        compensation = entry.pair.compensation
        record = entry.record(cast("BaseException", self._error))
        if is_listening():
            error = record.error
            emit(self._context, "saga.compensating", step=entry.path, error=error)
            del error
        now = get_running_loop().time()
        own = now + entry.timeout
        deadline = cast("float", earlier(own, self._deadline))
        view = entry.open_view(deadline)
        try:
            if deadline <= now:
                raise expired(0.0, compensation, view)
            execution = compensation.execute(record, view)
            await until(execution, deadline, deadline - now, compensation, view)
        finally:
            # It holds the error of the saga, which may be raised here once more.
            del record

    def _succeed(self, entry: Entry) -> None:
        entry.retire_key()
        for counts in {self._counts, entry.counts}:
            counts.compensations += 1
        if is_listening():
            emit(self._context, "saga.compensated", step=entry.path)

    def _fail(self, entry: Entry, error: Exception) -> None:
        path = entry.path
        self.failures.append((path, error))
        for counts in {self._counts, entry.counts}:
            counts.compensations += 1
            counts.failed_compensations += 1
        emit(self._context, "saga.compensation_failed", step=path, error=error)

    def clear(self) -> None:
        """Let go of all: tracebacks lead to the frames that hold this."""
        self.failures.clear()
        self._pending.clear()
        self._error = self._task = None
