"""The portfolio: several strategies in turn, since each misses what another finds."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from itertools import count as count_from
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.explore.choosers import (
    Measure,
    any_of_them,
    chance_of,
    fairly,
    lazily,
    measure,
    weighted,
    with_early,
    with_priorities,
)
from pytest_tta.explore.plan import Order, Plan, Schedule
from pytest_tta.explore.searching import Search, SearchReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.plan import Mode
    from pytest_tta.explore.searching import Budget

__all__ = ["Bounded", "search_schedules"]

Deviations = tuple[tuple[int, int], ...]

SMALL = 32  # Orders. To try them all takes less than to stumble over each by chance.


class Bounded:
    """Give all schedules, those with the fewest deviations from an order first.

    Args:
        order: The order.
        most: The most deviations; None for no bound, which ends with all schedules.
        shard: Which part of the work, of how many: parts share no schedule.
    """

    def __init__(
        self,
        order: Order,
        most: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.order = order
        self._most = most
        self._shard = shard
        self._now: Iterator[Deviations] = iter([()])
        self._parents: deque[tuple[Deviations, list[int]]] = deque()

    def next(self) -> Deviations | None:
        """Return the deviations of the next schedule; None if there is none left."""
        while True:
            for deviations in self._now:
                return deviations
            if not self._parents:
                return None
            self._now = self._children(*self._parents.popleft())

    def learn(self, deviations: Deviations, outcome: Outcome) -> None:
        """Note how many choices an execution had: the next schedules deviate there.

        Args:
            deviations: As `next` returned them.
            outcome: Of the execution.
        """
        if self._most is None or len(deviations) < self._most:
            sizes = [len(choice.units) for choice in outcome.choices]
            self._parents.append((deviations, sizes))

    def _children(self, parent: Deviations, sizes: list[int]) -> Iterator[Deviations]:
        first = parent[-1][0] + 1 if parent else 0
        mine, shards = self._shard
        for point in range(first, len(sizes)):
            for place in range(1, sizes[point]):
                if parent or (point + place) % shards == mine:
                    yield (*parent, (point, place))


class _Corner(NamedTuple):
    """A mode with a budget of early limits, and what its first execution told."""

    schedule: Schedule
    measured: Measure
    bounded: tuple[Bounded, Bounded]


_Strategy = Callable[[random.Random, Measure], "Chooser"]

# An order stands for all schedules near it, one after the other.
_STRATEGIES: tuple[Order | _Strategy, ...] = (
    "sticky",
    lambda chance, _: any_of_them(chance),
    lambda chance, _: lazily(chance),
    lambda chance, plain: with_priorities(chance, 2, plain.horizon),
    lambda chance, plain: with_priorities(chance, 3, plain.horizon),
    "oldest",
    lambda chance, plain: with_priorities(chance, 5, plain.horizon),
    lambda chance, plain: weighted(chance, plain.events),
)


def search_schedules(
    execute: Execute,
    count: int | None = 200,
    *,
    seed: int = 0,
    modes: Sequence[Mode] = ("op",),
    early: int = 1,
    base: Plan | None = None,
    shard: tuple[int, int] = (0, 1),
    budget: Budget = None,
) -> SearchReport:
    """Search for an order of events that breaks a test.

    What asyncio does by itself comes first, then strategies in turn, or all orders
    where there are few. If there are limits, half of the executions let one run out
    early. The search ends at the first failure, and when all orders were tried.

    Args:
        execute: What executes a plan.
        count: How many executions; None for as many as the budget allows.
        seed: Another one gives other random orders.
        modes: What may be chosen, see `Schedule`.
        early: How many limits may run out early in an execution.
        base: What else the executions are given: faults, an input, a seed.
        shard: Which part of the work, from 0, and of how many parts.
        budget: After how many executions to stop, or what says whether to go on.

    Raises:
        ValueError: The shard or the budget makes no sense.
    """
    if not 0 <= shard[0] < shard[1]:
        msg = f"shard={shard!r} must be which part, from 0, and how many there are"
        raise ValueError(msg)
    search = _Portfolio(execute, count, seed, shard, budget)
    corners = [
        corner
        for mode, allowed in product(modes, sorted({0, early}))
        if (corner := search.corner(base or Plan(), Schedule(mode, early=allowed)))
    ]
    search.search(base or Plan(), corners)
    is_complete = search.failure is None and not corners and search.executions > 0
    return SearchReport(search.executions, search.failure, complete=is_complete)


class _Portfolio(Search):
    """A search of `search_schedules`."""

    def __init__(
        self,
        execute: Execute,
        count: int | None,
        seed: int,
        shard: tuple[int, int],
        budget: Budget,
    ) -> None:
        super().__init__(execute, budget)
        self._count = count
        self._seed = seed
        self._shard = shard

    def is_over(self) -> bool:
        """Tell whether it has failed, or may not go on."""
        if self.failure is not None or not self.may_go_on():
            return True
        return self._count is not None and self.executions >= self._count

    def corner(self, base: Plan, schedule: Schedule) -> _Corner | None:
        """Execute plainly, and measure; None if there is nothing to choose.

        Args:
            base: What else the execution is given.
            schedule: A mode, and how many limits may run out early.
        """
        if self.is_over():
            return None
        outcome = self.run(base._replace(schedule=schedule))
        measured = measure(outcome)
        if not measured.horizon or (schedule.early and not measured.has_deadlines):
            return None
        oldest = Bounded("oldest", shard=self._shard)
        oldest.next()  # That was this execution.
        oldest.learn((), outcome)
        sticky = Bounded("sticky", shard=self._shard)
        return _Corner(schedule, measured, (sticky, oldest))

    def search(self, base: Plan, corners: list[_Corner]) -> None:
        """Try strategies in turn, in each corner, and take away what is wholly tried.

        Args:
            base: What else the executions are given.
            corners: What there is to search.
        """
        for corner in [one for one in corners if one.measured.orders <= SMALL]:
            if self._wholly(base, corner):
                corners.remove(corner)
        mine, shards = self._shard
        for turn in count_from(0):
            if self.is_over() or not corners:
                return
            of_round, which = divmod(turn, len(_STRATEGIES))
            corner = corners[of_round % len(corners)]
            strategy = _STRATEGIES[which]
            if isinstance(strategy, str):
                bounded = corner.bounded[strategy == "oldest"]
                if not self._systematic(base, corner.schedule, bounded):
                    corners.remove(corner)
                continue
            chance = chance_of(self._seed, turn * shards + mine)
            self._random(base, corner, strategy, chance)

    def _wholly(self, base: Plan, corner: _Corner) -> bool:
        """Try all orders where there seem to be few, and tell whether none is left."""
        for _ in range(2 * SMALL):
            if self.is_over():
                return False
            if not self._systematic(base, corner.schedule, corner.bounded[1]):
                return True
        return False

    def _systematic(self, base: Plan, schedule: Schedule, bounded: Bounded) -> bool:
        """Execute the next schedule near an order, if there is one left."""
        deviations = bounded.next()
        if deviations is None:
            return False
        near = schedule._replace(order=bounded.order, deviations=deviations)
        bounded.learn(deviations, self.run(base._replace(schedule=near)))
        return True

    def _random(
        self,
        base: Plan,
        corner: _Corner,
        strategy: _Strategy,
        chance: random.Random,
    ) -> None:
        """Execute an order that a strategy makes up."""
        measured = corner.measured
        choose = fairly(strategy(chance, measured), measured.horizon)
        if corner.schedule.early:
            choose = with_early(choose, chance, measured.horizon)
        self.run(base._replace(schedule=corner.schedule), choose)
