"""Move time for threads that sleep while no loop is running."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from pytest_tta.clock.functions import REAL
from pytest_tta.clock.waits import still_waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.clock.timeline import Sleeper

__all__ = ["Driver", "owner_waits", "pass_time", "wait_until_quiet"]

_real_ns: Callable[[], int] = REAL["monotonic_ns"]
_real_sleep: Callable[[float], None] = REAL["sleep"]
_LOOK_SECONDS = 0.0003
_LIMITED_WAIT_SECONDS = 0.005
_WAITING_MODULES = frozenset({"concurrent", "multiprocessing", "queue", "threading"})


def wait_until_quiet(clock: VirtualClock) -> None:
    """Wait in real time until no worker thread is at work, or the cap is reached."""
    began = _real_ns()
    while (holder := clock.holder()) is not None:
        if _real_ns() - began > clock.hold_cap_ns:
            clock.note_once(f"time moved while {holder} was still at work")
            return
        _real_sleep(_LOOK_SECONDS)


def pass_time(clock: VirtualClock, target: int) -> None:
    """Wake the threads that sleep until `target` at most, each at its own instant."""
    if not clock.threads.alive():
        return
    timeline = clock.timeline
    wait_until_quiet(clock)
    while (sleeper := timeline.next_sleeper) is not None and sleeper.ns <= target:
        timeline.jump(sleeper.ns)
        clock.wake_sleeper()
        wait_until_quiet(clock)


class Driver:
    """Be the thread that moves time while a test's own thread waits in a join."""

    def __init__(self, clock: VirtualClock) -> None:
        """Serve `clock`; the thread starts with the first sleeper that needs it."""
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Run while anybody sleeps."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(
                target=self._drive, name="pytest_tta clock", daemon=True
            )
            self._thread.start()
            # It is none of the test's threads, whoever started it.
            self._clock.threads.disown(self._thread)

    def _drive(self) -> None:
        while (sleeper := self._next()) is not None:
            if not self._clock.is_driven and self._is_quiet():
                self._wake(sleeper)
            _real_sleep(_LOOK_SECONDS)

    def _next(self) -> Sleeper | None:
        """Give the sleeper to wake next; without one the thread has come to its end."""
        with self._lock:
            found = self._clock.timeline.next_sleeper
            if found is None or not self._clock.is_active:
                self._thread = None
                return None
            return found

    def _wake(self, sleeper: Sleeper) -> None:
        """Move time to the end of a sleep, unless somebody else has moved it."""
        timeline = self._clock.timeline
        if timeline.next_sleeper is sleeper and not self._clock.is_driven:
            timeline.jump(sleeper.ns)
            self._clock.wake_sleeper()

    def _is_quiet(self) -> bool:
        """Tell whether the owner and all workers wait for somebody else."""
        if self._clock.holder() is not None or not owner_waits(self._clock):
            return False
        return self._clock.holder() is None


def owner_waits(clock: VirtualClock) -> bool:
    """Watch for a moment whether the clock's own thread waits for another one."""
    before = _owner_frame(clock)
    patience = _patience(before)
    if patience is None:
        return False
    _real_sleep(patience)
    return _same(before, _owner_frame(clock))


def _owner_frame(clock: VirtualClock) -> tuple[FrameType, int] | None:
    frame = sys._current_frames().get(clock.owner.ident or 0)
    return None if frame is None else (frame, frame.f_lasti)


def _same(
    before: tuple[FrameType, int] | None, after: tuple[FrameType, int] | None
) -> bool:
    if before is None or after is None:
        return before is after
    return before[0] is after[0] and before[1] == after[1]


def _patience(found: tuple[FrameType, int] | None) -> float | None:
    """Tell for how long to watch a thread before it counts as waiting.

    None means that it does not wait. Of a wait with a time limit nobody can tell
    whether it is over already, so it must be seen to last.
    """
    if found is None:
        return _LOOK_SECONDS
    frame = found[0]
    waits = still_waiting(frame)
    if waits is not None:
        return _LOOK_SECONDS if waits() else None
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return _LIMITED_WAIT_SECONDS if module in _WAITING_MODULES else None
