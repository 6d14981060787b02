"""Where the steps of one run are recorded: the interface, and one in memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tta_primitives.durable.errors import SimulatedCrash

__all__ = ["Journal", "MemoryJournal"]


@runtime_checkable
class Journal(Protocol):
    """Keeps what the steps of one run have made, under the keys of the steps.

    A key is the path of a step with `@2` for a second execution at one place.
    """

    async def read(self) -> dict[str, str]:
        """Return all that was written, in the order in which it was."""
        ...

    async def write(self, key: str, record: str) -> None:
        """Keep a record, JSON text; when this returns it outlives the process."""
        ...


class MemoryJournal:
    """A journal in memory, which can simulate that the process dies.

    There are two moments at each record: moment 1 is after the effect of the first step
    and before its record is kept, moment 2 is after that.

    Args:
        crash_at: The moment at which the run ends with a `SimulatedCrash`, counted
            from 1 in each execution; None for never.

    Attributes:
        records: What was written, by key.
        crash_at: As above; set it before the next execution.
        moments: How many moments the last execution has had.
    """

    def __init__(self, *, crash_at: int | None = None) -> None:
        self.records: dict[str, str] = {}
        self.crash_at = crash_at
        self.moments: int = 0

    async def read(self) -> dict[str, str]:
        """Return all that was written; it begins another execution."""
        self.moments = 0
        return dict(self.records)

    async def write(self, key: str, record: str) -> None:
        """Keep a record, unless the process dies before."""
        self._pass_moment(f"before the record of {key!r}")
        self.records[key] = record
        self._pass_moment(f"after the record of {key!r}")

    def _pass_moment(self, what: str) -> None:
        self.moments += 1
        if self.moments == self.crash_at:
            msg = f"simulated at moment {self.moments}, {what}"
            raise SimulatedCrash(msg)

    def __repr__(self) -> str:
        return f"<MemoryJournal records={len(self.records)} crash_at={self.crash_at}>"
