"""A second execution when the first one takes long: `HedgePrimitive`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast, overload

from tta_primitives.arguments import check_count, seconds
from tta_primitives.door import closing
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand, plans
from tta_primitives.recovery.budget import RetryBudget
from tta_primitives.recovery.classify import ErrorFilter, check_filter
from tta_primitives.recovery.hedge_race import HedgeOutcome, Race, Skip, StreamRace
from tta_primitives.recovery.latency import Latencies, Quantile
from tta_primitives.recovery.options import changed
from tta_primitives.signature import wants_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta
    from typing import Required, Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = [
    "HedgeOptions",
    "HedgeOutcome",
    "HedgePrimitive",
    "HedgeStats",
    "Quantile",
]

Delay: TypeAlias = "float | timedelta | Quantile | Callable[[int], float | timedelta]"
Gate: TypeAlias = "Callable[[Any], Any] | Callable[[Any, WorkflowContext], Any]"


class HedgeOptions(TypedDict, total=False):
    """The keyword arguments of `HedgePrimitive`, which documents them."""

    delay: Required[Delay]
    max_hedges: int
    hedge_on: ErrorFilter
    hedge_if: Gate | None
    alternatives: Sequence[WorkflowPrimitive[Any, Any] | Callable[..., Any]] | None
    budget: RetryBudget | None


@dataclass(frozen=True, slots=True)
class HedgeStats:
    """What a hedge has done so far.

    Attributes:
        calls: All that came.
        hedges: Further executions that were started.
        wins: Calls that one of these has answered.
        skipped: Hedges that were not started: the call was not eligible, the budget was
            exhausted, the deadline too near, or too few latencies were known.
        delay: Seconds before the first hedge, as a `Quantile` has found or as they were
            given; None if it has not found any yet, or a function decides.
    """

    calls: int
    hedges: int
    wins: int
    skipped: int
    delay: float | None


class HedgePrimitive(Wrapper[In, Out]):
    """Executes a primitive once more if it takes long; the first success answers.

    The executions of a call run at the same time, each in a task with a copy of the
    caller's context variables. When one has succeeded, the others are cancelled and
    awaited, and what they return nevertheless is closed if it has `aclose()`; nothing
    is left running, also if the caller is cancelled, even twice.

    A failure does not beat a success that is still to come: the next execution starts
    at once, and if all have failed, the error of the first one (the primary) is raised
    itself, with a note on the others.

    All of them are one logical operation, which is executed several times, so a
    primitive with `idempotent=False` in it is never hedged. Executions of the same
    primitive see the same idempotency keys in their context. If a hedge has answered,
    `context.outcomes[path]` is a `HedgeOutcome`.

    A stream is hedged until the first chunk: who yields first goes on, the others are
    closed.

    Observers hear `hedge.started` (number, delay: seconds since the execution before it
    began), `hedge.won` (number) and `hedge.skipped` (reason: `"not_idempotent"`,
    `"not_eligible"`, `"latency_unknown"`, `"deadline"` or `"budget"`).

    Args:
        primitive: A primitive or a function; without it the hedge is open.
        delay: How long to wait for an execution before the next one starts: seconds, a
            function from the number of the hedge (1, 2, ...) to seconds, or a
            `Quantile` of the primary's latencies. With 0 all start at the same time.
        max_hedges: So many further executions there may be for a call.
        hedge_on: After which errors the next one starts at once: a type, a tuple of
            types, or a predicate. Another error is the answer.
        hedge_if: `f(input)` or `f(input, context)`, sync or async, tells whether a call
            may be hedged.
        alternatives: What hedges execute instead of the primitive, for instance the
            same service in another region; hedge n takes the nth, and after the last
            the first again.
        budget: An allowance of further executions, shared with retries and hedges.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or there are more alternatives than
            hedges.
    """

    @overload
    def __init__(
        self: HedgePrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[HedgeOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: AsyncOperand[In, Out], **options: Unpack[HedgeOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: SyncOperand[In, Out], **options: Unpack[HedgeOptions]
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        delay: Delay,
        max_hedges: int = 1,
        hedge_on: ErrorFilter = Exception,
        hedge_if: Gate | None = None,
        alternatives: Sequence[WorkflowPrimitive[Any, Any] | Callable[..., Any]]
        | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.delay: float | Quantile | Callable[[int], Any] = _check_delay(delay)
        self.max_hedges: int = check_count("max_hedges", max_hedges, minimum=1)
        self.hedge_on: ErrorFilter = check_filter("hedge_on", hedge_on)
        self.hedge_if = hedge_if
        self._asks_with_context = hedge_if is not None and wants_context(
            "hedge_if", hedge_if
        )
        self.alternatives: tuple[WorkflowPrimitive[Any, Any], ...] = (
            _check_alternatives(alternatives, max_hedges)
        )
        if budget is not None and not isinstance(budget, RetryBudget):
            msg = f"budget={budget!r} must be a RetryBudget or None"
            raise TypeError(msg)
        self.budget = budget
        if primitive is not None:
            self._wrap(as_operand(primitive))

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        executed = (primitive, *self.alternatives)
        self.idempotent: bool = all(one.idempotent for one in executed)
        # Outcomes are filed under its path.
        self._needs_position = True
        self._plan, self._heard_plan = plans(executed)
        self._counts = _Counts()
        self._latencies: Latencies | None = None
        if isinstance(self.delay, Quantile):
            self._latencies = Latencies(self.delay)
        self._is_always_hedged = (
            self.idempotent and self.hedge_if is None and self._latencies is None
        )

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return the primitive and the alternatives."""
        return (*super().children(), *self.alternatives)

    def options(self) -> dict[str, Any]:
        """Return the delay, and the options that differ from the usual ones."""
        options = {"delay": self.delay, **changed(self, HedgePrimitive.__init__)}
        options.pop("alternatives", None)  # They are its children.
        if self.hedge_on == (Exception,):
            del options["hedge_on"]
        return options

    @property
    def stats(self) -> HedgeStats:
        """Return what was counted so far.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts, delay = self._counts, self.delay
        seen = None if self._latencies is None else self._latencies.latest()
        return HedgeStats(
            calls=counts.calls,
            hedges=counts.hedges,
            wins=counts.wins,
            skipped=counts.skipped,
            delay=delay if isinstance(delay, float) else seen,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive, and again beside it while there is no answer."""
        self._note_call()
        race = Race(self, input_data, context)
        if not self._is_always_hedged:
            skip = await self._why_not(input_data, context)
            if skip is not None:
                race.skip(skip)
                return cast("Out", await race.alone())
        await race.run()
        return cast("Out", race.result())

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks of the execution that has the first."""
        self._note_call()
        race = StreamRace(self, input_data, context)
        skip = await self._why_not(input_data, context)
        if skip is None:
            await race.run()
            chunks = race.chunks()
        else:
            race.skip(skip)
            chunks = race.chunks_alone()
        async with closing(chunks) as answer:
            async for chunk in answer:
                yield chunk

    def _note_call(self) -> None:
        self._wrapped()
        self._counts.calls += 1
        if self.budget is not None:
            self.budget.note_call()

    async def _why_not(self, input_data: In, context: WorkflowContext) -> Skip | None:
        """Return why a call is not hedged at all, None if it is."""
        if not self.idempotent:
            return "not_idempotent"
        if self.hedge_if is not None:
            ask: Any = self.hedge_if
            is_eligible = (
                ask(input_data, context.of(self))
                if self._asks_with_context
                else ask(input_data)
            )
            if hasattr(is_eligible, "__await__"):
                is_eligible = await is_eligible
            if not is_eligible:
                return "not_eligible"
        if self._latencies is not None and self._latencies.delay() is None:
            return "latency_unknown"
        return None

    def _delay_before(self, number: int) -> float | None:
        """Return the seconds before this hedge, None if it waits for a failure."""
        delay = self.delay
        if isinstance(delay, Quantile):
            return cast("Latencies", self._latencies).delay()
        if callable(delay):
            return seconds(f"delay({number})", delay(number), zero=True)
        return delay


class _Counts:
    """What is counted; copies under other names count together."""

    __slots__ = ("calls", "hedges", "skipped", "wins")

    def __init__(self) -> None:
        self.calls = self.hedges = self.skipped = self.wins = 0


def _check_delay(delay: object) -> float | Quantile | Callable[[int], Any]:
    if isinstance(delay, Quantile):
        return delay
    if callable(delay) and not isinstance(delay, type):
        return cast("Callable[[int], Any]", delay)
    return seconds("delay", delay, zero=True)


def _check_alternatives(
    alternatives: object, max_hedges: int
) -> tuple[WorkflowPrimitive[Any, Any], ...]:
    if alternatives is None:
        return ()
    if not isinstance(alternatives, (list, tuple)):
        msg = f"alternatives={alternatives!r} must be a list: alternatives=[...]"
        raise TypeError(msg)
    if not 1 <= len(alternatives) <= max_hedges:
        msg = (
            f"alternatives has {len(alternatives)}, and must have at least 1 and at "
            f"most max_hedges={max_hedges}: each is executed by a hedge"
        )
        raise ValueError(msg)
    return tuple(as_operand(one) for one in alternatives)
