"""Record what was waited for: how long, of what kind, by whom and where."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pytest_tta.clock.places import Spot, place
from pytest_tta.paths import matches

__all__ = ["Kind", "Row", "SleepLog", "SleepRecord"]

Kind = Literal["sleep", "timeout", "wait", "timer", "thread", "blocking"]

Row = tuple[int, int, float, Kind, str | None, Spot | None, str | None]
"""What is kept while the test runs: number, elapsed ns, delay, kind, task, spot, path.

Everything dear (lines, names of files) is worked out when somebody reads the log.
"""


class SleepRecord(NamedTuple):
    """Describe one wait that was scheduled while a clock was active.

    Attributes:
        at: Virtual seconds since the clock started, when it was scheduled.
        delay: Seconds to wait, exactly as the caller gave them.
        kind: `sleep` (asyncio.sleep), `timeout` (asyncio.timeout, wait_for, anyio's),
            `wait` (asyncio.wait), `timer` (call_later, call_at), `thread` (time.sleep
            in a worker thread) or `blocking` (time.sleep in the loop's own thread).
        task: Name of the task, or of the thread, that waits.
        where: File, line and function of the innermost line of the user's own code.
        path: Path of the primitive that waits, where there is one.
        cancelled: Whether it was given up before it was due.
        woke_at: Virtual seconds when it ended, None while it lasts.

    """

    at: float
    delay: float
    kind: Kind
    task: str | None
    where: str
    path: str | None = None
    cancelled: bool = False
    woke_at: float | None = None

    @classmethod
    def from_row(
        cls, row: Row, *, cancelled: bool, woke_at: float | None
    ) -> SleepRecord:
        """Work out what a raw row means."""
        _, at, delay, kind, task, spot, path = row
        return cls(
            at / 1_000_000_000, delay, kind, task, place(spot), path, cancelled, woke_at
        )

    def __str__(self) -> str:
        """Write one readable line."""
        who = self.path or self.task or "callback"
        end = " (cancelled)" if self.cancelled else ""
        return (
            f"{self.at:g} s: {self.kind} {self.delay:g} s by {who} at {self.where}{end}"
        )


class SleepLog(list[SleepRecord]):
    """Hold the waits of a run in the order in which they were scheduled."""

    @property
    def delays(self) -> list[float]:
        """List the delays alone: `clock.sleeps.delays == [1, 2, 4, 8]`."""
        return [record.delay for record in self]

    def by(
        self,
        *,
        task: str | None = None,
        kind: Kind | None = None,
        path: str | None = None,
    ) -> SleepLog:
        """Select the waits of one task, kind or primitive path.

        Args:
            task: The name of the task that waited.
            kind: What the wait was for.
            path: The primitive that waited: its path, the end of one, or a pattern
                with `*` for one label and `**` for several.

        Raises:
            ValueError: There is no such kind.
        """
        if kind is not None and kind not in get_args(Kind):
            kinds = ", ".join(map(repr, get_args(Kind)))
            msg = f"kind={kind!r} must be one of {kinds}"
            raise ValueError(msg)
        return SleepLog(
            record
            for record in self
            if task in (None, record.task)
            and kind in (None, record.kind)
            and (path is None or matches(path, record.path or ""))
        )

    def __repr__(self) -> str:
        """Write one line per wait, as a failing comparison shows it."""
        lines = "".join(f"\n  {record}" for record in self)
        return f"<SleepLog of {len(self)}{':' if lines else ''}{lines}>"
