"""Cancellation of each task at each moment of rest."""

from __future__ import annotations

import pytest

from pytest_tta.explore.cancels import search_cancellations
from pytest_tta.explore.plan import Cancellation, Plan
from tests.explore.toys import Toy


def permit():
    """Give a permit back, but not where it is cancelled while it asks."""
    held = []

    def main():
        yield "before"
        held.append(1)
        yield "ask"
        try:
            yield "work"
        finally:
            held.clear()

    def other():
        yield "other"

    def check() -> None:
        assert not held, "a permit is lost"

    return [main(), other()], check


def test_each_task_is_cancelled_at_each_moment() -> None:
    """The test's own task first, then the others, moment by moment."""
    seen = []
    toy = Toy(permit)

    def execute(plan, choose=None):
        seen.append(plan.cancellation)
        return toy(plan, choose)._replace(verdict=None)

    report = search_cancellations(execute, toy(Plan()))
    assert (
        seen
        == [
            Cancellation("main", 0),
            Cancellation("main", 1),
            Cancellation("main", 2),
            Cancellation("main", 3),
            Cancellation("task-1", 0),
            Cancellation("task-1", 1),
        ][: len(seen)]
    )
    assert report.executions == len(seen) == len(report.reached)
    assert report.complete
    assert report.unreached == ()


def test_the_moment_that_loses_a_permit_is_found() -> None:
    """Between taking it and the block that gives it back."""
    toy = Toy(permit)
    report = search_cancellations(toy, toy(Plan()))
    assert report.failure.plan.cancellation.task == "main"
    assert "a permit is lost" in toy(report.failure.plan).verdict.text
    assert not report.complete
    assert report.left == len(report.unreached) > 0


def test_the_execution_that_is_repeated_keeps_its_order() -> None:
    """Whoever chose in it: the cancellation comes in the same execution."""
    toy = Toy(permit)
    outcome = toy(Plan(), lambda units: len(units) - 1)
    schedules = []

    def execute(plan, choose=None):
        schedules.append(plan.schedule)
        return toy(plan, choose)

    search_cancellations(execute, outcome)
    assert len(set(schedules)) == 1
    assert schedules[0].deviations


def test_a_budget_says_what_it_left() -> None:
    """Pairs of a task and a moment that nobody tried."""
    toy = Toy(permit)
    report = search_cancellations(toy, toy(Plan()), budget=1)
    assert report.reached == (("main", "0"),)
    assert report.unreached[0] == ("main", "1")
    assert not report.complete


def test_parts_of_the_work_share_no_cancellation() -> None:
    """Together they are the whole."""
    toy = Toy(lambda: (permit()[0], lambda: None))
    whole = search_cancellations(toy, toy(Plan()))
    parts = [search_cancellations(toy, toy(Plan()), shard=(n, 2)) for n in range(2)]
    assert sorted(parts[0].reached + parts[1].reached) == sorted(whole.reached)


def test_a_part_that_does_not_exist_is_an_error() -> None:
    """The message shows what was given, and what it should be."""
    toy = Toy(permit)
    with pytest.raises(ValueError, match=r"shard=\(1, 1\) must be which part, from 0"):
        search_cancellations(toy, toy(Plan()), shard=(1, 1))
