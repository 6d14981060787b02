"""How many of the orders of a schedule it takes: as told in a report."""

from __future__ import annotations

import pytest

from pytest_tta.clock.choices import Choice, Chooser, Unit
from pytest_tta.explore.needed import needed_orders
from pytest_tta.explore.outcome import Execute, Outcome, Verdict
from pytest_tta.explore.plan import Plan

OLD, NEW = Unit("op", 1, "old", 1, 1), Unit("op", 2, "new", 1, 2)
BROKEN = Verdict("assertion", "no", "test_x.py:1")


def execute_that_needs(number: int, verdict: Verdict = BROKEN) -> Execute:
    """Return what fails if the new came so often before the old."""

    def execute(plan: Plan, choose: Chooser | None = None) -> Outcome:
        assert choose is not None
        overtaken = sum(choose((OLD, NEW)) for _ in range(5))
        return Outcome(plan, verdict if overtaken >= number else None)

    return execute


@pytest.mark.parametrize("needed", [0, 1, 2, 3])
def test_what_comes_after_the_orders_that_it_takes_is_not_counted(needed: int) -> None:
    """From some choice on the oldest may come first, and the same breaks."""
    taken = (1, 0, 1, 1)
    choices = tuple(Choice((OLD, NEW), one, -1) for one in taken)
    found = Outcome(Plan(), BROKEN, choices=choices)
    assert needed_orders(execute_that_needs(needed), found) == needed


def test_what_breaks_otherwise_does_not_count() -> None:
    """Another failure is not the one that is told."""
    found = Outcome(Plan(), BROKEN, choices=(Choice((OLD, NEW), 1, -1),))
    other = Verdict("deadlock", "all wait")
    assert needed_orders(execute_that_needs(0, other), found) == 1


def test_a_choice_that_is_no_more_there_is_the_oldest() -> None:
    """What is offered may be less than it was, after another order."""

    def execute(plan: Plan, choose: Chooser | None = None) -> Outcome:
        assert choose is not None
        assert [choose((OLD, NEW)[:1]) for _ in range(3)] == [0, 0, 0]
        return Outcome(plan, None)

    choices = (Choice((OLD, NEW), 1, -1),) * 2
    assert needed_orders(execute, Outcome(Plan(), BROKEN, choices=choices)) == 2
