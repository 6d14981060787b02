"""Move time for threads that sleep while no loop can: none runs, or it is blocked."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from pytest_tta.clock.functions import REAL
from pytest_tta.clock.waits import still_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType
    from typing import TypeAlias

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.clock.timeline import Sleeper

    _Stand: TypeAlias = tuple[FrameType, int]

__all__ = ["Driver", "owner_waits", "pass_time", "wait_until_quiet"]

_real_ns: Callable[[], int] = REAL["monotonic_ns"]
_real_sleep: Callable[[float], None] = REAL["sleep"]
_LOOK_SECONDS = 0.0003
# A loop that runs moves time itself, unless its thread is blocked. That is seldom, and
# worth no more than a glance.
_GLANCE_SECONDS = 0.02
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
    """Be the thread that moves time while whoever should do so waits in a join."""

    def __init__(self, clock: VirtualClock) -> None:
        """Serve `clock`; the thread starts with the first sleeper that needs it."""
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # Held for as long as the thread may go on.
        self._leave = threading.Lock()
        self._leave.acquire()

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

    def end(self) -> None:
        """End the thread, if it runs, now that the clock has been left."""
        with self._lock:  # One that is about to start cannot be joined.
            thread = self._thread
        if thread is not None:
            self._leave.release()
            thread.join()

    def _drive(self) -> None:
        clock = self._clock
        pause = _GLANCE_SECONDS if clock.is_driven else 0.0
        while not self._leave.acquire(timeout=pause):
            sleeper = self._next()
            if sleeper is None:
                return
            pause = _GLANCE_SECONDS if clock.is_driven else _LOOK_SECONDS
            movers = clock.movers()
            # Loops ask who is at work as well, but none while its thread waits.
            if _all_wait(movers) and clock.holder() is None:
                self._wake(sleeper, movers)
                pause = _LOOK_SECONDS

    def _next(self) -> Sleeper | None:
        """Give the sleeper to wake next; without one the thread has come to its end."""
        with self._lock:
            found = self._clock.timeline.next_sleeper
            if found is None or not self._clock.is_active:
                self._thread = None
                return None
            return found

    def _wake(self, sleeper: Sleeper, movers: set[int | None]) -> None:
        """Move time to the end of a sleep, unless somebody else has moved it."""
        timeline = self._clock.timeline
        if timeline.next_sleeper is sleeper and self._clock.movers() == movers:
            before = timeline.elapsed_ns
            timeline.jump(sleeper.ns)
            if self._clock.is_driven:
                timeline.note_stall(before, goes_on=True)
            self._clock.wake_sleeper()


def owner_waits(clock: VirtualClock) -> bool:
    """Watch for a moment whether the clock's own thread waits for another one."""
    return _all_wait({clock.owner.ident})


def _all_wait(idents: Collection[int | None]) -> bool:
    """Watch for a moment whether all of some threads wait for others; False for none.

    Args:
        idents: Of the threads.
    """
    before = _stands(idents)
    longest = 0.0
    for stand in before:
        patience = _patience(stand)
        if patience is None:
            return False
        longest = max(longest, patience)
    _real_sleep(longest)
    return bool(before) and before == _stands(idents)


def _stands(idents: Collection[int | None]) -> list[_Stand | None]:
    frames = sys._current_frames()
    found = [frames.get(ident or 0) for ident in idents]
    return [None if frame is None else (frame, frame.f_lasti) for frame in found]


def _patience(found: _Stand | None) -> float | None:
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
