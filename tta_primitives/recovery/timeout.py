"""A time limit around a primitive, which travels down with the context."""

from __future__ import annotations

import types
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from tta_primitives import door
from tta_primitives.arguments import seconds
from tta_primitives.context import Enforced, earlier
from tta_primitives.deadline import (
    LimitCounts,
    as_coroutine,
    bounds,
    expired,
    rest,
    tell_overrun,
    until,
    within_stream,
)
from tta_primitives.door import closing, emit
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.loops import now
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand, labels
from tta_primitives.recovery.alternatives import FallbackOutcome, as_alternative
from tta_primitives.signature import of_both

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import A, B, C, WorkflowPrimitive

__all__ = ["TimeoutPrimitive", "TimeoutStats"]

_Coroutine = types.CoroutineType

Time: TypeAlias = "float | timedelta"
Limit: TypeAlias = (
    "Time | Callable[[Any], Time] | Callable[[Any, WorkflowContext], Time]"
)


@dataclass(frozen=True, slots=True)
class TimeoutStats:
    """What a timeout has done so far.

    Attributes:
        calls: Executions that began.
        expired: Executions whose time was up; whether a fallback answered or not.
        ignored: Executions that ended otherwise, although they were cancelled at the
            limit.
        rescued: Executions that the fallback has answered.
    """

    calls: int
    expired: int
    ignored: int
    rescued: int


class _Counts(LimitCounts):
    """The counters of one timeout."""

    __slots__ = ("rescued",)

    def __init__(self) -> None:
        super().__init__()
        self.rescued = 0


class TimeoutPrimitive(Wrapper[In, Out]):
    """Limits how long a primitive may take, cleanup in its `finally` blocks excepted.

    At the limit the primitive is cancelled, and once it has ended a
    `TimeoutExceededError` is raised, or the fallback answers. A `TimeoutError` of the
    primitive's own passes unchanged, and a cancellation from outside wins over a limit
    that is reached at the same time. The limit becomes the deadline of the context that
    is handed down, so that retries inside know how much time is left; an earlier
    deadline that is already in the context counts instead.

    A stream is limited as a whole; only waiting for a chunk is interrupted.

    Observers hear `timeout.expired` (limit), `timeout.ignored` (limit; the primitive
    ended otherwise although it was cancelled), `timeout.overrun` (limit, excess; it
    held the event loop beyond the limit, so that it could not be cancelled), and
    `fallback.used` (index, error).

    Args:
        primitive: A primitive or a function; without it the timeout is open.
        timeout_seconds: The limit in seconds, or f(input) or f(input, context) that
            returns it; if it returns 0 or less the time is up before the start.
        fallback: A primitive, a function or a plain value that answers when the time
            is up; None for an error.

    Raises:
        TimeoutExceededError: On execution; the time was up.
        TypeError: An argument is of the wrong kind.
        ValueError: The limit is not positive, or an open timeout has a fallback.
    """

    @overload
    def __init__(
        self: TimeoutPrimitive[Open, Open],
        primitive: None = None,
        *,
        timeout_seconds: Limit,
    ) -> None: ...
    @overload
    def __init__(
        self,
        primitive: AsyncOperand[In, Out],
        *,
        timeout_seconds: Limit,
        fallback: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        primitive: SyncOperand[In, Out],
        *,
        timeout_seconds: Limit,
        fallback: None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: TimeoutPrimitive[A, B | C],
        primitive: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        *,
        timeout_seconds: Limit,
        fallback: WorkflowPrimitive[A, C] | Callable[[A], Awaitable[C]],
    ) -> None: ...
    @overload
    def __init__(
        self: TimeoutPrimitive[A, B | C],
        primitive: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        *,
        timeout_seconds: Limit,
        fallback: Callable[[A], C],
    ) -> None: ...
    @overload
    def __init__(
        self: TimeoutPrimitive[A, B | C],
        primitive: WorkflowPrimitive[A, B] | Callable[[A], Awaitable[B]],
        *,
        timeout_seconds: Limit,
        fallback: C,
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        timeout_seconds: Limit,
        fallback: object = None,
    ) -> None:
        self._ask: Callable[[Any, WorkflowContext], float | timedelta] | None = None
        self._limit = 0.0
        if callable(timeout_seconds):
            self._ask = of_both("timeout_seconds", timeout_seconds)
            self._asks = timeout_seconds
        else:
            self._limit = seconds("timeout_seconds", timeout_seconds)
        self._fallback = None if fallback is None else as_alternative(fallback)
        if primitive is not None:
            self._wrap(as_operand(primitive))
        elif fallback is not None:
            msg = (
                "a timeout with a fallback cannot be open, because the fallback "
                "changes what comes out: write TimeoutPrimitive(primitive, "
                "timeout_seconds=..., fallback=...)"
            )
            raise ValueError(msg)

    _bound_attributes = (
        *Wrapper._bound_attributes,
        *("_counts", "_labels", "_has_view", "_simple"),
    )
    # What is executed within a limit that is known, if nothing else is to be done.
    _simple: WorkflowPrimitive[Any, Any] | None = None

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._counts = _Counts()
        children = self.children()
        self._labels = labels(children)
        # With a fallback it files outcomes under its path.
        self._needs_position = primitive._needs_position or self._fallback is not None
        self._has_view = primitive._needs_position or primitive._reads_deadline
        is_simple = self._ask is None and self._fallback is None
        self._simple = primitive if is_simple else None
        self.idempotent: bool = all(child.idempotent for child in children)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return what is limited, and the fallback if there is one."""
        return super().children() + (
            () if self._fallback is None else (self._fallback,)
        )

    def options(self) -> dict[str, Any]:
        """Return the limit."""
        return {"timeout_seconds": self._limit if self._ask is None else self._asks}

    @property
    def stats(self) -> TimeoutStats:
        """Return what was counted so far, also for renamed twins of this timeout.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts = self._counts
        return TimeoutStats(
            calls=int(counts.calls),
            expired=counts.expired,
            ignored=counts.ignored,
            rescued=counts.rescued,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive within the limit."""
        primitive = self._simple
        if primitive is not None and context.deadline is None:
            limit = self._limit
            counts = self._counts
            counts.calls += 1.0
            deadline = now() + limit
            view = self._view(context, deadline) if self._has_view else context
            execution = primitive.execute(input_data, view)
            if type(execution) is not _Coroutine:
                execution = as_coroutine(execution)
            try:
                pending = execution.send(None)
            except StopIteration as done:
                if door._anyone:
                    tell_overrun(deadline, limit, context)
                return done.value  # type: ignore[no-any-return]
            return await rest(
                pending, execution, deadline, limit, self, context, counts
            )
        if self._fallback is not None:
            return await self._or_fallback(self._fallback, input_data, context)
        limit, deadline = self._limits(input_data, context)
        return await self._bounded(input_data, context, limit, deadline)

    async def _or_fallback(
        self,
        fallback: WorkflowPrimitive[Any, Any],
        input_data: In,
        context: WorkflowContext,
    ) -> Out:
        limit, deadline = self._limits(input_data, context)
        try:
            return await self._bounded(input_data, context, limit, deadline)
        except TimeoutExceededError as error:
            if not _is_up(deadline):
                raise
            view = self._fallback_view(fallback, error, context)
        result = await fallback.execute(input_data, view)
        self._counts.rescued += 1
        return cast("Out", result)

    def _bounded(
        self, input_data: In, context: WorkflowContext, limit: float, deadline: float
    ) -> Awaitable[Out]:
        """Begin the execution within the limit."""
        primitive = self._wrapped()
        counts = self._counts
        counts.calls += 1.0
        if limit <= 0:
            raise expired(limit, self, context, counts)
        view = self._view(context, deadline)
        execution = primitive.execute(input_data, view)
        return until(execution, deadline, limit, self, context, counts=counts)

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks within the limit; if none has come, the fallback's."""
        self._wrapped()
        limit, deadline = self._limits(input_data, context)
        is_committed = False
        try:
            own_chunks = self._within(input_data, context, limit, deadline)
            async with closing(own_chunks) as own:
                async for chunk in own:
                    is_committed = True
                    yield chunk
            return
        except TimeoutExceededError as error:
            if is_committed or self._fallback is None or not _is_up(deadline):
                raise
            view = self._fallback_view(self._fallback, error, context)
        async with closing(self._fallback.stream(input_data, view)) as other:
            async for chunk in other:
                yield chunk
        self._counts.rescued += 1

    async def _within(
        self, input_data: In, context: WorkflowContext, limit: float, deadline: float
    ) -> AsyncGenerator[Any, None]:
        """Yield the primitive's chunks until the deadline."""
        view = self._view(context, deadline)
        counts = self._counts
        counts.calls += 1.0
        async with closing(self._wrapped().stream(input_data, view)) as raw:
            bounded = within_stream(raw, deadline, limit, self, context, counts=counts)
            async with closing(bounded) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _limits(self, input_data: In, context: WorkflowContext) -> tuple[float, float]:
        """Return the seconds that there are, and the deadline."""
        limit = self._limit if self._ask is None else self._asked(input_data, context)
        return bounds(limit, context)

    def _asked(self, input_data: In, context: WorkflowContext) -> float:
        ask = cast("Callable[[Any, WorkflowContext], object]", self._ask)
        asked = ask(input_data, context)
        if isinstance(asked, timedelta):
            asked = asked.total_seconds()
        is_number = isinstance(asked, (int, float)) and not isinstance(asked, bool)
        if is_number and cast("float", asked) <= 0:
            return cast("float", asked)
        return seconds("timeout_seconds(input, context)", asked)

    def _view(self, context: WorkflowContext, deadline: float) -> WorkflowContext:
        """Return the view in which the deadline travels down, if anybody looks."""
        if not self._has_view:
            return context
        label = self._child_label
        if label is None:
            view = context.child()
        else:
            view = context.below(self, self._wrapped(), label)
        view.deadline = earlier(Enforced(deadline), view.deadline)
        return view

    def _fallback_view(
        self,
        fallback: WorkflowPrimitive[Any, Any],
        error: TimeoutExceededError,
        context: WorkflowContext,
    ) -> WorkflowContext:
        """Tell that the fallback answers; return the view for it."""
        emit(context, "fallback.used", index=1, error=error)
        outcome = FallbackOutcome(1, fallback.name, (error,))
        context.outcomes[context.position_of(self).path] = outcome
        return context.below(self, fallback, self._labels[1])


def _is_up(deadline: float) -> bool:
    """Tell whether the time is up: a shorter limit inside may have expired as well."""
    return now() >= deadline
