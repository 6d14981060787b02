"""The exploration of one test: failures that are kept first, then the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.explore.line import from_line, to_line
from pytest_tta.explore.replay import hash_seed_here, tree_note
from pytest_tta.explore.report import finding_lines
from pytest_tta.report.texts import clean, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_tta.explore.failures import FailureStore, State, Stored
    from pytest_tta.explore.hunt import Hunt
    from pytest_tta.explore.outcome import Outcome
    from pytest_tta.explore.plan import Plan
    from pytest_tta.explore.witness import Witness
    from pytest_tta.report.record import ExplorationRecord, StoredFailure

__all__ = ["Inquiry"]

_UNKNOWN_HASHES = (
    "if the order of a set matters, search with PYTHONHASHSEED=0, and the line has it"
)
_NO_NAMES: Mapping[str, bool] = {}


class Inquiry:
    """Explores one test, keeps what was found, and says what came of it.

    Args:
        hunt: Executes the test.
        store: The failures of the test; None to keep none.
        node_id: The test.
        tree_of: Returns the digest of the workflows that were executed; empty if it is
            not known.
        seed: Of the test, for plans that have none of their own.
        reached: What is sometimes so, by name, and whether it was in any execution.

    Attributes:
        hunt: As given.
        kept: What came of the failures that were kept, as plain data.
        replayed: What came of the line that was to be replayed; empty without one.
        notes: What else is to be said of a finding.
        witness: What was seen when the finding was executed once more; None if it was
            not.
    """

    def __init__(
        self,
        hunt: Hunt,
        store: FailureStore | None,
        *,
        node_id: str,
        tree_of: Callable[[], str],
        seed: int = 0,
        reached: Mapping[str, bool] = _NO_NAMES,
    ) -> None:
        self.hunt = hunt
        self.kept: list[StoredFailure] = []
        self.replayed: str = ""
        self.notes: list[str] = []
        self.witness: Witness | None = None
        self._store = store
        self._node_id = node_id
        self._tree_of = tree_of
        self._seed = seed
        self._reached = reached

    def search(self, goes_on: Callable[[], bool] | None = None) -> None:
        """Try what is kept, and search if all of that holds now.

        Args:
            goes_on: Says whether there is time for further rounds; None for no rounds.
        """
        for stored in self._store.load() if self._store is not None else ():
            self._try_again(stored)
        if self.hunt.found is None:
            self.hunt.run(goes_on)
            self._keep()

    def replay(self, plan: Plan) -> None:
        """Execute one plan instead of searching.

        Args:
            plan: The plan.
        """
        outcome = self.hunt.replay(plan)
        note = tree_note(plan, self._tree_of())
        notes = [note] if note else []
        if _strikes_nothing(outcome):
            sites = ", ".join(fault.site for fault in plan.faults)
            notes.append(f"no call came to {sites}, so that nothing went wrong")
        self.notes += notes
        holds = self.hunt.found is None
        if holds and plan.hash_seed is None and hash_seed_here() is None:
            notes.append(_UNKNOWN_HASHES)
        told = ["holds now", *notes] if holds else ["still fails"]
        self.replayed = "; ".join(told)

    def _try_again(self, stored: Stored) -> None:
        """Execute a plan that failed before; one failure at a time is enough."""
        try:
            plan = from_line(stored.line)
        except ValueError:
            self._note(stored, "unreadable")
            return
        if self.hunt.found is not None:
            return
        outcome = self.hunt.replay(plan)
        note = tree_note(plan, self._tree_of())
        if outcome.verdict is not None:
            self.notes += [note] if note else []
            self._note(stored, "still failing")
        else:
            is_stale = bool(note) and _strikes_nothing(outcome)
            self._note(stored, "stale" if is_stale else "fixed")

    def _note(self, stored: Stored, state: State) -> None:
        self.kept.append(
            {"state": state, "line": stored.line, "path": str(stored.path)}
        )
        if self._store is not None:
            try:
                self._store.note(stored, state)
            except OSError as error:
                self.notes.append(f"this failure could not be kept: {error}")

    def _keep(self) -> None:
        """Keep what was found, with what it takes to bring it back, if that does."""
        found = self.found
        if found is None or found.verdict is None or self._store is None:
            return
        if found.verdict.kind == "not deterministic":
            return
        try:
            self._store.keep(to_line(found.plan._replace(input="")), found.verdict)
        except OSError as error:
            self.notes.append(f"this failure could not be kept: {error}")

    @property
    def found(self) -> Outcome | None:
        """The smallest execution that fails, with all that its line needs."""
        found = self.hunt.found
        if found is None:
            return None
        plan = found.plan
        if plan.hash_seed is None:
            plan = plan._replace(hash_seed=hash_seed_here())
        seed = plan.seed or self._seed
        return found._replace(plan=plan._replace(seed=seed, tree=self._tree_of()))

    def text(self) -> str:
        """Return the report of what was found; empty if nothing was."""
        found = self.found
        if found is None:
            return ""
        notes = [*self.hunt.remarks, *self.notes, *self._how_found()]
        lines = finding_lines(
            found, self.hunt.plain, self._node_id, notes=notes, witness=self.witness
        )
        return "\n".join(lines)

    def _how_found(self) -> list[str]:
        if self.replayed:
            return []
        if not self.hunt.searches and self.kept:
            return ["found in an earlier run, and tried first"]
        return [f"found in {self.hunt.executions:,} executions"]

    def _all_orders(self) -> bool | None:
        """Tell whether all orders of events were tried; None if nobody asked."""
        asked = self.hunt.wanted.schedules
        done = self.hunt.searches.get("schedules")
        if asked is None or not asked.exhaustive or not done:
            return None
        return done[0].complete

    def facts(self) -> ExplorationRecord:
        """Return what came of it, as plain data for reports and other plugins."""
        searches = [one for done in self.hunt.searches.values() for one in done]
        reached = {":".join(pair) for one in searches for pair in one.reached}
        unreached = {":".join(pair) for one in searches for pair in one.unreached}
        found = self.found
        verdict = None if found is None else found.verdict
        return {
            "executions": self.hunt.executions,
            "rounds": self.hunt.rounds,
            "all_orders": self._all_orders(),
            "reached": sorted(reached),
            "unreached": sorted(unreached - reached),
            "not_judged": self.hunt.unjudged,
            "never": [name for name, was_so in self._reached.items() if not was_so],
            "failures": self.kept,
            "replay": self.replayed,
            "verdict": verdict
            and {
                "kind": verdict.kind,
                "text": clean(redacted(verdict.text)),
                "where": verdict.where,
            },
            "line": self._line(found),
            "deeper": self.hunt.deeper,
            "idle": self.hunt.idle,
        }

    def _line(self, found: Outcome | None) -> str | None:
        """Return the line that brings back what was found, if that is possible."""
        if found is None or found.verdict is None:
            return None
        is_lasting = found.verdict.kind != "not deterministic"
        return to_line(found.plan) if is_lasting else None


def _strikes_nothing(outcome: Outcome) -> bool:
    """Tell whether a plan has faults, and none of their sites is there any more."""
    sites = {call.site for call in outcome.calls}
    faults = outcome.plan.faults
    return bool(faults) and not any(fault.site in sites for fault in faults)
