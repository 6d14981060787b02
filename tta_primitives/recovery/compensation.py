"""Undo what was done when a later step fails: sagas and their compensations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypedDict, cast, overload

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.door import closing, no_door
from tta_primitives.primitive import (
    In,
    Open,
    Out,
    WorkflowPrimitive,
    Wrapper,
    as_operand,
    labels,
)
from tta_primitives.recovery.compensation_ledger import (
    SAGAS_OWN,
    Counts,
    Entry,
    Ledger,
    Pair,
    SagaRecord,
    Terms,
    current,
    enclosing,
    leave,
    placed,
)
from tta_primitives.recovery.compensation_run import (
    carry_out,
    carry_out_stream,
    inside,
    late,
    undo,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
    )
    from datetime import timedelta
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import A, B

    AnyStep: TypeAlias = WorkflowPrimitive[Any, Any] | Callable[..., Any]
    AnyPrimitive: TypeAlias = WorkflowPrimitive[Any, Any]
    _Place: TypeAlias = tuple[AnyPrimitive, str, Pair | None]
    Undo: TypeAlias = (
        WorkflowPrimitive[SagaRecord[A, B], Any]
        | Callable[[SagaRecord[A, B]], Any]
        | Callable[[SagaRecord[A, B], WorkflowContext], Any]
    )

__all__ = [
    "CompensationOptions",
    "CompensationPrimitive",
    "CompensationStats",
    "SagaOptions",
    "SagaPrimitive",
    "SagaRecord",
    "SagaStats",
]

_TIMEOUT = 60.0


class SagaOptions(TypedDict, total=False):
    """The options of `SagaPrimitive`, which documents them."""

    compensation_timeout: float | timedelta
    compensate_failed: bool
    total_compensation_timeout: float | timedelta | None


class CompensationOptions(TypedDict, total=False):
    """The options of `CompensationPrimitive`, which documents them."""

    compensation_timeout: float | timedelta | None
    compensate_failed: bool | None


@dataclass(frozen=True, slots=True)
class SagaStats:
    """What a saga has done so far.

    Attributes:
        calls: Executions that began.
        completed: Executions that returned; nothing of them was undone by this saga.
        compensated: Executions that failed, after which all that was to be undone was.
        compensations: Compensations that it ran, or that ran for its own steps.
        failed_compensations: Those of them that failed. Each has left something behind
            that somebody has to look at.
    """

    calls: int
    completed: int
    compensated: int
    compensations: int
    failed_compensations: int


@dataclass(frozen=True, slots=True)
class CompensationStats:
    """What a compensable step has done so far.

    Attributes:
        calls: Executions that began.
        completed: Executions that returned.
        compensations: How often it was undone, or should have been.
        failed_compensations: How often that failed.
    """

    calls: int
    completed: int
    compensations: int
    failed_compensations: int


def _raise_late(owner: AnyPrimitive, context: WorkflowContext) -> NoReturn:
    raise late(owner, context)


class _Undoable(Wrapper[In, Out]):
    """What a saga and a step with a compensation have in common."""

    # On what terms things are undone if there is no saga further outside.
    _terms: Terms
    _counts: Counts

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._counts = Counts()
        # Its errors and events name its path.
        self._needs_position = True
        self._reads_deadline = primitive._reads_deadline

    async def _as_saga(self, input_data: In, context: WorkflowContext) -> Out:
        """Execute it; if that fails, undo what was done."""
        counts = self._counts
        counts.calls += 1
        ledger = Ledger(self._terms, enclosing(), self)
        token = current.set(ledger)
        try:
            output = await self._run(input_data, context, ledger)
            if not ledger.hand_over():
                _raise_late(self, context)
        except GeneratorExit:
            ledger.due()  # A coroutine that is closed cannot wait for anything.
            raise
        except BaseException as error:
            await undo(ledger, error, self, context, counts)
            raise
        finally:
            leave(token)
        counts.completed += 1
        return output

    async def _stream_as_saga(
        self, input_data: In, context: WorkflowContext
    ) -> AsyncGenerator[Any, None]:
        """Yield the chunks; if not all are taken, undo what was done."""
        self._counts.calls += 1
        ledger = Ledger(self._terms, enclosing(), self)
        try:
            raw = self._run_stream(input_data, context, ledger)
            async with closing(inside(ledger, raw)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if not ledger.hand_over():
                _raise_late(self, context)
        except BaseException as error:
            await undo(ledger, error, self, context, self._counts)
            raise
        self._counts.completed += 1

    def _run(
        self, input_data: In, context: WorkflowContext, ledger: Ledger
    ) -> Awaitable[Out]:
        raise NotImplementedError

    def _run_stream(
        self, input_data: In, context: WorkflowContext, ledger: Ledger
    ) -> AsyncIterator[Any]:
        raise NotImplementedError


class SagaPrimitive(_Undoable[In, Out]):
    """Executes steps in order and, when one fails, undoes those that are done.

    Each step gets what the one before it returned. When one fails or the task is
    cancelled, the compensations of the completed steps run, the last one first; then
    the error is raised, the same object.

    Instead of a list of pairs it may be given one workflow. Every
    `CompensationPrimitive` that completes somewhere in it, in a chain, a branch, an
    item or an attempt, is undone in the reverse order of completion. A saga inside a
    saga that succeeded is undone with the outer one.

    Compensations run in a task of their own, to the end: a cancellation, or a time
    limit further outside, is raised only after them. They do not see the deadline of
    the run. One that fails does not stop the others.

    A stream that is not read to its end is undone like a cancelled call.

    Observers hear `saga.compensating` (step, error) before each compensation, then
    `saga.compensated` (step) or `saga.compensation_failed` (step, error), the step
    given by its path.

    Args:
        steps: A list of pairs `(step, compensation)`, in which a step that has nothing
            to undo may stand alone; or one workflow. A compensation is a primitive or a
            function of a `SagaRecord`, possibly also of the context. Without steps the
            saga is open.
        compensation_timeout: How long each compensation may take, its retries included,
            in seconds.
        compensate_failed: Whether the step that failed, or was cancelled, is undone as
            well: it may have done its work and only its answer was lost. A rejection
            says that it has not.
        total_compensation_timeout: How long all of them may take together, in seconds;
            those that have no time left are not begun, and count as failed. None for as
            long as each may take.

    Raises:
        SagaCompensationError: On execution; compensations failed.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or there is no step.
    """

    @overload
    def __init__(
        self: SagaPrimitive[Open, Open],
        steps: None = None,
        **options: Unpack[SagaOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: SagaPrimitive[Any, Any],
        steps: list[Any],
        **options: Unpack[SagaOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, steps: AsyncOperand[In, Out], **options: Unpack[SagaOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, steps: SyncOperand[In, Out], **options: Unpack[SagaOptions]
    ) -> None: ...
    def __init__(
        self,
        steps: list[Any] | AnyStep | None = None,
        *,
        compensation_timeout: float | timedelta = _TIMEOUT,
        compensate_failed: bool = False,
        total_compensation_timeout: float | timedelta | None = None,
    ) -> None:
        total = total_compensation_timeout
        self._terms = Terms(
            seconds("compensation_timeout", compensation_timeout),
            check_flag("compensate_failed", compensate_failed),
            None if total is None else seconds("total_compensation_timeout", total),
        )
        if isinstance(steps, list):
            self._wrap(_Listed(steps))
        elif steps is not None:
            self._wrap(as_operand(_checked_workflow(steps)))

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the steps, each before its compensation; or the one workflow."""
        listed = self._listed()
        return super().children() if listed is None else listed.children()

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones, and what undoes what."""
        timeout, failed, total = self._terms
        shown: dict[str, Any] = {}
        if timeout != _TIMEOUT:
            shown["compensation_timeout"] = timeout
        if failed:
            shown["compensate_failed"] = True
        if total is not None:
            shown["total_compensation_timeout"] = total
        listed = self._listed()
        return shown if listed is None else {**shown, "compensations": listed.undone_by}

    @property
    def stats(self) -> SagaStats:
        """What this saga has done so far."""
        self._wrapped()
        counts = self._counts
        return SagaStats(
            counts.calls,
            counts.completed,
            counts.compensated,
            counts.compensations,
            counts.failed_compensations,
        )

    def _listed(self) -> _Listed | None:
        return self.primitive if isinstance(self.primitive, _Listed) else None

    def execute(
        self, input_data: In, context: WorkflowContext, /
    ) -> Coroutine[Any, Any, Out]:
        """Execute the steps; if one fails, undo those that are done."""
        self._wrapped()
        return self._as_saga(input_data, context)

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Execute all steps but the last, then yield its chunks."""
        self._wrapped()
        async with closing(self._stream_as_saga(input_data, context)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _run(
        self,
        input_data: In,
        context: WorkflowContext,
        ledger: Ledger,  # noqa: ARG002 - steps find it themselves
    ) -> Awaitable[Out]:
        return self._wrapped().execute(input_data, self._view(context))

    def _run_stream(
        self,
        input_data: In,
        context: WorkflowContext,
        ledger: Ledger,  # noqa: ARG002 - as above
    ) -> AsyncIterator[Any]:
        return self._wrapped().stream(input_data, self._view(context))

    def _view(self, context: WorkflowContext) -> WorkflowContext:
        if self._listed() is not None:
            return context
        label = self._child_label
        return context if label is None else context.below(self, self._wrapped(), label)


def _checked_workflow(value: Any) -> AnyStep:  # noqa: ANN401 - anything a user may give
    if isinstance(value, tuple):
        msg = f"steps={value!r} must be a list: SagaPrimitive([(step, compensation)])"
        raise TypeError(msg)
    return cast("AnyStep", value)


class _Listed(WorkflowPrimitive[Any, Any]):
    """The steps of a saga that was given as a list; it stands where the saga stands."""

    _places_itself = True

    def __init__(self, steps: list[Any]) -> None:
        if not steps:
            msg = "steps=[] must have at least one step: [(step, compensation), ...]"
            raise ValueError(msg)
        pairs = [_pair(index, entry) for index, entry in enumerate(steps)]
        self._children = tuple(one for pair in pairs for one in pair)
        self._name = " >> ".join(pair[0].name for pair in pairs)
        named = iter(labels(self._children))
        places = [[(one, next(named)) for one in pair] for pair in pairs]
        self._places: list[_Place] = [
            (*place[0], Pair(*place[0], *place[1]) if len(place) > 1 else None)
            for place in places
        ]
        self.undone_by = {
            pair.label: pair.compensation_label
            for _, _, pair in self._places
            if pair is not None
        }
        self._reads_deadline = any(pair[0]._reads_deadline for pair in pairs)
        self.idempotent = all(pair[0].idempotent for pair in pairs)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        return self._children

    @no_door
    async def execute(
        self,
        input_data: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
        /,
    ) -> Any:  # noqa: ANN401 - any primitive's output
        value, ledger = input_data, _ledger()
        for place in self._places:
            value = await self._executed(place, value, context, ledger)
        return value

    def _executed(
        self,
        place: _Place,
        value: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
        ledger: Ledger,
    ) -> Awaitable[Any]:
        step, label, pair = place
        if pair is None:
            return step.execute(value, placed(step, label, _saga(ledger), context))
        return carry_out(_entry(pair, value, context, ledger), ledger)

    @no_door
    async def stream(
        self,
        input_data: Any,  # noqa: ANN401 - any primitive's input
        context: WorkflowContext,
        /,
    ) -> AsyncIterator[Any]:
        *before, last = self._places
        value, ledger = input_data, _ledger()
        for place in before:
            value = await self._executed(place, value, context, ledger)
        step, label, pair = last
        raw = (
            step.stream(value, placed(step, label, _saga(ledger), context))
            if pair is None
            else carry_out_stream(_entry(pair, value, context, ledger), ledger)
        )
        async with closing(raw) as chunks:
            async for chunk in chunks:
                yield chunk


def _ledger() -> Ledger:
    """Return the ledger of the saga whose list this is: it has just been opened."""
    return cast("Ledger", current.get())


def _saga(ledger: Ledger) -> _Undoable[Any, Any]:
    # Not the saga that was given the list: a copy of it, as `named` makes one, has the
    # same steps.
    return cast("_Undoable[Any, Any]", ledger.owner)


def _entry(
    pair: Pair,
    value: Any,  # noqa: ANN401 - any primitive's input
    context: WorkflowContext,
    ledger: Ledger,
) -> Entry:
    saga = _saga(ledger)
    return Entry(
        pair,
        saga,
        context,
        value,
        terms=SAGAS_OWN,
        saga_terms=ledger.terms,
        counts=saga._counts,
    )


def _pair(index: int, entry: Any) -> tuple[WorkflowPrimitive[Any, Any], ...]:  # noqa: ANN401 - anything a user may give
    """Return a step and its compensation, or a step alone, as primitives."""
    if isinstance(entry, (tuple, list)):
        if len(entry) != 2:  # noqa: PLR2004 - a pair
            msg = f"steps[{index}]={entry!r} must be (step, compensation), or a step"
            raise ValueError(msg)
        step = as_operand(entry[0])
        return step, _compensation(f"steps[{index}]", entry[1], step)
    return (as_operand(entry),)


def _compensation(
    where: str,
    value: Any,  # noqa: ANN401 - anything a user may give
    step: WorkflowPrimitive[Any, Any] | None,
) -> WorkflowPrimitive[Any, Any]:
    """Return a compensation as a primitive; one without a name is named for its step.

    Raises:
        TypeError: It is neither a primitive nor a function.
    """
    if not (callable(value) or isinstance(value, WorkflowPrimitive)):
        msg = (
            f"{where}: the compensation {value!r} must be a primitive or a function "
            "of a SagaRecord; a step with nothing to undo stands alone"
        )
        raise TypeError(msg)
    made = as_operand(value)
    is_lambda = getattr(value, "__name__", "") == "<lambda>"
    if is_lambda and not isinstance(value, WorkflowPrimitive):
        made = made.named("compensate" if step is None else f"compensate_{step.name}")
    return made


class CompensationPrimitive(_Undoable[In, Out]):
    """A step and what undoes it, for the saga that it stands in.

    When the step has completed, the nearest saga further outside is told how to undo
    it, should the saga fail. That may be anywhere below the saga: in a chain, a branch
    of a parallel, an item of a map, an attempt of a retry. What compensations inside
    the step would undo is left to this one once the step has completed.

    A failed attempt that a retry repeats is not undone between the attempts, which have
    the same idempotency key and so are one operation. With `compensate_failed` it is
    undone when the saga fails, if no other attempt has completed.

    Standing alone, it is a saga of one step.

    Args:
        forward: A primitive or a function: the step. Without it this is open.
        compensation: What undoes it: a primitive or a function of a `SagaRecord`,
            possibly also of the context.
        compensation_timeout: How long the compensation may take, its retries included,
            in seconds. None for what the saga says; standing alone, 60.
        compensate_failed: Whether it is undone as well if the step fails. None for what
            the saga says; standing alone, it is not.

    Raises:
        SagaCompensationError: On execution, standing alone; compensations failed.
        TypeError: An argument is of the wrong kind, or there is no compensation.
        ValueError: The limit is not positive.
    """

    @overload
    def __init__(
        self: CompensationPrimitive[Open, Open],
        forward: None = None,
        *,
        compensation: AnyStep,
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CompensationPrimitive[A, B],
        forward: WorkflowPrimitive[A, B],
        compensation: Undo[A, B],
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CompensationPrimitive[A, B],
        forward: Callable[[A], Awaitable[B]],
        compensation: Undo[A, B],
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CompensationPrimitive[A, B],
        forward: Callable[[A, WorkflowContext], Awaitable[B]],
        compensation: Undo[A, B],
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CompensationPrimitive[A, B],
        forward: Callable[[A], B],
        compensation: Undo[A, B],
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: CompensationPrimitive[A, B],
        forward: Callable[[A, WorkflowContext], B],
        compensation: Undo[A, B],
        **options: Unpack[CompensationOptions],
    ) -> None: ...
    def __init__(
        self,
        forward: AnyStep | None = None,
        compensation: AnyStep | None = None,
        *,
        compensation_timeout: float | timedelta | None = None,
        compensate_failed: bool | None = None,
    ) -> None:
        step = None if forward is None else as_operand(forward)
        self.compensation: WorkflowPrimitive[Any, Any] = _compensation(
            "CompensationPrimitive", compensation, step
        )
        timeout = compensation_timeout
        self._own_terms = Terms(
            None if timeout is None else seconds("compensation_timeout", timeout),
            None
            if compensate_failed is None
            else check_flag("compensate_failed", compensate_failed),
        )
        self._terms = Terms(
            self._own_terms.timeout or _TIMEOUT, self._own_terms.compensate_failed
        )
        if step is not None:
            self._wrap(step)

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        children = self.children()
        first, second = labels(children)
        self._pair = Pair(primitive, first, self.compensation, second)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the step and the compensation."""
        return (*super().children(), self.compensation)

    def options(self) -> dict[str, Any]:
        """Return the options that were given."""
        timeout, failed, _ = self._own_terms
        given = {"compensation_timeout": timeout, "compensate_failed": failed}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def stats(self) -> CompensationStats:
        """What this step has done so far."""
        self._wrapped()
        counts = self._counts
        return CompensationStats(
            counts.calls,
            counts.completed,
            counts.compensations,
            counts.failed_compensations,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the step, and tell the saga how to undo it."""
        self._wrapped()
        saga = enclosing()
        if saga is None:
            return await self._as_saga(input_data, context)
        self._counts.calls += 1
        output = await self._run(input_data, context, saga)
        self._counts.completed += 1
        return output

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks of the step, and tell the saga how to undo it."""
        self._wrapped()
        saga = enclosing()
        if saga is None:
            async with closing(self._stream_as_saga(input_data, context)) as own:
                async for chunk in own:
                    yield chunk
            return
        self._counts.calls += 1
        async with closing(self._run_stream(input_data, context, saga)) as chunks:
            async for chunk in chunks:
                yield chunk
        self._counts.completed += 1

    def _run(
        self, input_data: In, context: WorkflowContext, ledger: Ledger
    ) -> Awaitable[Out]:
        return carry_out(self._entry(input_data, context, ledger), ledger)

    def _run_stream(
        self, input_data: In, context: WorkflowContext, ledger: Ledger
    ) -> AsyncIterator[Any]:
        return carry_out_stream(self._entry(input_data, context, ledger), ledger)

    def _entry(self, input_data: In, context: WorkflowContext, ledger: Ledger) -> Entry:
        return Entry(
            self._pair,
            self,
            context,
            input_data,
            terms=self._own_terms,
            saga_terms=ledger.terms,
            counts=self._counts,
        )
