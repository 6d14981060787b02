"""Crashes that a test has scripted, and what it asked for and never came."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pytest_tta.clock.places import caller_spot, place
from pytest_tta.faults.schedules import Attempt, Schedule, first
from pytest_tta.fleet.conditions import CrashMoment, check_moment
from pytest_tta.paths import check_place, hint, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Script"]


@dataclass(slots=True)
class _Wanted:
    """Something that a test has scripted.

    Attributes:
        place: The path, the end of one or a pattern.
        where: The line that scripted it.
        moment: When a worker dies, None for a step that is only to be remote.
        schedule: At which deliveries.
        reached: How many deliveries there were.
        happened: How often it has happened.
    """

    place: str
    where: str
    moment: CrashMoment | None = None
    schedule: Schedule | None = None
    reached: int = 0
    happened: int = 0

    def __str__(self) -> str:
        if self.moment is None:
            return f"fleet.at({self.place!r}), at {self.where},"
        what = f"{self.place!r}, {self.moment!r}, when={self.schedule!r}"
        return f"fleet.crash_at({what}), scripted at {self.where},"


class Script:
    """What a test wants of its fleet: which steps are remote, and which crashes come.

    Args:
        seed: What schedules draw lots from.
    """

    def __init__(self, seed: int | str) -> None:
        self._seed = seed
        self._sites: list[_Wanted] = []
        self._crashes: list[_Wanted] = []
        self._counts: Counter[str] = Counter()

    def add_site(self, path: str) -> None:
        """Let a step be performed by the fleet."""
        self._sites.append(_Wanted(check_place("path", path), _caller()))

    def add_crash(self, path: str, moment: str, when: Schedule | None) -> None:
        """Let a worker die of a task.

        Raises:
            TypeError: `when` is no schedule.
            ValueError: The path or the moment is none.
        """
        schedule = first(1) if when is None else when
        if not isinstance(schedule, Schedule):
            msg = f"when={when!r} must be a schedule, for instance nth(2)"
            raise TypeError(msg)
        checked = check_moment("moment", moment)
        where = check_place("path", path)
        self._crashes.append(_Wanted(where, _caller(), checked, schedule))

    def is_site(self, path: str) -> bool:
        """Tell whether a step is performed by the fleet."""
        found = False
        for site in self._sites:
            if matches(site.place, path):
                site.happened += 1
                found = True
        return found

    def crash(self, path: str, at: float) -> CrashMoment | None:
        """Return when a worker dies of the delivery that it has just taken.

        Args:
            path: Of the task.
            at: When, in seconds since the fleet began.
        """
        self._counts[path] += 1
        # Those that are scripted for calls see deliveries, which have no call.
        attempt = Attempt(cast("Any", None), path, self._counts[path], at, self._seed)
        found: CrashMoment | None = None
        for crash in self._crashes:
            if matches(crash.place, path):
                crash.reached += 1
                schedule = cast("Schedule", crash.schedule)
                if schedule.strikes(attempt.for_fault("crash")):
                    crash.happened += 1
                    found = found or crash.moment
        return found

    @property
    def is_waiting(self) -> bool:
        """Whether something that was scripted has to happen still."""
        return any(not one.happened for one in (*self._sites, *self._crashes))

    def verify(self, known_paths: Iterable[str]) -> list[str]:
        """Return what was scripted and did not happen, each with the line that did it.

        Args:
            known_paths: Paths of positions that exist.
        """
        known = {*known_paths, *self._counts}
        owed = [one for one in (*self._sites, *self._crashes) if not one.happened]
        return [_problem(one, known) for one in owed]


def _problem(wanted: _Wanted, known: set[str]) -> str:
    if wanted.reached:
        count = wanted.reached
        deliveries = "1 delivery" if count == 1 else f"{count} deliveries"
        return f"{wanted} never happened: {wanted.schedule!r} is none of {deliveries}"
    if any(matches(wanted.place, path) for path in known):
        return f"{wanted} was never reached: no task came from there"
    return f"{wanted} was never reached: no such position; {hint(wanted.place, known)}"


def _caller() -> str:
    """Return the user's line that is scripting something."""
    return place(caller_spot("pytest_tta.fleet."))
