"""How the tests of executions execute a body under one plan after the other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_tta import Harness
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_tta.explore.outcome import Outcome

__all__ = ["cancelling", "exploring", "faults", "outcome_of", "said", "schedule"]


@contextmanager
def exploring(
    body: Callable[[Harness], Any], *, seed: int = 0, **options: Any
) -> Iterator[Subject]:
    """Enter a subject for a body that takes the harness."""
    options.setdefault("test_file", body.__code__.co_filename)
    harness = Harness(seed=seed)
    with (
        harness.clock,
        harness.watching(),
        Subject(harness, lambda: body(harness), **options) as subject,
    ):
        yield subject


def outcome_of(
    body: Callable[[Harness], Any], plan: Plan | None = None, **options: Any
) -> Outcome:
    """Execute a body once, under one plan."""
    with exploring(body, **options) as subject:
        return subject(plan or Plan())


def faults(*texts: str) -> Plan:
    """Make a plan of faults from texts such as `pay#1:error`."""
    found = []
    for text in texts:
        site, _, rest = text.rpartition("#")
        number, _, kind = rest.partition(":")
        found.append(FaultAt(site, int(number), kind))
    return Plan(faults=tuple(found))


def cancelling(task: str, point: int) -> Plan:
    """Make a plan that cancels a task at a moment of rest."""
    return Plan(cancellation=Cancellation(task, point))


def schedule(
    *deviations: tuple[int, int], early: int = 0, order: Any = "oldest"
) -> Plan:
    """Make a plan that chooses otherwise at some points."""
    return Plan(schedule=Schedule("op", order, deviations, early))


def said(outcome: Outcome) -> str:
    """Return what was broken, as its kind and text; what came of it otherwise."""
    if outcome.verdict is None:
        return outcome.ended
    return f"{outcome.verdict.kind}: {outcome.verdict.text}"
