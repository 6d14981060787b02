"""The shrinker: from a plan that fails to the smallest that fails for the same reason.

The choices are said anew in both orders, then deviations are taken away in halves,
quarters and so on (ddmin), and in the end all smaller schedules are tried, the smallest
first. So there is not only nothing that could be taken away from the result: if the
number of executions suffices, no schedule with fewer deviations fails at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from pytest_tta.explore.orders import schedule_of
from pytest_tta.explore.outcome import Verdict
from pytest_tta.explore.plan import Mode, Order, Schedule
from pytest_tta.explore.schedules import Bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.plan import Plan

__all__ = ["shrink"]


def shrink(execute: Execute, outcome: Outcome, *, limit: int = 500) -> Outcome:
    """Return the outcome of the smallest plan that fails for the same reason.

    Smallest means: the fewest faults, then no cancellation, then the plainest mode,
    then the fewest limits that run out early, then the fewest deviations. In the end
    the plan is executed again; if it does not fail again, the verdict is that the test
    is not deterministic.

    Args:
        execute: What executes a plan.
        outcome: Of an execution that failed.
        limit: After how many executions to take the smallest so far.

    Raises:
        ValueError: The execution did not fail.
    """
    if outcome.verdict is None:
        msg = "only an execution that failed can be shrunk, and this one has no verdict"
        raise ValueError(msg)
    shrinker = _Shrinker(execute, outcome, limit)
    if not shrinker.reproduces():
        return _not_deterministic(outcome, "it does not fail again")
    shrinker.take_away_faults()
    shrinker.take_away_deviations()
    shrinker.try_all_smaller()
    return shrinker.confirmed()


def _not_deterministic(outcome: Outcome, why: str) -> Outcome:
    found = outcome.verdict.text if outcome.verdict is not None else "nothing"
    text = f"executed again with the same plan, {why}; found was: {found}"
    return outcome._replace(verdict=Verdict("not deterministic", text))


def _size(plan: Plan) -> tuple[int, ...]:
    """Return what makes a plan small, the most important first."""
    schedule = plan.schedule
    return (
        len(plan.faults),
        sum(fault.kind == "outage" for fault in plan.faults),
        int(plan.cancellation is not None),
        get_args(Mode).index(schedule.mode),
        schedule.early,
        len(schedule.deviations),
        sum(place for _, place in schedule.deviations),
        int(schedule.order != "oldest"),
    )


class _Shrinker:
    """Keep the smallest failure so far, and try smaller ones."""

    def __init__(self, execute: Execute, outcome: Outcome, limit: int) -> None:
        self._execute = execute
        self._group = outcome.verdict.group if outcome.verdict is not None else ""
        self._left = limit
        self._tried: dict[Plan, Outcome] = {}
        self._first = outcome
        self._best: Outcome | None = None

    def reproduces(self) -> bool:
        """Say the choices anew in both orders, and tell whether one fails again."""
        return any(self._try(plan) for plan in _in_both_orders(self._first))

    def take_away_faults(self) -> None:
        """Take away one fault after the other, and what else is not needed."""
        while any(self._try(plan) for plan in self._with_less()):
            pass

    def take_away_deviations(self) -> None:
        """Take away deviations in both orders, in parts that become smaller."""
        for plan in _in_both_orders(self.best):
            if len(self.best.plan.schedule.deviations) > 1:
                self._halve(plan)

    def try_all_smaller(self) -> None:
        """Try all schedules with fewer deviations, the fewest first."""
        schedule = self.best.plan.schedule
        most = len(schedule.deviations) - 1
        searches = [(Bounded(order, most), order) for order in get_args(Order)]
        following = {order: bounded.next() for bounded, order in searches}
        for size in range(most + 1):
            for bounded, order in searches:
                deviations = following[order]
                while deviations is not None and len(deviations) == size:
                    near = schedule._replace(order=order, deviations=deviations)
                    outcome = self._outcome_of(self.best.plan._replace(schedule=near))
                    if outcome is None or self._keep(outcome):
                        return
                    bounded.learn(deviations, outcome)
                    deviations = bounded.next()
                following[order] = deviations

    def confirmed(self) -> Outcome:
        """Execute the smallest once more, and return what came of it."""
        best = self.best
        schedule = schedule_of(best, best.plan.schedule.order)
        outcome = self._execute(best.plan._replace(schedule=schedule))
        if self._is_same(outcome):
            return outcome
        return _not_deterministic(best, "it failed once and then did not")

    @property
    def best(self) -> Outcome:
        """The smallest so far."""
        return self._best if self._best is not None else self._first

    def _with_less(self) -> Iterator[Plan]:
        """Yield plans that lack something, the plainest first."""
        best = self.best.plan
        plain = Schedule(best.schedule.mode)
        if plain != Schedule():
            yield best._replace(schedule=Schedule())
        yield best._replace(schedule=plain)
        for plan in _with_fewer_causes(best):
            yield plan._replace(schedule=plain)
            yield plan
        if best.schedule.early:
            less = best.schedule.early - 1
            yield best._replace(schedule=best.schedule._replace(early=less))

    def _halve(self, plan: Plan) -> None:
        """Take away deviations as ddmin does, by Zeller and Hildebrandt (2002)."""
        deviations = plan.schedule.deviations
        parts = 2
        while deviations:
            size = max(len(deviations) // parts, 1)
            for start in range(0, len(deviations), size):
                fewer = deviations[:start] + deviations[start + size :]
                schedule = plan.schedule._replace(deviations=fewer)
                if self._fails(plan._replace(schedule=schedule)):
                    deviations = fewer
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    return
                parts = min(parts * 2, len(deviations))

    def _fails(self, plan: Plan) -> bool:
        """Tell whether a plan fails in the same way, and keep it if it is smaller."""
        outcome = self._outcome_of(plan)
        if outcome is None or not self._is_same(outcome):
            return False
        self._keep(outcome)
        return True

    def _try(self, plan: Plan) -> bool:
        """Tell whether a plan is a smaller failure of the same kind, now kept."""
        outcome = self._outcome_of(plan)
        return outcome is not None and self._keep(outcome)

    def _keep(self, outcome: Outcome) -> bool:
        """Keep an outcome if it is a smaller failure of the same kind."""
        if not self._is_same(outcome):
            return False
        if self._best is not None and _size(outcome.plan) >= _size(self._best.plan):
            return False
        self._best = outcome
        return True

    def _is_same(self, outcome: Outcome) -> bool:
        return outcome.verdict is not None and outcome.verdict.group == self._group

    def _outcome_of(self, plan: Plan) -> Outcome | None:
        """Execute a plan, if it was not yet; None if the limit is reached."""
        if plan not in self._tried:
            if self._left <= 0:
                return None
            self._left -= 1
            self._tried[plan] = self._execute(plan)
        return self._tried[plan]


def _in_both_orders(outcome: Outcome) -> list[Plan]:
    """Say the choices of an execution in both orders, the shorter first."""
    plans = [
        outcome.plan._replace(schedule=schedule_of(outcome, order))
        for order in get_args(Order)
    ]
    return sorted(plans, key=_size)


def _with_fewer_causes(plan: Plan) -> Iterator[Plan]:
    """Yield plans without the cancellation, without a fault, with a lesser one."""
    if plan.cancellation is not None:
        yield plan._replace(cancellation=None)
    faults = plan.faults
    for index, fault in enumerate(faults):
        before, after = faults[:index], faults[index + 1 :]
        yield plan._replace(faults=(*before, *after))
        if fault.kind == "outage":
            yield plan._replace(faults=(*before, fault._replace(kind="error"), *after))
