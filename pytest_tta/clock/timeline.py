"""Keep virtual time in whole nanoseconds, with the log of what waited for it."""

from __future__ import annotations

import heapq
import threading
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.clock.sleeps import Kind, Row, SleepLog, SleepRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.clock.places import Spot

__all__ = ["NEVER", "SECOND", "Moment", "Sleeper", "Timeline", "to_ns"]

SECOND = 1_000_000_000
NEVER = 1 << 100
"""The instant that does not come; `call_later(math.inf)` is legal and means it."""

_HORIZON = 1e12


def to_ns(seconds: float) -> int:
    """Convert seconds to whole nanoseconds; thirty thousand years are `NEVER`.

    Raises:
        TypeError: `seconds` is not a number.
        ValueError: `seconds` is not a number's value (nan).

    """
    if type(seconds) is int:
        return seconds * SECOND
    if seconds >= _HORIZON:
        return NEVER
    if seconds <= -_HORIZON:
        return -NEVER
    return round(seconds * 1e9)


class Sleeper:
    """Be a thread that sleeps in virtual time."""

    __slots__ = ("gate", "name", "ns", "seq", "thread")

    def __init__(self, ns: int, seq: int, thread: threading.Thread) -> None:
        """Close the gate behind which `thread` waits until `ns`."""
        self.ns: int = ns
        self.seq: int = seq
        self.thread: threading.Thread = thread
        self.gate: threading.Lock = threading.Lock()
        self.gate.acquire()

    def __lt__(self, other: Sleeper) -> bool:
        """Order by instant, then by who slept first."""
        return (self.ns, self.seq) < (other.ns, other.seq)


class Moment(NamedTuple):
    """All that a timeline knows at one moment, to return to.

    Attributes:
        now_ns: The present.
        start_ns: What the present was when the clock started.
        jumps: How often time was moved.
        number: The next number of a wait.
        rows: How many lines the log has.
        withdrawn: Which waits were given up, and when.
        woken: Which threads were woken, and when.
        stalls: How many stalls there were.
    """

    now_ns: int
    start_ns: int
    jumps: int
    number: int
    rows: int
    withdrawn: dict[int, int]
    woken: dict[int, int]
    stalls: int


class Timeline:
    """Keep the present, the sleeping threads and the log of waits.

    It knows nothing of selectors or sockets: every loop whose time is virtual can
    share it.

    Attributes:
        now_ns: The present, as `loop.time()` and `time.monotonic_ns` show it.
        now: The same in seconds; kept beside, because it is read far more often.
        start_ns: What `now_ns` was when the clock started.
        jumps: How often time was moved.

    """

    __slots__ = (
        "_numbers",
        "_rows",
        "_sleepers",
        "_stalls",
        "_withdrawn",
        "_woken",
        "jumps",
        "now",
        "now_ns",
        "start_ns",
    )

    def __init__(self, start_ns: int = 0) -> None:
        """Start at `start_ns` nanoseconds."""
        self.now_ns: int = start_ns
        self.start_ns: int = start_ns
        self.now: float = start_ns / SECOND
        self.jumps: int = 0
        self._numbers = count()
        self._rows: list[Row] = []
        self._withdrawn: dict[int, int] = {}
        self._woken: dict[int, int] = {}
        self._stalls: list[tuple[int, int]] = []
        self._sleepers: list[Sleeper] = []

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds since the start."""
        return self.now_ns - self.start_ns

    def rebase(self, now_ns: int) -> None:
        """Let the present show `now_ns` without any time passing."""
        self.start_ns += now_ns - self.now_ns
        self.now_ns = now_ns
        self.now = now_ns / SECOND

    def show(self, ns: int) -> None:
        """Show `ns` from now on, be it before the present."""
        self.now_ns = ns
        self.now = ns / SECOND

    def jump(self, ns: int) -> None:
        """Move to the instant `ns`; an instant that has passed changes nothing."""
        self.jumps += 1
        if ns > self.now_ns:
            self.now_ns = ns
            self.now = ns / SECOND

    def creep(self, ns: int) -> None:
        """Move to `ns` as real time does, which is no jump."""
        if ns > self.now_ns:
            self.now_ns = ns
            self.now = ns / SECOND

    def stall(self, duration_ns: int) -> None:
        """Let time pass while nobody is served: what was due is late."""
        before = self.elapsed_ns
        self.jump(self.now_ns + duration_ns)
        self.note_stall(before)

    def note_stall(self, since_ns: int, *, goes_on: bool = False) -> None:
        """Note that no loop was served since an instant, counted from the start.

        Args:
            since_ns: The instant.
            goes_on: Whether the last stall has gone on, if it ended there.
        """
        if goes_on and self._stalls and self._stalls[-1][1] == since_ns:
            since_ns = self._stalls.pop()[0]
        self._stalls.append((since_ns, self.elapsed_ns))

    def moment(self) -> Moment:
        """Remember all of this, so that `rewind` can return to it."""
        number = next(self._numbers)
        self._numbers = count(number)
        return Moment(
            self.now_ns,
            self.start_ns,
            self.jumps,
            number,
            len(self._rows),
            dict(self._withdrawn),
            dict(self._woken),
            len(self._stalls),
        )

    def rewind(self, moment: Moment) -> None:
        """Return to a moment of this timeline; threads that sleep wake at once."""
        self.now_ns, self.start_ns, self.jumps, number = moment[:4]
        self.now = self.now_ns / SECOND
        self._numbers = count(number)
        del self._rows[moment.rows :]
        self._withdrawn = dict(moment.withdrawn)
        self._woken = dict(moment.woken)
        del self._stalls[moment.stalls :]
        self.release_sleepers()

    # --- who waits -----------------------------------------------------------

    def record(
        self,
        delay: float,
        kind: Kind,
        who: str | None,
        spot: Spot | None,
        path: str | None,
    ) -> int:
        """Log a wait that begins now; its number orders it among equals."""
        number = next(self._numbers)
        at = self.now_ns - self.start_ns
        self._rows.append((number, at, delay, kind, who, spot, path))
        return number

    def number(self) -> int:
        """Hand out the next number without a line in the log."""
        return next(self._numbers)

    def withdraw(self, number: int) -> None:
        """Note that a wait was given up now."""
        self._withdrawn[number] = self.now_ns - self.start_ns

    def add_sleeper(self, seconds: float, number: int) -> Sleeper:
        """Put the calling thread to bed until `seconds` from now."""
        ns = self.now_ns + to_ns(seconds)
        sleeper = Sleeper(ns, number, threading.current_thread())
        heapq.heappush(self._sleepers, sleeper)
        return sleeper

    def sleeping(self) -> list[int | None]:
        """List the idents of the threads that sleep."""
        return [sleeper.thread.ident for sleeper in self._sleepers]

    @property
    def next_sleeper(self) -> Sleeper | None:
        """The thread that wakes first."""
        return self._sleepers[0] if self._sleepers else None

    def pop_sleeper(self) -> Sleeper:
        """Take the thread that wakes first out of its bed, now."""
        sleeper = heapq.heappop(self._sleepers)
        self._woken[sleeper.seq] = self.elapsed_ns
        return sleeper

    def release_sleepers(self) -> None:
        """Let all threads go on that sleep, whatever time it is."""
        while self._sleepers:
            heapq.heappop(self._sleepers).gate.release()

    def drop_sleeper(self, sleeper: Sleeper) -> None:
        """Take a thread out of its bed, wherever it stands in the order."""
        if sleeper in self._sleepers:
            self._sleepers.remove(sleeper)
            heapq.heapify(self._sleepers)

    # --- the log -------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """The raw log."""
        return self._rows

    def sleeps(self) -> SleepLog:
        """Work out the log as users read it."""
        return SleepLog(self._records())

    def _records(self) -> Iterator[SleepRecord]:
        for row in self._rows:
            given_up = self._withdrawn.get(row[0])
            woke = self._woke(row) if given_up is None else given_up / SECOND
            yield SleepRecord.from_row(
                row, cancelled=given_up is not None, woke_at=woke
            )

    def _woke(self, row: Row) -> float | None:
        """Work out when a wait ended that nobody gave up."""
        due = self._woken.get(row[0])
        if due is None:
            due = row[1] + max(to_ns(row[2]), 0)
            if due > self.elapsed_ns:
                return None
            if row[3] != "blocking":
                due = self._served(due)
        return due / SECOND

    def _served(self, due: int) -> int:
        """Work out when a loop came to what was due at an instant.

        What was due when a stall began is taken for served: as a rule it has led to it.
        """
        for begin, end in self._stalls:
            if begin < due < end:
                due = end
        return due
