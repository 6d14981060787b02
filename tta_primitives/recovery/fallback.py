"""Another way to an answer when the first one fails: `FallbackPrimitive`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from tta_primitives import door
from tta_primitives.arguments import check_flag
from tta_primitives.cancellation import is_cancellation
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.errors import FallbackExhaustedError
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand, plans
from tta_primitives.recovery.alternatives import (
    FallbackOutcome,
    as_alternative,
    is_value,
)
from tta_primitives.recovery.classify import (
    ErrorFilter,
    check_filter,
    check_predicate,
    is_unexpected,
    matches,
)
from tta_primitives.recovery.options import changed
from tta_primitives.recovery.results import discard

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Iterator,
        Sequence,
    )
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["FallbackOptions", "FallbackPrimitive", "FallbackStats"]


class FallbackOptions(TypedDict, total=False):
    """The options of `FallbackPrimitive`, which documents them."""

    fallback_on: ErrorFilter | None
    fallback_if_result: Callable[[Any], Any] | None
    isolate_input: bool
    restart_stream: bool


@dataclass(frozen=True, slots=True)
class FallbackStats:
    """What a fallback has done so far.

    Attributes:
        calls: Executions that began, those that the primary answers included.
        tried: How often another alternative was tried after one had failed.
        answers: How often each fallback has answered, in the order of the fallbacks.
        exhausted: Executions in which all alternatives failed.
    """

    calls: int
    tried: int
    answers: tuple[int, ...]
    exhausted: int

    @property
    def rescued(self) -> int:
        """Executions that a fallback has answered, whichever it was."""
        return sum(self.answers)


class _Counts:
    """The counters of one fallback."""

    __slots__ = ("answers", "calls", "exhausted", "tried")

    def __init__(self, fallbacks: int) -> None:
        # On the way of every call, and CPython adds floats faster than whole numbers.
        self.calls = 0.0
        self.tried = self.exhausted = 0
        self.answers = [0] * fallbacks


class FallbackPrimitive(Wrapper[In, Out]):
    """Executes alternatives in order until one succeeds.

    If a fallback answered, `context.outcomes[path]` is a `FallbackOutcome` that says
    which, and what those before it raised. Cancellation never leads to a fallback, nor
    does an error that an alternative has made of it.

    A stream commits at its first chunk: a failure after it is raised.

    Observers hear `fallback.used` (index, error), the index counted as in
    `FallbackOutcome`, before a fallback is tried.

    Args:
        primary: A primitive or a function; without it the fallback is open.
        fallbacks: Primitives and functions, tried in order with the same input; the
            last one may be a plain value.
        fallback_on: After which errors the next alternative is tried: a type, a tuple
            of types, or a predicate. None for all but programming errors (TypeError,
            AttributeError, NameError, AssertionError, NotImplementedError). Other
            errors are raised as they are.
        fallback_if_result: A predicate on results; after one that it refuses, the next
            alternative is tried. If no other answers, the first refused is returned.
        isolate_input: Give each alternative a deep copy of the input, so that none sees
            what another has changed in it.
        restart_stream: Let the next alternative begin a stream anew even after chunks
            have been passed on.

    Raises:
        FallbackExhaustedError: On execution; all alternatives failed.
        TypeError: An argument is of the wrong kind.
        ValueError: There is no fallback, or a plain value is not the last.
    """

    @overload
    def __init__(
        self: FallbackPrimitive[Open, Open],
        primary: None = None,
        *,
        fallbacks: Sequence[object],
        **options: Unpack[FallbackOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        primary: AsyncOperand[In, Out],
        fallbacks: Sequence[object],
        **options: Unpack[FallbackOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        primary: SyncOperand[In, Out],
        fallbacks: Sequence[object],
        **options: Unpack[FallbackOptions],
    ) -> None: ...
    def __init__(
        self,
        primary: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        fallbacks: Sequence[object] = (),
        *,
        fallback_on: ErrorFilter | None = None,
        fallback_if_result: Callable[[Any], Any] | None = None,
        isolate_input: bool = False,
        restart_stream: bool = False,
    ) -> None:
        self.fallbacks: tuple[WorkflowPrimitive[Any, Any], ...] = _check_fallbacks(
            fallbacks
        )
        self.fallback_on: ErrorFilter | None = (
            None if fallback_on is None else check_filter("fallback_on", fallback_on)
        )
        self.fallback_if_result: Callable[[Any], Any] | None = check_predicate(
            "fallback_if_result", fallback_if_result
        )
        self.isolate_input: bool = check_flag("isolate_input", isolate_input)
        self.restart_stream: bool = check_flag("restart_stream", restart_stream)
        if primary is not None:
            self._wrap(as_operand(primary))

    _bound_attributes = (
        *Wrapper._bound_attributes,
        *("_counts", "_reads_deadline", "_plan", "_heard_plan", "_plain"),
    )
    # The primary, if it is executed without further ado.
    _plain: WorkflowPrimitive[Any, Any] | None = None

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._counts = _Counts(len(self.fallbacks))
        alternatives = (primitive, *self.fallbacks)
        self.idempotent: bool = all(one.idempotent for one in alternatives)
        self._reads_deadline = any(one._reads_deadline for one in alternatives)
        # Outcomes are filed under its path.
        self._needs_position = True
        self._plan, self._heard_plan = plans(alternatives)
        is_special = self.fallback_if_result or self.isolate_input
        is_plain = not (is_special or primitive._needs_position)
        self._plain = primitive if is_plain else None

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the primary and the fallbacks."""
        return (*super().children(), *self.fallbacks)

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        return changed(self, FallbackPrimitive.__init__)

    @property
    def stats(self) -> FallbackStats:
        """Return what was counted so far, also for renamed twins of this fallback.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts = self._counts
        return FallbackStats(
            calls=int(counts.calls),
            tried=counts.tried,
            answers=tuple(counts.answers),
            exhausted=counts.exhausted,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primary, then the fallbacks until one succeeds."""
        plain = self._plain
        if plain is None or door._anyone:
            return await self._try_from(0, input_data, context, _Trial(self, context))
        self._counts.calls += 1.0
        try:
            return await plain.execute(input_data, context)  # type: ignore[no-any-return]
        except Exception as error:
            if not self._falls_back_on(error):
                raise
            trial = _Trial(self, context)
            trial.errors.append(error)
        return await self._try_from(1, input_data, context, trial)

    async def _try_from(
        self, first: int, input_data: In, context: WorkflowContext, trial: _Trial
    ) -> Out:
        try:
            for index, (one, view) in enumerate(self._views(context, first), first):
                trial.begin(index)
                try:
                    result = await one.execute(self._input(input_data), view)
                except Exception as error:
                    if not self._falls_back_on(error):
                        raise
                    trial.errors.append(error)
                    continue
                if not self._refuses(result):
                    trial.note_answer(index, one)
                    await trial.discard_refused()
                    return cast("Out", result)
                await trial.keep_refused(result)
            return cast("Out", trial.refused_result())
        finally:
            trial.clear()

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks of the first alternative that has a first chunk."""
        trial = _Trial(self, context)
        is_committed = False
        try:
            for index, (one, view) in enumerate(self._views(context, 0)):
                trial.begin(index)
                try:
                    raw = one.stream(self._input(input_data), view)
                    async with closing(raw) as chunks:
                        async for chunk in chunks:
                            is_committed = True
                            yield chunk
                except Exception as error:
                    is_final = is_committed and not self.restart_stream
                    if is_final or not self._falls_back_on(error):
                        raise
                    trial.errors.append(error)
                else:
                    trial.note_answer(index, one)
                    return
            trial.refused_result()
        finally:
            trial.clear()

    def _views(
        self, context: WorkflowContext, first: int
    ) -> Iterator[tuple[WorkflowPrimitive[Any, Any], WorkflowContext]]:
        """Yield the alternatives from an index on, each with the view it gets."""
        self._wrapped()
        plan = self._heard_plan if is_listening() else self._plan
        for one, label in plan[first:]:
            yield one, context if label is None else context.below(self, one, label)

    def _input(self, input_data: Any) -> Any:  # noqa: ANN401 - any input
        return copy.deepcopy(input_data) if self.isolate_input else input_data

    def _falls_back_on(self, error: Exception) -> bool:
        if is_cancellation(error):
            return False
        if self.fallback_on is None:
            return is_unexpected(error)
        return matches(self.fallback_on, error)

    def _refuses(self, result: object) -> bool:
        return self.fallback_if_result is not None and self.fallback_if_result(result)


class _Trial:
    """One execution of a fallback: what came of the alternatives so far."""

    __slots__ = ("_context", "_fallback", "_refused", "errors")

    def __init__(
        self, fallback: FallbackPrimitive[Any, Any], context: WorkflowContext
    ) -> None:
        self._fallback = fallback
        self._context = context
        self._refused: list[object] = []
        # One for each alternative that was tried; None if its result was refused.
        self.errors: list[Exception | None] = []

    def begin(self, index: int) -> None:
        """Count; tell observers that an alternative is tried after one has failed."""
        if not index:
            self._fallback._counts.calls += 1.0
            return
        self._fallback._counts.tried += 1
        if is_listening():
            emit(self._context, "fallback.used", index=index, error=self.errors[-1])

    def note_answer(self, index: int, one: WorkflowPrimitive[Any, Any]) -> None:
        """File under the fallback's path that another than the primary has answered."""
        if index:
            self._fallback._counts.answers[index - 1] += 1
            path = self._context.position_of(self._fallback).path
            outcome = FallbackOutcome(index, one.name, tuple(self.errors))
            self._context.outcomes[path] = outcome

    async def keep_refused(self, result: object) -> None:
        """Keep the first result that was refused, and close any other."""
        self.errors.append(None)
        if self._refused:
            await discard(result)
        else:
            self._refused.append(result)

    async def discard_refused(self) -> None:
        """Close the result that was kept: a better one was found."""
        if self._refused:
            await discard(self._refused.pop())

    def refused_result(self) -> object:
        """Return the first result that was refused, when nothing better has come.

        Raises:
            FallbackExhaustedError: There is none, all alternatives have failed.
        """
        if self._refused:
            return self._refused[0]
        self._fallback._counts.exhausted += 1
        path = self._context.position_of(self._fallback).path
        errors = [error for error in self.errors if error is not None]
        try:
            msg = f"{path}: the primary and all fallbacks failed"
            raise FallbackExhaustedError(msg, errors) from errors[0]
        finally:
            # The traceback holds this frame, which must not hold the errors.
            del errors

    def clear(self) -> None:
        """Let go of all: tracebacks lead to the frames that hold this."""
        self.errors.clear()
        self._refused.clear()


def _check_fallbacks(
    fallbacks: object,
) -> tuple[WorkflowPrimitive[Any, Any], ...]:
    if not isinstance(fallbacks, (list, tuple)):
        msg = f"fallbacks={fallbacks!r} must be a list: fallbacks=[...]"
        raise TypeError(msg)
    if not fallbacks:
        msg = "fallbacks must have at least one alternative: fallbacks=[...]"
        raise ValueError(msg)
    for alternative in fallbacks[:-1]:
        if is_value(alternative):
            msg = (
                f"fallbacks: the plain value {alternative!r} must be the last, because "
                "it always succeeds"
            )
            raise ValueError(msg)
    return tuple(as_alternative(alternative) for alternative in fallbacks)
