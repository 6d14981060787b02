"""Limits in time, on the event loop's own clock: for a coroutine and for a stream.

The timer is armed when what is limited first suspends. A step that answers without
waiting (a cache hit, a guard, a double) therefore never pays for one.
"""

from __future__ import annotations

import types
from asyncio import CancelledError, current_task
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives import door
from tta_primitives.context import Enforced
from tta_primitives.door import emit
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.loops import now, running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Coroutine,
        Generator,
        Iterator,
    )

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = [
    "Alarm",
    "LimitCounts",
    "Thrown",
    "as_coroutine",
    "bounds",
    "expired",
    "rest",
    "tell_overrun",
    "until",
    "within",
    "within_stream",
]

T = TypeVar("T")

_Coroutine = types.CoroutineType
_END = object()


async def within(
    coroutine: Coroutine[Any, Any, T],
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
) -> T:
    """Await a coroutine for at most `limit` seconds, never past the context's deadline.

    Args:
        coroutine: What to await; it is closed if no time is left.
        limit: In seconds.
        primitive: Who sets the limit, for the error.
        context: The view that the primitive was executed with.

    Raises:
        TimeoutExceededError: The time was up, and the coroutine has been cancelled.
    """
    limit, deadline = bounds(limit, context)
    if limit <= 0:
        coroutine.close()
        raise expired(0.0, primitive, context)
    return await until(coroutine, deadline, limit, primitive, context)


def bounds(limit: float, context: WorkflowContext) -> tuple[float, float]:
    """Return the seconds that a primitive may take, and the deadline at which it ends.

    Args:
        limit: Its own, in seconds.
        context: Whose deadline counts instead if it is earlier, unless somebody further
            outside will see to it.
    """
    present = now()
    given = context.deadline
    if (
        given is not None
        and given < present + limit
        and (type(given) is not Enforced or given <= present)
    ):
        return given - present, given
    return limit, present + limit


async def until(
    awaited: Coroutine[Any, Any, T],
    deadline: float,
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
    *,
    counts: LimitCounts | None = None,
) -> T:
    """Await a coroutine until a deadline.

    Like `asyncio.timeout`, it cancels the current task, waits for the cleanup, and
    takes only its own cancellation back: one from outside wins.

    Args:
        awaited: What to await.
        deadline: In seconds of the loop's clock.
        limit: The same as seconds from now, for the error.
        primitive: Who sets the limit, for errors and events.
        context: The view that the primitive was executed with.
        counts: Where it is counted if the limit expires.

    Raises:
        TimeoutExceededError: The time was up, and the coroutine has been cancelled.
        RuntimeError: It has to wait outside of a task.
    """
    if type(awaited) is not _Coroutine:
        awaited = as_coroutine(awaited)
    try:
        pending = awaited.send(None)
    except StopIteration as done:
        if door._anyone:
            tell_overrun(deadline, limit, context)
        return done.value  # type: ignore[no-any-return]
    return await rest(pending, awaited, deadline, limit, primitive, context, counts)


@types.coroutine
def rest(  # noqa: PLR0917 - called in two places, where names would cost
    pending: Any,  # noqa: ANN401 - what asyncio's futures yield
    awaited: Coroutine[Any, Any, T],
    deadline: float,
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
    counts: LimitCounts | None,
) -> Generator[Any, Any, T]:
    """Await the rest of a coroutine that has begun to wait, until a deadline.

    Args:
        pending: What it waits for, as its first `send` has returned it.
        awaited: The coroutine itself.
        deadline: As for `until`, and so are the others.
        limit: As above.
        primitive: As above.
        context: As above.
        counts: As above.

    Raises:
        TimeoutExceededError: The time was up, and the coroutine has been cancelled.
        RuntimeError: It has to wait outside of a task.
    """
    loop = running_loop()
    alarm = Alarm(loop)
    timer = loop.call_at(deadline, alarm)
    try:
        # Its first wait is handed through; from then on it is delegated to.
        try:
            yield pending
        except BaseException as error:  # noqa: BLE001 - it is thrown in just below
            left: Any = Thrown(awaited, error)
        else:
            left = awaited
        value: T = yield from left
    except BaseException as error:
        if alarm.off():
            if isinstance(error, CancelledError):
                raise expired(limit, primitive, context, counts) from error
            _ignored(limit, context, counts)
        raise
    finally:
        timer.cancel()
    if alarm.rang and alarm.off():
        _ignored(limit, context, counts)
    elif door._anyone:
        tell_overrun(deadline, limit, context)
    return value


class LimitCounts:
    """How often a limit was set, how often it expired, and how often to no effect."""

    __slots__ = ("calls", "expired", "ignored")

    def __init__(self) -> None:
        # On the way of every call, and CPython adds floats faster than whole numbers.
        self.calls: float = 0.0
        self.expired: int = 0
        self.ignored: int = 0


def _ignored(
    limit: float, context: WorkflowContext, counts: LimitCounts | None
) -> None:
    """Tell that what was cancelled at its limit has ended otherwise."""
    if counts is not None:
        counts.ignored += 1
    emit(context, "timeout.ignored", limit=limit)


def expired(
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
    counts: LimitCounts | None = None,
) -> TimeoutExceededError:
    """Return the error of a limit that expired, and tell observers of it.

    Args:
        limit: In seconds; not above 0 if no time was left before the start.
        primitive: Who set it; a wrapper names what it wraps.
        context: The view that the primitive was executed with.
        counts: Where it is counted.
    """
    if counts is not None:
        counts.expired += 1
    emit(context, "timeout.expired", limit=limit)
    where = context.position_of(primitive).path
    wrapped = getattr(primitive, "primitive", None)
    if wrapped is not None:
        where = f"{where}/{wrapped.name}"
    took = f"took longer than {limit:g} s" if limit > 0 else "had no time left to start"
    return TimeoutExceededError(f"{where} {took}", timeout_seconds=limit)


async def within_stream(
    chunks: AsyncIterator[T],
    deadline: float,
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
    *,
    counts: LimitCounts | None = None,
) -> AsyncGenerator[T, None]:
    """Yield the chunks of a stream until a deadline.

    Only waiting for a chunk is interrupted, never the consumer's own work between two
    chunks; a deadline that passes meanwhile is found when the next chunk is asked for.

    Args:
        chunks: What to pass on; the caller closes it.
        deadline: In seconds of the loop's clock.
        limit: The same as seconds from the start, for the error.
        primitive: Who sets the limit, for errors and events.
        context: The view that the primitive was executed with.
        counts: Where it is counted if the limit expires.

    Raises:
        TimeoutExceededError: The time was up before the stream ended.
    """
    clock = running_loop().time
    while clock() < deadline:
        chunk = await until(
            _next(chunks), deadline, limit, primitive, context, counts=counts
        )
        if chunk is _END:
            return
        yield chunk  # type: ignore[misc]
    raise expired(limit, primitive, context, counts)


async def _next(chunks: AsyncIterator[T]) -> T | object:
    return await anext(chunks, _END)


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Give `send` and `throw` to what can only be awaited."""
    return await awaitable


def tell_overrun(deadline: float, limit: float, context: WorkflowContext) -> None:
    """Tell that a step held the loop for so long that its timer could not fire."""
    excess = now() - deadline
    if excess > 0:
        emit(context, "timeout.overrun", limit=limit, excess=excess)


class Alarm:
    """A callback that cancels the current task, and knows whether it alone did.

    Attributes:
        rang: Whether it has cancelled the task.
    """

    __slots__ = ("_cancelling", "_task", "rang")

    timer_kind = "timeout"
    """What a log of timers may call it."""

    _task: Task[Any] | None

    def __init__(self, loop: AbstractEventLoop | None = None) -> None:
        task = current_task(loop)
        if task is None:
            msg = "a time limit works only inside a task"
            raise RuntimeError(msg)
        self._task = task
        self._cancelling = task.cancelling()
        self.rang: bool = False

    def __call__(self) -> None:
        """Ring."""
        if self._task is not None:
            self.rang = True
            self._task.cancel()

    def off(self) -> bool:
        """Tell whether it rang and nobody else cancelled the task as well; then forget.

        The task is let go because it may hold an error whose traceback leads to this.
        """
        task, self._task = self._task, None
        if task is None or not self.rang:
            return False
        return task.uncancel() <= self._cancelling


class Thrown:
    """A coroutine into which an error is thrown first, as an iterator."""

    __slots__ = ("_error", "cr_await")

    def __init__(
        self, awaited: Coroutine[Any, Any, Any], error: BaseException | None
    ) -> None:
        # The name by which tools walk from a task down to the line that waits.
        self.cr_await: Coroutine[Any, Any, Any] = awaited
        self._error = error

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - what asyncio's futures yield
        error, self._error = self._error, None
        if error is None:
            return self.cr_await.send(None)
        try:
            return self.cr_await.throw(error)
        finally:
            # Its traceback holds this frame, which must not hold it.
            del error

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - as a generator's `throw`
        """Throw one more error in."""
        return self.cr_await.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self.cr_await.close()
