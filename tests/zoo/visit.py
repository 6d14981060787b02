"""Search a bug of the zoo as `--tta-explore` does, and see what comes of it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.explore.campaign import seed_for
from pytest_tta.explore.execution import Subject
from pytest_tta.explore.hunt import Hunt
from pytest_tta.explore.line import from_line, to_line
from pytest_tta.explore.options import SchedulesAsked, SweepAsked, Wanted
from pytest_tta.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.explore.outcome import Outcome
    from tests.zoo.bug import Bug

__all__ = ["DEFAULTS", "Visit", "replayed", "visit"]

DEFAULTS = Wanted(is_marked=False, sweep=SweepAsked(), schedules=SchedulesAsked())
"""What a bare `--tta-explore` asks for."""


class Visit(NamedTuple):
    """What came of the search for a bug.

    Attributes:
        found: The smallest execution that fails; None if none was found.
        via: The search that found it; empty if none did.
        first: After how many executions the bug was found.
        executions: How many there were, shrinking included.
        seconds: The time of the processor for all of them.
        hunt: The search itself.
    """

    found: Outcome | None
    via: str
    first: int
    executions: int
    seconds: float
    hunt: Hunt

    @property
    def line(self) -> str:
        """The line that brings it back; empty if nothing was found."""
        return to_line(self.found.plan) if self.found is not None else ""

    @property
    def size(self) -> str:
        """How small it has become, in words."""
        if self.found is None:
            return ""
        plan = self.found.plan
        parts = {
            "fault": len(plan.faults),
            "cancellation": int(plan.cancellation is not None),
            "early limit": plan.schedule.early,
            "deviation": len(plan.schedule.deviations),
        }
        return ", ".join(f"{n} {what}" for what, n in parts.items() if n) or "nothing"


def _subject(harness: Harness, bug: Bug, build: object) -> Subject:
    body = partial(bug.body, harness, build)
    return Subject(harness, body, test_file=bug.body.__code__.co_filename)


def visit(
    bug: Bug, build: object, goes_on: Callable[[Hunt], bool] | None = None
) -> Visit:
    """Search one version of a bug with the defaults.

    Args:
        bug: The bug.
        build: The version with the bug, or the one without.
        goes_on: Says whether there are further rounds; None for no rounds.
    """
    with Harness() as harness:
        bug.body(harness, build)
        with _subject(harness, bug, build) as subject:
            hunt = Hunt(subject, DEFAULTS, seed_of=partial(seed_for, bug.name, 0))
            began = time.process_time()
            hunt.run(None if goes_on is None else lambda: goes_on(hunt))
            seconds = time.process_time() - began
    searches = [(via, one) for via, some in hunt.searches.items() for one in some]
    first = 2 + sum(one.executions for _, one in searches)
    last = searches[-1][0] if searches else "plain"
    found = hunt.found
    return Visit(found, last if found else "", first, hunt.executions, seconds, hunt)


def replayed(bug: Bug, build: object, line: str, times: int) -> list[Outcome]:
    """Execute what a line says, several times, as `--tta-replay` does.

    Args:
        bug: The bug.
        build: The version with the bug, or the one without.
        line: What to execute.
        times: How often.
    """
    plan = from_line(line)
    with Harness() as harness:
        bug.body(harness, build)
        with _subject(harness, bug, build) as subject:
            return [subject(plan) for _ in range(times)]
