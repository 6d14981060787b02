"""The order in which a test is searched: what is cheap and plain comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pytest_tta.explore.cancels import search_cancellations
from pytest_tta.explore.differences import first_difference
from pytest_tta.explore.exhaustive import exhaust
from pytest_tta.explore.footprints import Footprints
from pytest_tta.explore.idle import idle_text
from pytest_tta.explore.outcome import Verdict
from pytest_tta.explore.plan import FaultAt, Plan, Schedule
from pytest_tta.explore.report import said_of
from pytest_tta.explore.schedules import search_schedules
from pytest_tta.explore.shrink import shrink
from pytest_tta.explore.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.options import SchedulesAsked, Wanted
    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.searching import SearchReport

__all__ = ["Hunt", "Via"]

Via: TypeAlias = Literal["plain", "replay", "sweep", "schedules", "cancellations"]

_ROUND = 200
# What is raised where something is there already.
_OF_OLD_STATE = frozenset({"FileExistsError", "IntegrityError", "OperationalError"})


class Hunt:
    """Executes a test until something breaks, or all that was asked for is done.

    Args:
        execute: What executes a plan.
        wanted: What is asked for.
        seed_of: Returns the seed of a round, from 0.
        shard: Which part of the work this is, from 0, of how many.
        trees: Returns the workflows that were executed, as far as they are known.

    Attributes:
        wanted: As given.
        executions: How many there were.
        unjudged: In how many of them the test's own assertions had no say.
        plain: The execution without faults, oldest event first; None before there is
            one.
        found: The smallest execution that fails; None if none was found.
        searches: What each search has done.
        rounds: How many rounds there were after the defaults.
        remarks: What else is to be said of what was found.
        deeper: How many faults at once would reach what the sweep has not; None if it
            reached all, or had no time for it.
    """

    def __init__(
        self,
        execute: Execute,
        wanted: Wanted,
        *,
        seed_of: Callable[[int], int],
        shard: tuple[int, int] = (0, 1),
        trees: Callable[[], Sequence[Any]] = tuple,
    ) -> None:
        self._execute = execute
        self.wanted = wanted
        self._seed_of = seed_of
        self._shard = shard
        self._trees = trees
        self.executions: int = 0
        self.unjudged: int = 0
        self.plain: Outcome | None = None
        self.found: Outcome | None = None
        self.searches: dict[Via, list[SearchReport]] = {}
        self.rounds: int = 0
        self.remarks: list[str] = []
        self.deeper: int | None = None

    def execute(self, plan: Plan, choose: Chooser | None = None) -> Outcome:
        """Execute a plan, and count it.

        Args:
            plan: What goes wrong, and which events come first.
            choose: Decides instead of the plan's schedule.
        """
        outcome = self._execute(plan, choose)
        self.executions += 1
        self.unjudged += not outcome.is_judged
        return outcome

    def run(self, goes_on: Callable[[], bool] | None = None) -> None:
        """Search in order: plainly, faults, schedules, cancellations, further rounds.

        Args:
            goes_on: Says whether there is time for further rounds; None for no rounds.
        """
        self._plainly()
        for search in (self._faults, self._schedules, self._cancellations):
            if self.found is None:
                search()
        while goes_on is not None and self.found is None and goes_on():
            self._round(goes_on)

    def replay(self, plan: Plan) -> Outcome:
        """Execute one plan, and keep it if it fails.

        Args:
            plan: Of an earlier run.
        """
        outcome = self.execute(plan)
        # To compare with, if all goes well in it, and to know the workflows.
        plain = self.execute(Plan())
        if outcome.verdict is not None:
            self.found = outcome._replace(plan=plan)
            self.plain = plain if plain.verdict is None else None
        return outcome

    @property
    def stage(self) -> str:
        """What is tried now, in a word or two."""
        if self.rounds:
            return f"round {self.rounds}"
        if self.wanted.sweep is not None and "sweep" not in self.searches:
            return "faults"
        return "cancellations" if "schedules" in self.searches else "orders of events"

    def _plainly(self) -> None:
        """Execute the test twice as it is: what differs then is chance of its own."""
        plain, again = self.execute(Plan()), self.execute(Plan())
        if _group(again) != _group(plain) or again.digest != plain.digest:
            self.found = _differing(again, plain)
        elif plain.verdict is not None:
            self.found = plain
            self.remarks.append(_left_over(plain.verdict))
        else:
            self.plain = plain

    def _faults(self) -> None:
        asked = self.wanted.sweep
        if asked is not None:
            report = sweep(
                self.execute,
                depth=asked.depth,
                kinds=asked.faults,
                sites=asked.sites,
                budget=asked.budget,
                shard=self._shard,
            )
            self._take("sweep", report)
            if report.complete and asked.depth and report.unreached:
                self.deeper = asked.depth + 1

    @property
    def idle(self) -> str:
        """Why the sweep of the marker strikes nothing; empty if it does."""
        asked, plain = self.wanted.sweep, self.plain
        done = self.searches.get("sweep")
        if asked is None or plain is None or not done:
            return ""
        is_whole = done[0].complete and self._shard[1] == 1
        return idle_text(asked, plain.calls, done[0], is_whole=is_whole)

    def _schedules(self) -> None:
        asked = self.wanted.schedules
        if asked is None:
            return
        if asked.exhaustive:
            self._take("schedules", self._all_schedules(asked))
            return
        report = search_schedules(
            self.execute,
            asked.executions,
            seed=self._seed_of(0),
            modes=(asked.mode,),
            early=asked.early,
            shard=self._shard,
        )
        self._take("schedules", report)

    def _all_schedules(self, asked: SchedulesAsked) -> SearchReport:
        """Try all orders that make a difference, as far as the test says what does."""
        schedule = Schedule(mode=asked.mode, early=asked.early)
        return exhaust(
            self.execute,
            footprints=Footprints.of(*self._trees(), pure=asked.pure or ()),
            limit=asked.executions,
            base=Plan(schedule=schedule),
            shard=self._shard,
        )

    def _cancellations(self) -> None:
        if self.wanted.schedules is not None and self.plain is not None:
            report = search_cancellations(self.execute, self.plain, shard=self._shard)
            self._take("cancellations", report)

    def _round(self, goes_on: Callable[[], bool]) -> None:
        """Try other schedules, every second time while a call goes wrong."""
        self.rounds += 1
        asked = self.wanted.schedules
        report = search_schedules(
            self.execute,
            _ROUND,
            seed=self._seed_of(self.rounds),
            modes=(asked.mode,) if asked is not None else ("op",),
            early=asked.early if asked is not None else 1,
            base=self._base(),
            shard=self._shard,
            budget=goes_on,
        )
        self._take("schedules", report)

    def _base(self) -> Plan:
        if self.wanted.sweep is None or self.rounds % 2 or self.plain is None:
            return Plan()
        faults = [
            FaultAt(call.site, call.number, kind)
            for call in self.plain.calls
            for kind in call.kinds
        ]
        return Plan((faults[self.rounds // 2 % len(faults)],)) if faults else Plan()

    def _take(self, via: Via, report: SearchReport) -> None:
        """Keep what a search has done; make what it found small, and try it again."""
        self.searches.setdefault(via, []).append(report)
        if report.failure is not None:
            self.found = shrink(self.execute, report.failure)


def _differing(again: Outcome, before: Outcome) -> Outcome:
    """Return an outcome that says that two executions of one plan were not the same."""
    what = first_difference(again, before) or _broken(again, before)
    text = (
        f"two executions of the same plan differ: {what}. Something that is made once, "
        "such as a fixture or a module's variable, remembers the first, or chance, ids "
        "or time come from elsewhere than the harness"
    )
    return again._replace(verdict=Verdict("not deterministic", text))


def _left_over(verdict: Verdict) -> str:
    """Say of what fails although nothing was done to it what it may be."""
    kind = type(verdict.error).__name__ if verdict.error is not None else verdict.kind
    likely = "likely" if kind in _OF_OLD_STATE else "perhaps"
    return (
        f"the ordinary run passed, and now nothing was done to the test: {likely} it "
        "found what that run has left behind, since what is made once (a file, a row "
        "of a database, an attribute of a class, a module's variable) remembers it; "
        "make that in the body, under a new name each time"
    )


def _group(outcome: Outcome) -> str:
    return "" if outcome.verdict is None else outcome.verdict.group


def _broken(again: Outcome, before: Outcome) -> str:
    if again.seconds != before.seconds:
        return (
            f"the first took {before.seconds:g} virtual s, the other {again.seconds:g}"
        )
    said = [
        "all is well" if outcome.verdict is None else said_of(outcome.verdict)
        for outcome in (before, again)
    ]
    if said[0] == said[1]:
        return "in what was recorded of them"
    return f"first {said[0]}, then {said[1]}"
