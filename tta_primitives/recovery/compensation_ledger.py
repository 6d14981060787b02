"""What a saga would have to undo: its ledger, and the steps that are entered there.

A saga opens a ledger, and the steps that complete inside it enter how they are undone.
Which ledger that is travels in a ContextVar, so that branches, items and attempts in
tasks of their own find the one of the saga that they belong to.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from tta_primitives.context import Enforced

if TYPE_CHECKING:
    from contextvars import Token

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = [
    "SAGAS_OWN",
    "Counts",
    "Entry",
    "Ledger",
    "Pair",
    "SagaRecord",
    "Terms",
    "current",
    "enclosing",
    "leave",
    "placed",
]

# Users read these in errors of their type checkers: `SagaRecord[InputT, OutputT]`.
InputT = TypeVar("InputT", covariant=True)  # noqa: PLC0105 - as above
OutputT = TypeVar("OutputT", covariant=True)  # noqa: PLC0105 - as above

# Counts how many steps of a run were undone; all other names there have two lines.
_UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class SagaRecord(Generic[InputT, OutputT]):
    """What a compensation is given: what its step got and made, and why it is undone.

    Attributes:
        input: What the step was given; the same object.
        output: What it returned; the same object. The list of its chunks if it was
            streamed, and None if it did not complete.
        error: What began the compensation: the failure or cancellation of the saga. For
            a step that did not complete it is that step's own.
        completed: Whether the step returned. A step that did not is undone only with
            `compensate_failed`.
    """

    input: InputT
    output: OutputT
    error: BaseException
    completed: bool = True


class Terms(NamedTuple):
    """On what terms compensations run.

    Attributes:
        timeout: How long each may take, in seconds; None for what the saga says.
        compensate_failed: Whether a step that failed is undone as well; None for what
            the saga says.
        total: How long all of them may take, in seconds; None for as long as each may.
    """

    timeout: float | None = None
    compensate_failed: bool | None = None
    total: float | None = None


SAGAS_OWN = Terms()
"""The terms of whoever leaves all of them to the saga."""


class Pair(NamedTuple):
    """A step and what undoes it, as children of one primitive.

    Attributes:
        step: What is done.
        label: What its owner calls it.
        compensation: What undoes it.
        compensation_label: What the same owner calls that.
    """

    step: WorkflowPrimitive[Any, Any]
    label: str
    compensation: WorkflowPrimitive[Any, Any]
    compensation_label: str


class Counts:
    """What a primitive has done and had undone so far."""

    __slots__ = (
        "calls",
        "compensated",
        "compensations",
        "completed",
        "failed_compensations",
    )

    def __init__(self) -> None:
        self.calls: int = 0
        self.completed: int = 0
        self.compensated: int = 0
        self.compensations: int = 0
        self.failed_compensations: int = 0


class Entry:
    """One execution of a step that can be undone; in a ledger once it would have to be.

    Args:
        pair: The step and its compensation.
        owner: The primitive whose children they are.
        context: The view of the owner.
        input_data: What the step is given.
        terms: On what terms the owner has it undone.
        saga_terms: The same for what the owner leaves open.
        counts: Where the owner counts compensations.

    Attributes:
        output: What the step has returned.
        error: What it has raised instead.
    """

    __slots__ = (
        "_saga_terms",
        "_terms",
        "context",
        "counts",
        "error",
        "input_data",
        "output",
        "owner",
        "pair",
    )

    def __init__(
        self,
        pair: Pair,
        owner: WorkflowPrimitive[Any, Any],
        context: WorkflowContext,
        input_data: Any,  # noqa: ANN401 - any primitive's input
        *,
        terms: Terms,
        saga_terms: Terms,
        counts: Counts,
    ) -> None:
        self.pair: Pair = pair
        self.owner: WorkflowPrimitive[Any, Any] = owner
        self.context: WorkflowContext = context
        self.input_data: Any = input_data
        self._terms = terms
        self._saga_terms = saga_terms
        self.counts: Counts = counts
        self.output: Any = None
        self.error: BaseException | None = None

    @property
    def timeout(self) -> float:
        """How long the compensation may take, in seconds."""
        own = self._terms.timeout
        return cast("float", self._saga_terms.timeout if own is None else own)

    @property
    def compensate_failed(self) -> bool:
        """Whether the step is undone if it fails."""
        own = self._terms.compensate_failed
        return bool(self._saga_terms.compensate_failed if own is None else own)

    @property
    def path(self) -> str:
        """The path of the step."""
        return self._place().path

    def record(self, error: BaseException) -> SagaRecord[Any, Any]:
        """Return what the compensation is given.

        Args:
            error: What ended the saga.
        """
        own = self.error
        return SagaRecord(self.input_data, self.output, own or error, own is None)

    def operation(self) -> object:
        """Return what is equal for all attempts of one operation."""
        if self.context._key is None or isinstance(self.context._key, str):
            return self
        return self._place().idempotency_key

    def step_view(self) -> WorkflowContext:
        """Return the view for the step."""
        return placed(self.pair.step, self.pair.label, self.owner, self.context)

    def _place(self) -> WorkflowContext:
        return self.context.below(self.owner, self.pair.step, self.pair.label)

    def _compensation_place(self) -> WorkflowContext:
        owner, pair = self.owner, self.pair
        return self.context.below(owner, pair.compensation, pair.compensation_label)

    @property
    def compensation_path(self) -> str:
        """The path of the compensation."""
        return self._compensation_place().path

    def open_view(self, deadline: float) -> WorkflowContext:
        """Return the view for one execution of the compensation.

        Its key differs from that of the step and of other executions. Its deadline is
        not that of the run, which may be over.

        Args:
            deadline: In seconds of the loop's clock.
        """
        view = self._compensation_place()
        view.deadline = Enforced(deadline)
        if view._key is not None:
            name = f"{view.idempotency_key}\n{view.path}"
            view.open_item(f"undo {_count(view, name)}")
        return view

    def retire_key(self) -> None:
        """Give the step another idempotency key when it is executed again.

        To whoever knows the old one the step would be done already, and it is undone.
        """
        if self.context._key is not None:
            view = self._place()
            _count(view, _UNDONE)
            _count(view, _undone(view))


def placed(
    step: WorkflowPrimitive[Any, Any],
    label: str,
    owner: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
) -> WorkflowContext:
    """Return the view that the owner of a step hands to it."""
    if not step._needs_position and label == step.name:
        return context
    view = context.below(owner, step, label)
    if view._key is not None and _UNDONE in view._key_scopes:
        times = view._key_scopes.get(_undone(view), 0)
        if times:
            view.open_item(f"again {times}")
    return view


def _undone(view: WorkflowContext) -> str:
    return f"{_UNDONE} {view.idempotency_key}\n{view.path}"


def _count(view: WorkflowContext, name: str) -> int:
    counts = view._key_scopes
    number = counts[name] = counts.get(name, 0) + 1
    return number


class Ledger:
    """What one execution of a saga, or of a step in one, would have to undo.

    Args:
        terms: On what terms it is undone, all of them given.
        outer: Whose business the entries are after a success.
        owner: The saga that is executed; None for a step in one.

    Attributes:
        entries: What was entered, in the order of completion.
        is_open: Whether the execution goes on.
        is_undone: Whether it has failed, so that its entries are being undone.
    """

    __slots__ = ("entries", "is_open", "is_undone", "outer", "owner", "terms")

    def __init__(
        self,
        terms: Terms,
        outer: Ledger | None,
        owner: WorkflowPrimitive[Any, Any] | None = None,
    ) -> None:
        self.terms: Terms = terms
        self.outer: Ledger | None = outer
        self.owner: WorkflowPrimitive[Any, Any] | None = owner
        self.entries: list[Entry] = []
        self.is_open: bool = True
        self.is_undone: bool = False

    def hand_over(self) -> bool:
        """End this and hand the entries to the saga further outside, if there is one.

        Returns:
            Whether that is all. False means that the saga outside was undone already,
            and the entries are still here.
        """
        self.is_open = False
        outer = self.outer
        # A task may go on after the end of what has begun it.
        while outer is not None and not (outer.is_open or outer.is_undone):
            outer = outer.outer
        if outer is not None:
            if outer.is_undone and self.entries:
                return False
            outer.entries += self.entries
        self.entries = []
        return True

    def due(self) -> list[Entry]:
        """End this and return what is to be undone, in the order of completion.

        Attempts that share an idempotency key are one operation: those that failed are
        left out if one has completed, and all but the last if none has.
        """
        self.is_open, self.is_undone = False, True
        entries, self.entries = self.entries, []
        if all(entry.error is None for entry in entries):
            return entries
        seen = {entry.operation() for entry in entries if entry.error is None}
        kept = []
        for entry in reversed(entries):
            if entry.error is not None:
                operation = entry.operation()
                if operation in seen:
                    continue
                seen.add(operation)
            kept.append(entry)
        return kept[::-1]


current: ContextVar[Ledger | None] = ContextVar("tta_saga", default=None)


def enclosing() -> Ledger | None:
    """Return the ledger of the nearest saga that is under way, if there is one."""
    ledger = current.get()
    while ledger is not None and not ledger.is_open:
        # What begins only after a saga was undone is no part of it.
        ledger = None if ledger.is_undone else ledger.outer
    return ledger


def leave(token: Token[Ledger | None]) -> None:
    """Go back to the ledger further outside."""
    try:  # noqa: SIM105 - `suppress` costs as much as all the rest
        current.reset(token)
    except ValueError:
        pass  # A coroutine that is closed from elsewhere is in another context.
