"""What every search has: a count of its executions, a budget and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pytest_tta.explore.orders import normalise

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.plan import Plan

__all__ = ["Budget", "Search", "SearchReport"]

Budget: TypeAlias = "int | Callable[[], bool] | None"
"""How many executions there may be, or what says whether there may be one more."""


class SearchReport(NamedTuple):
    """What a search has done.

    Attributes:
        executions: How many there were.
        failure: The first one that failed, with a plan that repeats it.
        reached: What was tried: pairs of a site and a kind of fault, of a task and a
            moment of rest.
        unreached: What the budget, or a failure, left untried of the same.
        complete: Whether everything within the bound was tried. Without a failure that
            is a proof, as far as the bound goes.
        left: How many plans are known that were not executed.
    """

    executions: int
    failure: Outcome | None = None
    reached: tuple[tuple[str, str], ...] = ()
    unreached: tuple[tuple[str, str], ...] = ()
    complete: bool = False
    left: int = 0


class Search:
    """Execute plans, count them, and keep the first that fails.

    Args:
        execute: What executes a plan.
        budget: After how many executions to stop, or what says whether to go on.
    """

    def __init__(self, execute: Execute, budget: Budget = None) -> None:
        if isinstance(budget, int) and budget < 1:
            msg = f"budget={budget!r} must be 1 or more executions"
            raise ValueError(msg)
        self._execute = execute
        self._budget = budget
        self.executions: int = 0
        self.failure: Outcome | None = None

    def may_go_on(self) -> bool:
        """Tell whether the budget allows one more execution."""
        if self._budget is None:
            return True
        if isinstance(self._budget, int):
            return self.executions < self._budget
        return self._budget()

    def run(self, plan: Plan, choose: Chooser | None = None) -> Outcome:
        """Execute a plan.

        Args:
            plan: What goes wrong, and which events come first.
            choose: Decides instead of the plan's schedule.
        """
        self.executions += 1
        return self.judge(self._execute(plan, choose))

    def judge(self, outcome: Outcome) -> Outcome:
        """Keep an outcome if it is the first that failed.

        Args:
            outcome: Of an execution, perhaps of an earlier search.
        """
        if outcome.verdict is not None and self.failure is None:
            self.failure = outcome._replace(plan=normalise(outcome))
        return outcome
