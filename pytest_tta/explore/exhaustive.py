"""All orders of events, without those that differ only in what makes no difference.

Two events that touch nothing in common may change places, and all is as before. So what
has happened is kept as events and, for each, what had to come before it: an order that
leads to what has been seen already is not followed any further. This is happens-before
caching, as in Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007.

An event needs what brought it about, the last event before it that touches the same,
and the last move of time. A move of time needs all that came before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pytest_tta.explore.footprints import Footprints
from pytest_tta.explore.plan import Plan
from pytest_tta.explore.searching import Search, SearchReport
from pytest_tta.explore.sites import AROUND, FLEET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_tta.clock.choices import Unit
    from pytest_tta.explore.outcome import Choice, Execute, Outcome
    from pytest_tta.explore.searching import Budget

__all__ = ["exhaust"]

Deviations: TypeAlias = tuple[tuple[int, int], ...]
State: TypeAlias = frozenset[int]


def exhaust(
    execute: Execute,
    *,
    footprints: Callable[[str], frozenset[str]] | None = None,
    limit: Budget = None,
    base: Plan | None = None,
    shard: tuple[int, int] = (0, 1),
) -> SearchReport:
    """Try all orders of events that make a difference.

    If the report says that it is complete, no order fails: that is a proof, as far as
    the footprints are right. Without footprints every order counts. So it does in other
    modes than "op", with a cancellation, whose moment is a number, and with a call that
    hangs or a message of a fleet that goes wrong, whose place in the order nobody sees.

    A part is not complete by itself. What leaves the first execution is dealt out, with
    all that follows; what others have counts as left. Orders that parts come to in two
    ways are tried in both, so that little is won where footprints leave few orders.

    Args:
        execute: What executes a plan.
        footprints: Returns the names of what a call at a site touches, with all that
            follows until the next call.
        limit: After how many executions to stop, or what says whether to go on.
        base: What else the executions are given: faults, an input, a seed, and how
            many limits may run out early.
        shard: Which part of the orders, from 0, and of how many parts.

    Raises:
        ValueError: The limit or the shard makes no sense.
    """
    if not 0 <= shard[0] < shard[1]:
        msg = f"shard={shard!r} must be which part, from 0, and how many there are"
        raise ValueError(msg)
    plan = base or Plan()
    is_plain = plan.schedule.mode == "op" and plan.cancellation is None
    if not is_plain or any(fault.kind in _UNSEEN for fault in plan.faults):
        footprints = None
    numbered = frozenset(fault.site for fault in plan.faults)
    pasts = _Pasts(footprints or Footprints(), numbered)
    search = Search(execute, limit)
    left = _follow(search, plan, pasts, shard)
    is_complete = search.failure is None and not left
    return SearchReport(
        search.executions, search.failure, complete=is_complete, left=left
    )


def _follow(search: Search, base: Plan, pasts: _Pasts, shard: tuple[int, int]) -> int:
    """Execute all orders, and return how many are known that were not executed."""
    mine, shards = shard
    seen: set[State] = set()
    waiting: deque[tuple[Deviations, State | None]] = deque([((), None)])
    others: list[State | None] = []
    while waiting and search.failure is None and search.may_go_on():
        deviations, leads_to = waiting.popleft()
        if leads_to in seen:
            continue
        schedule = base.schedule._replace(order="oldest", deviations=deviations)
        outcome = search.run(base._replace(schedule=schedule))
        branches = list(_branches(outcome, deviations, pasts, seen))
        if not deviations:
            others = [to for at, (_, to) in enumerate(branches) if at % shards != mine]
            branches = branches[mine::shards]
        waiting.extend(branches)
    left = [*others, *(leads_to for _, leads_to in waiting)]
    return sum(leads_to not in seen for leads_to in left)


def _branches(
    outcome: Outcome, deviations: Deviations, pasts: _Pasts, seen: set[State]
) -> Iterator[tuple[Deviations, State | None]]:
    """Yield the orders that leave an execution after its last deviation.

    They end where it comes to what was seen before: from there others have followed.
    """
    first = deviations[-1][0] + 1 if deviations else 0
    for point, moment in enumerate(pasts.moments(outcome.choices)):
        if point < first:
            continue
        if moment.state in seen:
            return
        seen.add(moment.state)
        if moment.units is None:
            return
        for place in range(len(moment.units)):
            if place != moment.taken:
                following = pasts.after(moment, place)
                if following not in seen:
                    yield (*deviations, (point, place)), following


class _Moment(NamedTuple):
    """What has happened before a choice, or before the end.

    Attributes:
        state: What tells it from all others.
        events: The numbers of the events that have happened.
        units: What there is to choose; None at the end.
        taken: The index of what was chosen.
        names: By the age of a unit: what it is, whichever order led here.
        last: By what is touched: the last event that has done so.
    """

    state: State
    events: frozenset[int]
    units: Sequence[Unit] | None
    taken: int
    names: dict[int, int]
    last: dict[str, int]


# Whoever hangs is nobody's choice, and what a broker does with a message comes later.
_UNSEEN = frozenset(("hang", *(set(FLEET) - set(AROUND))))
_TIME = "\0time"  # No footprint can have this name.


class _Pasts:
    """Number events by what they are and what had to come before them.

    Args:
        footprints: Returns the names of what a call at a site touches.
        numbered: Sites where it matters which call is which, as a fault counts them.
    """

    def __init__(
        self, footprints: Callable[[str], frozenset[str]], numbered: frozenset[str]
    ) -> None:
        self._footprints = footprints
        self._numbered = numbered
        self._numbers: dict[object, int] = {}

    def moments(self, choices: Sequence[Choice]) -> Iterator[_Moment]:
        """Yield the moments of an execution: before each choice, and the end.

        Args:
            choices: As they were made.
        """
        events: frozenset[int] = frozenset()
        names: dict[int, int] = {}
        last: dict[str, int] = {}
        before = -1
        for choice in choices:
            self._name(choice.units, before, names)
            state = events | self._pending(choice.units, names)
            moment = _Moment(state, events, choice.units, choice.taken, names, last)
            yield moment
            unit = choice.units[choice.taken]
            before = self._event(moment, unit)
            for name in self._touched(unit):
                last[name] = before
            events |= {before}
        yield _Moment(events, events, None, -1, names, last)

    def after(self, moment: _Moment, place: int) -> State | None:
        """Return the state that another choice would lead to; None if nobody knows.

        Args:
            moment: Before the choice.
            place: The index of the other one.
        """
        if self._numbered or moment.units is None:
            return None
        return moment.events | {self._event(moment, moment.units[place])}

    def _number(self, what: object) -> int:
        """Return the number of something, the same for the same."""
        return self._numbers.setdefault(what, len(self._numbers))

    def _name(self, units: Sequence[Unit], before: int, names: dict[int, int]) -> None:
        """Give names to units that are new: by what brought them about.

        A timer or limit is named by its place, since nothing changes places with it.
        """
        count: dict[tuple[str, str], int] = {}
        for unit in units:
            if unit.kind == "op" and unit.age in names:
                continue
            sort = (unit.kind, unit.label)
            count[sort] = count.get(sort, 0) + 1
            which = unit.number if unit.label in self._numbered else count[sort]
            by = before if unit.kind == "op" else -1
            names[unit.age] = self._number((by, *sort, which))

    def _pending(self, units: Sequence[Unit], names: dict[int, int]) -> frozenset[int]:
        """Return what of the units is a difference by itself: numbers of calls."""
        if not self._numbered:
            return frozenset()
        return frozenset(
            self._number(("pending", names[unit.age]))
            for unit in units
            if unit.label in self._numbered
        )

    def _event(self, moment: _Moment, unit: Unit) -> int:
        """Return the number of an event: what it is, and what it needs."""
        name = moment.names[unit.age]
        if unit.kind != "op":
            return self._number((name, moment.events))
        needs = {moment.last[key] for key in self._touched(unit) if key in moment.last}
        if _TIME in moment.last:
            needs.add(moment.last[_TIME])
        return self._number((name, frozenset(needs)))

    def _touched(self, unit: Unit) -> frozenset[str]:
        if unit.kind != "op":
            return frozenset((_TIME,))
        return self._footprints(unit.label)
