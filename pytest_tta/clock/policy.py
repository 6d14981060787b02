"""Decide when virtual time may move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_tta.clock import describe, errors
from pytest_tta.clock.driver import owner_waits
from pytest_tta.clock.functions import REAL
from pytest_tta.clock.outside import Holder, Standing
from pytest_tta.clock.timeline import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.clock.loop import VirtualLoop
    from pytest_tta.clock.selector import AskingSelector, Events

__all__ = ["Policy"]

_real_ns: Callable[[], int] = REAL["monotonic_ns"]

SPIN_ROUNDS = 100_000
"""Rounds of the loop at one instant, while a timer waits, that count as spinning."""

SPIN_ROUNDS_ALONE = 1_000_000
"""The same while no timer waits."""

GRACE_SECONDS = 0.02
"""Real time granted to open connections of the outside before each move."""

LOOPBACK_SECONDS = 0.002
"""Real time granted to bytes in flight where loopback is not instant."""

LAST_CHANCE_NS = 1_000_000_000
"""Real time in which the outside may still wake somebody, before a deadlock is one."""

_FIRST_WAIT = 0.0002
_LONGEST_WAIT = 0.002
_COARSE_FROM = 2.0**18
"""From here on the distance of two floats exceeds the loop's fine resolution."""


class _Hold:
    """Remember since when real work has been waited for.

    Attributes:
        since: Real nanoseconds when it began.
        progress: Real nanoseconds when something last came of it.
        virtual: The virtual instant at which it began.
        wait: Seconds to wait before the next look.

    """

    __slots__ = ("progress", "since", "virtual", "wait")

    def __init__(self, since: int, virtual: int) -> None:
        self.since = self.progress = since
        self.virtual = virtual
        self.wait = _FIRST_WAIT


class Policy:
    """Stand in for the selector of one loop while its time is virtual.

    The order of the questions matters: is anything ready; is anything at work
    outside; may anything still come from outside; does anybody wait for quiet; when
    is the next instant at which something is due?
    """

    def __init__(self, clock: VirtualClock, loop: VirtualLoop) -> None:
        """Serve `loop` with the time of `clock`."""
        self.clock = clock
        self._loop = loop
        self._timeline = clock.timeline
        self._selector: AskingSelector = loop.asking
        self._outside = loop.outside
        self._rounds = 0
        self._hold: _Hold | None = None
        self._stuck_since: int | None = None
        self._standing: VirtualLoop | None = None

    def forgive(self) -> None:
        """Start the guards anew, for tasks that clean up after an error."""
        self._timeline.jumps = self._rounds = 0
        self._hold = self._stuck_since = None

    # --- the selector's question ---------------------------------------------

    def select(self, timeout: float | None) -> Events:
        """Answer for the selector: what has come, now that nothing else is to do."""
        if timeout == 0:
            return self._between_callbacks()
        if self._is_alone():
            moved = self._move()
            if moved is not None:
                return moved
        return self._think()

    def _between_callbacks(self) -> Events:
        self._rounds += 1
        if self._rounds >= SPIN_ROUNDS:
            self._check_spin()
        if self._loop.woken or self._selector.outside:
            return self._poll()
        return []

    def _is_alone(self) -> bool:
        """Tell whether nothing outside the loop can matter; the way of most tests."""
        clock = self.clock
        return not (
            self._loop.woken
            or self._selector.outside
            or clock.has_wishes
            or self._outside.jobs
            or self._outside.processes
            or clock.threads.alive()
        )

    def _think(self) -> Events:
        """Look and wait until something came or time was moved."""
        try:
            return self._look_and_wait()
        finally:
            self._loop.rests = False

    def _look_and_wait(self) -> Events:
        granted = False
        while True:
            events = self._poll()
            if events or self._loop.has_ready:
                self._note_progress()
                return events
            if self._is_due():
                # Another loop, in another thread, has moved time.
                return []
            holder = self._holder()
            self._loop.rests = holder is None
            if holder is not None:
                found = self._wait_for(holder)
            elif self._loop.woken:
                # Whoever ended while we asked has left a result behind.
                continue
            elif self._others_are_at_work():
                self._hold = None
                found = self._listen(_LONGEST_WAIT) or None
            elif not granted and (grace := self._grace()):
                granted = True
                found = self._listen(grace) or None
            else:
                self._hold = None
                found = self._rest()
            if found is not None:
                return found

    def _poll(self) -> Events:
        if self._loop.woken or self._selector.outside:
            return self._listen(0)
        return []

    def _listen(self, seconds: float) -> Events:
        """Wait for I/O in real time."""
        if self._loop.woken:
            self._loop.rests = self._loop.woken = False
        events = self._selector.wait(seconds)
        if events:
            self._outside.answered(events)
        return events

    # --- work outside --------------------------------------------------------

    def _holder(self) -> Holder | None:
        """Name what is at work outside the loop, if anything is."""
        clock = self.clock
        found = clock.holder() or self._outside.working(
            self._loop, clock.known_threads()
        )
        if found is None and self.clock.io == "hold" and self._selector.outside:
            found = self._outside.asked()
        return found

    def _wait_for(self, holder: Holder) -> Events | None:
        """Wait a little in real time; the clock stands still, up to a limit."""
        now = _real_ns()
        hold = self._hold
        if hold is None:
            hold = self._hold = _Hold(now, self._timeline.now_ns)
        if self._is_overdue(hold, now):
            return self._move()
        if now - hold.progress > self.clock.hold_cap_ns and not self._may_take_long():
            raise self._error(errors.ClockHeld, self._held_text(holder))
        events = self._listen(hold.wait)
        hold.wait = min(2 * hold.wait, _LONGEST_WAIT)
        return events or None

    def _may_take_long(self) -> bool:
        return self._loop.winding_up or self.clock.is_real

    def _is_overdue(self, hold: _Hold, now: int) -> bool:
        """Tell whether as much real time has passed as the next timer is away.

        So a call that is too slow for its timeout does time out.
        """
        due = self._due_ns()
        if due is None or self._loop.winding_up or not self._may_move_to(due):
            return False
        if self.clock.running_loops()[0] is not self._loop:
            return False
        return due - hold.virtual <= now - hold.since

    # --- loops in other threads ----------------------------------------------

    def _is_due(self) -> bool:
        timers = self._loop.timers
        return bool(timers) and timers[0].ns <= self._timeline.now_ns

    def _others_are_at_work(self) -> bool:
        """Tell whether this loop has to leave time to others that share the clock.

        Only one loop moves it, when all of them rest; a test's own thread without a
        loop has to wait for somebody, or it is at work.
        """
        clock = self.clock
        if clock.owner.ident == self._loop.thread_ident and not clock.has_company:
            return False
        loops = clock.running_loops()
        first = loops[0]
        # A callback of the test's own loop may stand in a call to another thread: then
        # whoever works for it moves time, and its own timers fire late.
        is_standing = first.thread_ident == clock.owner.ident and not first.is_quiet
        self._standing = first if is_standing and first is not self._loop else None
        if self._standing is not None:
            loops = loops[1:]
        if loops[0] is not self._loop or not all(loop.is_quiet for loop in loops):
            return True
        is_owner_here = self._loop.thread_ident == clock.owner.ident
        return not is_owner_here and not owner_waits(clock)

    def _others(self) -> list[VirtualLoop]:
        loops = self.clock.running_loops() if self.clock.has_company else []
        return [o for o in loops if o is not self._loop and o is not self._standing]

    def _call_others(self, ns: int) -> None:
        """Wake the loops that have something to do at this instant."""
        for loop in self._others():
            if loop.timers and loop.timers[0].ns <= ns:
                loop.rests = False
                loop.wake()

    def _note_progress(self) -> None:
        self._stuck_since = None
        if self._hold is not None:
            self._hold.progress = _real_ns()
            self._hold.wait = _FIRST_WAIT

    def _grace(self) -> float:
        """Tell for how many seconds to listen before time moves."""
        if not self._selector.outside or self.clock.io == "jump":
            return 0
        standings = {standing for _, standing in self._outside.standings()}
        if standings & {Standing.QUIET, Standing.ASKED}:
            self.clock.note_once(
                f"open connections to the outside: {GRACE_SECONDS * 1000:g} ms of real "
                "time are granted before each move of the clock"
            )
            return GRACE_SECONDS
        if Standing.IN_FLIGHT in standings and not self._outside.loopback_is_instant:
            return LOOPBACK_SECONDS
        return 0

    # --- nothing is at work --------------------------------------------------

    def _rest(self) -> Events | None:
        """Serve those who wait for quiet, else move time."""
        if self.clock.end_settling():
            return []
        if self.clock.is_real:
            return self._live()
        return self._move()

    def _live(self) -> Events | None:
        """Let time pass as it does outside."""
        due = self._due_ns()
        if due is None:
            return self._nothing_due()
        began, present = _real_ns(), self._timeline.now_ns
        events = self._listen(min(max(due - present, 0) / 1e9, _LONGEST_WAIT))
        self._timeline.creep(min(present + _real_ns() - began, due))
        if self._timeline.now_ns < due:
            return events or None
        return events or self._move()

    def _move(self) -> Events | None:
        """Move time to the next instant at which something is due."""
        due = self._due_ns()
        target = self.clock.advance_target()
        if target is not None and (due is None or due > target):
            self._jump(target)
            self.clock.end_advance()
            return []
        if due is None:
            return self._nothing_due()
        if not self._may_move_to(due):
            return self._paused(due)
        self._jump(due)
        return None if self._wake_sleeper(due) else []

    def _due_ns(self) -> int | None:
        """Give the instant of the next timer or sleeping thread."""
        timers = self._loop.timers
        due = timers[0].ns if timers else NEVER
        sleeper = self._timeline.next_sleeper
        if sleeper is not None and sleeper.ns < due:
            due = sleeper.ns
        for loop in self._others():
            if loop.timers and loop.timers[0].ns < due:
                due = loop.timers[0].ns
        return due if due < NEVER else None

    def _may_move_to(self, due: int) -> bool:
        clock = self.clock
        if clock.autojump or self._loop.winding_up:
            return True
        target = clock.advance_target()
        return target is not None and due <= target

    def _jump(self, ns: int) -> None:
        timeline = self._timeline
        if timeline.jumps >= self.clock.max_jumps:
            text = describe.runaway_text(self.clock.max_jumps, timeline)
            raise self._error(errors.ClockRunaway, text)
        self._rounds = 0
        timeline.jump(ns)
        if timeline.now >= _COARSE_FROM:
            self._loop.set_resolution(math.ulp(timeline.now))
        self._call_others(ns)

    def _wake_sleeper(self, due: int) -> bool:
        """Wake the next sleeping thread if it is due and no older timer is."""
        sleeper = self._timeline.next_sleeper
        if sleeper is None or sleeper.ns > due:
            return False
        timers = self._loop.timers
        if timers and (timers[0].ns, timers[0].seq) < (sleeper.ns, sleeper.seq):
            return False
        self.clock.wake_sleeper()
        return True

    # --- what cannot go on ---------------------------------------------------

    def _nothing_due(self) -> Events | None:
        if self._loop.winding_up or self._has_last_chance():
            return self._listen(_LONGEST_WAIT) or None
        raise self._error(errors.ClockDeadlock, describe.deadlock_text(self._timeline))

    def _paused(self, due: int) -> Events | None:
        if self._has_last_chance():
            return self._listen(_LONGEST_WAIT) or None
        raise self._error(errors.ClockPaused, describe.paused_text(due, self._timeline))

    def _has_last_chance(self) -> bool:
        """Tell whether the outside may still wake somebody: for a second, or real."""
        if not (self._could_be_woken() or self.clock.threads.alive()):
            return False
        now = _real_ns()
        if self._stuck_since is None:
            self._stuck_since = now
        return self.clock.is_real or now - self._stuck_since < LAST_CHANCE_NS

    def _could_be_woken(self) -> bool:
        if self._outside.jobs:
            return True
        return any(
            standing is not Standing.INSIDE for _, standing in self._outside.standings()
        )

    def _check_spin(self) -> None:
        limit = SPIN_ROUNDS if self._loop.timers else SPIN_ROUNDS_ALONE
        if self._rounds < limit:
            return
        self._rounds = 0
        if self._holder() is None:
            text = describe.spin_text(limit, self._timeline)
            raise self._error(errors.ClockSpin, text)

    # --- the texts -----------------------------------------------------------

    def _error(self, kind: type[errors.ClockError], text: str) -> errors.ClockError:
        """Make an error that says who waits where."""
        self._stuck_since = self._hold = None
        loops = (self._loop, *self._others())
        tasks = [task for loop in loops for task in loop.living_tasks()]
        return kind(text + describe.state(tasks, self._loop.timers, self._timeline))

    def _at(self) -> str:
        return describe.instant(self._timeline)

    def _held_text(self, holder: Holder) -> str:
        cap = describe.seconds(self.clock.hold_cap_ns)
        return (
            f"{holder} held the clock for {cap} of real time, {self._at()}; make it "
            f"end, raise hold_cap=, or wait for it inside `with clock.real():`"
        )
