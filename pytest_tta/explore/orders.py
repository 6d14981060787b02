"""What "choice 0" means, and how the choices that were made are said in that order.

A schedule lists only where it deviates from its order, so the order decides how many
deviations a failure needs. Where a task must be overtaken it is one in the order that
lets the same chain go on, and many in the order of age; sometimes it is the reverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.explore.plan import Plan, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.clock.choices import Unit
    from pytest_tta.explore.outcome import Choice, Outcome
    from pytest_tta.explore.plan import Order

__all__ = ["Turns", "normalise", "offered", "schedule_of", "without_deadlines"]

PATIENCE = 100  # Choices. Then the oldest comes, or a loop that polls would never end.


class Turns:
    """Keep whose turn it is: which of the units is choice 0.

    In the order of age it is the oldest. In the sticky order it is that of the chain
    that was chosen last, as long as nobody waits for very long because of it. No timer
    comes before an operation that way, no operation before what is ready, and no limit
    before anything: a loop that sleeps and looks would keep all others from going on.

    Args:
        order: "oldest" or "sticky".
    """

    __slots__ = ("_last", "_oldest", "_passed", "_sticky")

    def __init__(self, order: Order = "oldest") -> None:
        self._sticky = order == "sticky"
        self._last: int | None = None
        self._oldest = -1
        self._passed = 0

    def front(self, units: Sequence[Unit]) -> int:
        """Return the index of choice 0 among units, the oldest first.

        Args:
            units: What there is.
        """
        if not self._sticky or self._last is None or self._passed >= PATIENCE:
            return 0
        first = units[0]
        for index, unit in enumerate(units):
            if unit.chain == self._last and _is_alike(unit, first):
                return index
        return 0

    def took(self, units: Sequence[Unit], index: int) -> None:
        """Note what was chosen.

        Args:
            units: What there was.
            index: Of what came, the oldest first.
        """
        chain = units[index].chain
        self._last = chain if chain >= 0 else None
        age = units[0].age
        self._passed = self._passed + 1 if age == self._oldest else 0
        self._oldest = age


def _is_alike(unit: Unit, first: Unit) -> bool:
    """Tell whether a unit may come before the oldest without harm."""
    return unit.kind == first.kind != "deadline"


def to_index(place: int, front: int) -> int:
    """Turn a place in an order into an index, the oldest first.

    Args:
        place: The place, from 0.
        front: The index of what has place 0.
    """
    if place == 0:
        return front
    return place - 1 if place <= front else place


def to_place(index: int, front: int) -> int:
    """Turn an index, the oldest first, into a place in an order.

    Args:
        index: The index.
        front: The index of what has place 0.
    """
    if index == front:
        return 0
    return index + 1 if index < front else index


def without_deadlines(units: Sequence[Unit]) -> Sequence[Unit]:
    """Leave out the limits that could run out early: those beside a pending operation.

    Args:
        units: What there is. Beside an operation, limits are last.
    """
    if units[-1].kind != "deadline" or all(unit.kind != "op" for unit in units):
        return units
    return [unit for unit in units if unit.kind != "deadline"]


def offered(
    choices: Sequence[Choice], early: int
) -> Iterator[tuple[Sequence[Unit], int]]:
    """Yield the choices as they would have been with another budget of early limits.

    Args:
        choices: As they were made.
        early: The budget, enough for those that did run out early.
    """
    for choice in choices:
        units: Sequence[Unit] = choice.units
        if early <= 0:
            units = without_deadlines(units)
            if len(units) == 1:
                continue
        if choice.taken >= len(units):
            return
        if len(without_deadlines(choice.units)) <= choice.taken:
            early -= 1
        yield units, choice.taken


def schedule_of(outcome: Outcome, order: Order) -> Schedule:
    """Say the choices that were made as deviations from an order.

    Its budget of early limits is what was used.

    Args:
        outcome: Of the execution.
        order: The order.
    """
    turns = Turns(order)
    deviations = []
    for point, (units, taken) in enumerate(offered(outcome.choices, outcome.early)):
        place = to_place(taken, turns.front(units))
        if place:
            deviations.append((point, place))
        turns.took(units, taken)
    mode = outcome.plan.schedule.mode
    return Schedule(mode, order, tuple(deviations), outcome.early)


def normalise(outcome: Outcome) -> Plan:
    """Return the plan that repeats an execution, whoever made the choices in it.

    Of the two orders it takes the one with fewer deviations.

    Args:
        outcome: Of the execution.
    """
    oldest = schedule_of(outcome, "oldest")
    sticky = schedule_of(outcome, "sticky")
    is_shorter = len(sticky.deviations) < len(oldest.deviations)
    return outcome.plan._replace(schedule=sticky if is_shorter else oldest)
