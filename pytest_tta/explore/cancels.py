"""Cancellation of each task at each moment of rest: from outside, while it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.explore.orders import normalise
from pytest_tta.explore.plan import Cancellation
from pytest_tta.explore.searching import Search, SearchReport

if TYPE_CHECKING:
    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.searching import Budget

__all__ = ["search_cancellations"]


def search_cancellations(
    execute: Execute,
    outcome: Outcome,
    *,
    budget: Budget = None,
    shard: tuple[int, int] = (0, 1),
) -> SearchReport:
    """Repeat an execution and cancel in it each task, at each moment of rest.

    What the test itself runs comes first, then the others, moment by moment. Pairs in
    the report are of a task and the number of a moment.

    Args:
        execute: What executes a plan.
        outcome: Of the execution to repeat.
        budget: After how many executions to stop, or what says whether to go on.
        shard: Which part of the cancellations, from 0, and of how many parts.

    Raises:
        ValueError: The shard or the budget makes no sense.
    """
    if not 0 <= shard[0] < shard[1]:
        msg = f"shard={shard!r} must be which part, from 0, and how many there are"
        raise ValueError(msg)
    plan = normalise(outcome)
    wanted = _cancellations(outcome)[shard[0] :: shard[1]]
    search = Search(execute, budget)
    reached = 0
    for cancellation in wanted:
        if not search.may_go_on():
            break
        search.run(plan._replace(cancellation=cancellation))
        reached += 1
        if search.failure is not None:
            break
    pairs = [(one.task, str(one.point)) for one in wanted]
    return SearchReport(
        search.executions,
        search.failure,
        tuple(pairs[:reached]),
        tuple(pairs[reached:]),
        search.failure is None and reached == len(wanted),
        len(wanted) - reached,
    )


def _cancellations(outcome: Outcome) -> list[Cancellation]:
    found = [
        Cancellation(task, point)
        for point, tasks in enumerate(outcome.rests)
        for task in tasks
    ]
    return sorted(found, key=lambda one: one.task != "main")
