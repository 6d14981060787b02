"""What became of each mutant, added up over tests, workers and machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pytest_tta.mutation.operators import Mutant

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fate", "Ledger", "State"]

State: TypeAlias = Literal["survived", "equivalent", "killed"]


class Fate(NamedTuple):
    """What became of one mutant.

    Attributes:
        killed_by: The test that noticed; empty if none did.
        reason: What that test said.
        is_apart: Whether a fault sweep tells it apart from the original, whatever the
            tests assert.
    """

    killed_by: str = ""
    reason: str = ""
    is_apart: bool = False

    @property
    def state(self) -> State:
        """What the report calls it.

        Nobody can kill a mutant that does the same as the original, so it counts in
        no score; whether it is one is known within the bound of the sweep alone.
        """
        if self.killed_by:
            return "killed"
        return "survived" if self.is_apart else "equivalent"

    def with_more(self, other: Fate) -> Fate:
        """Return what is known with what somebody else knows."""
        killed = self if self.killed_by else other
        is_apart = self.is_apart or other.is_apart
        return Fate(killed.killed_by, killed.reason, is_apart)


class Ledger:
    """The fates of all mutants of a session.

    Attributes:
        fates: By mutant, in the order in which they were made.
        notes: Which tests or workflows could not be used, each in a sentence.
        executions: How often tests were executed for it.
    """

    def __init__(self) -> None:
        self.fates: dict[Mutant, Fate] = {}
        self.notes: list[str] = []
        self.executions: int = 0

    def add(self, mutant: Mutant, fate: Fate) -> None:
        """Add what a test has found out about a mutant."""
        self.fates[mutant] = self.fates.get(mutant, Fate()).with_more(fate)

    def note(self, sentence: str) -> None:
        """Keep a sentence for the report, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def is_killed(self, mutant: Mutant) -> bool:
        """Tell whether a test has noticed a mutant already."""
        return bool(self.fates.get(mutant, Fate()).killed_by)

    def count(self, state: State) -> int:
        """Return how many mutants have ended so."""
        return sum(fate.state == state for fate in self.fates.values())

    @property
    def score(self) -> float | None:
        """The percentage that was killed of those that could be; None if none could."""
        killed = self.count("killed")
        visible = killed + self.count("survived")
        return 100.0 * killed / visible if visible else None

    def workflows(self) -> Iterator[tuple[str, list[tuple[Mutant, Fate]]]]:
        """Yield each workflow with its mutants, survivors first."""
        order: tuple[State, ...] = ("survived", "equivalent", "killed")
        by_name: dict[str, list[tuple[Mutant, Fate]]] = {}
        for mutant, fate in self.fates.items():
            by_name.setdefault(mutant.workflow, []).append((mutant, fate))
        for name in sorted(by_name):
            yield name, sorted(by_name[name], key=lambda m: order.index(m[1].state))

    def to_data(self) -> dict[str, Any]:
        """Return everything as plain data, for another process."""
        return {
            "fates": [[*mutant, *fate] for mutant, fate in self.fates.items()],
            "notes": self.notes,
            "executions": self.executions,
        }

    def merge(self, data: dict[str, Any]) -> None:
        """Add what another process has found out.

        Args:
            data: As `to_data` returned it there.
        """
        size = len(Mutant._fields)
        for row in data["fates"]:
            self.add(Mutant(*row[:size]), Fate(*row[size:]))
        for note in data["notes"]:
            self.note(note)
        self.executions += data["executions"]
