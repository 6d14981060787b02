"""How far a failing execution has to deviate from the order in which events come.

A schedule that is written in few words may overtake more often than it takes: in the
sticky order a task goes on as long as it can. The report tells only what matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.clock.choices import Chooser, Unit
    from pytest_tta.explore.outcome import Execute, Outcome

__all__ = ["needed_orders"]

_MOST_TRIED = 40


def needed_orders(execute: Execute, found: Outcome) -> int:
    """Return how many of its choices against the oldest an execution needs to fail.

    Args:
        execute: What executes a plan.
        found: The execution that fails.

    Returns:
        The number of choices, from the first, after which the oldest event may always
        come first, and the same breaks.
    """
    overtaking = [at for at, choice in enumerate(found.choices) if choice.taken]
    for needed, until in enumerate(overtaking[:_MOST_TRIED]):
        outcome = execute(found.plan, _oldest_after(found, until))
        if _group(outcome) == _group(found):
            return needed
    return len(overtaking)


def _oldest_after(found: Outcome, until: int) -> Chooser:
    """Choose as an execution did, and from one choice on the oldest."""
    point = -1

    def choose(units: Sequence[Unit]) -> int:
        nonlocal point
        point += 1
        taken = found.choices[point].taken if point < until else 0
        return taken if taken < len(units) else 0

    return choose


def _group(outcome: Outcome) -> str:
    return "" if outcome.verdict is None else outcome.verdict.group
