"""Give a test its clock: time that is exact, fast and in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sys
import threading
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from pytest_tta.clock import active, describe, running, trampolines
from pytest_tta.clock.arguments import (
    IO,
    UNIX_EPOCH,
    check_duration,
    check_flag,
    check_io,
    check_max_jumps,
    check_positive,
    start_ns,
)
from pytest_tta.clock.core import LoopCore
from pytest_tta.clock.driver import Driver, pass_time
from pytest_tta.clock.loop import VirtualLoop
from pytest_tta.clock.outside import Holder
from pytest_tta.clock.places import user_spot
from pytest_tta.clock.policy import Policy
from pytest_tta.clock.threads import OwnedThreads
from pytest_tta.clock.timeline import (
    SECOND,
    Moment,
    Sleeper,
    Timeline,
    to_ns,
)
from pytest_tta.clock.wall import Wall

if TYPE_CHECKING:
    import selectors
    from collections.abc import Coroutine, Iterator

    from pytest_tta.clock.simulation import SimulationLoop
    from pytest_tta.clock.sleeps import SleepLog

__all__ = ["ClockMark", "Frozen", "VirtualClock"]

_T = TypeVar("_T")

_making_driver = threading.Lock()


class Frozen:
    """Keep the clock from moving by itself; leaving gives that back."""

    def __init__(self, clock: VirtualClock) -> None:
        """Stop `clock` at once."""
        self._clock = clock
        self._before = clock.autojump
        clock.autojump = False

    def __enter__(self) -> VirtualClock:
        """Hand out the clock, to be moved with `advance`."""
        return self._clock

    def __exit__(self, *raised: object) -> None:
        """Let the clock move as it did before."""
        self._clock.autojump = self._before


class ClockMark(NamedTuple):
    """A moment of a clock, to which `VirtualClock.rewind` returns.

    Attributes:
        moment: Of its timeline.
        epoch_ns: What the wall had shown when the clock started.
        autojump: Whether time moved by itself.
        notes: How many remarks there were.
    """

    moment: Moment
    epoch_ns: int
    autojump: bool
    notes: int


class VirtualClock:
    """Keep the time of a test.

    While it is active, `loop.time()`, `time.monotonic()` and the wall clock show its
    time. It stands still while anything can run and moves at once to the next instant
    at which something is due, so that an hour of waiting costs microseconds and every
    duration is exact.

    Args:
        start: What the wall shows at first: a datetime (without a zone it is UTC), an
            ISO 8601 string, seconds since the Unix epoch, `"now"`, or None for
            2000-01-01 UTC.
        io: What open connections to the outside mean. `"hold"`: the clock stands still
            while a peer owes an answer. `"grace"`: 20 ms of real time are granted
            before each move. `"jump"`: they are ignored.
        hold_cap: Real seconds after which work that holds the clock is an error.
        max_jumps: Moves of time after which the run counts as endless; None for any
            number.
        autojump: Whether time moves by itself when everybody waits.
        wall: Whether `time.time()` and `datetime.now()` follow.
        loop_start: What `loop.time()` and `time.monotonic()` show at first, in seconds.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument has a wrong value.

    """

    def __init__(
        self,
        start: datetime | str | float | None = None,
        *,
        io: IO = "hold",
        hold_cap: float = 5.0,
        max_jumps: int | None = 250_000,
        autojump: bool = True,
        wall: bool = True,
        loop_start: float = 0.0,
    ) -> None:
        """Set the clock; it begins to matter when it is entered."""
        self.epoch_ns: int = start_ns(start)
        self.io = check_io(io)
        self.hold_cap_ns: int = to_ns(check_positive("hold_cap", hold_cap))
        self.max_jumps: int = check_max_jumps(max_jumps)
        self.timeline: Timeline = Timeline(
            to_ns(check_duration("loop_start", loop_start))
        )
        self.threads: OwnedThreads = OwnedThreads(threading.current_thread())
        self.notes: list[str] = []
        self._autojump = check_flag("autojump", autojump)
        self._shows_wall = wall
        self._wall: Wall | None = None
        self._settlers: list[asyncio.Future[None]] = []
        self._advances: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ages = count()
        self._holds: dict[object, str] = {}
        self._real_depth = 0
        self._waking: dict[Sleeper, None] = {}
        self._loops: list[VirtualLoop] = []
        self._simulation: SimulationLoop | None = None
        self._driver: Driver | None = None
        self._owner = threading.current_thread()
        self._depth = self._blocks = 0
        self.has_wishes: bool = not autojump
        self._made = (self.timeline.start_ns, self.epoch_ns, self._autojump)

    def __repr__(self) -> str:
        """Show the present."""
        return f"<VirtualClock {self.now:%Y-%m-%d %H:%M:%S} elapsed={self.elapsed:g}>"

    # --- what it shows -------------------------------------------------------

    @property
    def time(self) -> float:
        """What `loop.time()` and `time.monotonic()` show, in seconds."""
        return self.timeline.now

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the clock started."""
        return self.timeline.elapsed_ns / SECOND

    @property
    def now(self) -> datetime:
        """What the wall shows, as an aware datetime in UTC."""
        return UNIX_EPOCH + timedelta(microseconds=self.wall_ns() // 1000)

    @property
    def sleeps(self) -> SleepLog:
        """What has been waited for so far, in the order of asking."""
        return self.timeline.sleeps()

    def monotonic_ns(self) -> int:
        """Give the present as `time.monotonic_ns()` shows it."""
        return self.timeline.now_ns

    def wall_ns(self) -> int:
        """Give the present as `time.time_ns()` shows it."""
        return self.epoch_ns + self.timeline.elapsed_ns

    def set_epoch(self, ns: int) -> None:
        """Let the wall have shown `ns` nanoseconds when the clock started."""
        self.epoch_ns = ns

    def note_once(self, text: str) -> None:
        """Keep a remark about what the clock did, for the report of the test."""
        if text not in self.notes:
            self.notes.append(text)

    # --- where it is active --------------------------------------------------

    def __enter__(self) -> Self:
        """Become the clock of this process."""
        if self._depth == 0:
            trampolines.install()
            active.activate(self)
            self._owner = threading.current_thread()
            self.threads = OwnedThreads(self._owner)
            self._start_wall()
        self._depth += 1
        return self

    def __exit__(self, *raised: object) -> None:
        """Give real time back to everybody."""
        self._depth -= 1
        if self._depth == 0:
            self._leave()

    def _start_wall(self) -> None:
        if not self._shows_wall:
            return
        wall = self._wall = Wall(self)
        wall.start()
        if wall.note is not None:
            self.note_once(wall.note)

    def _leave(self) -> None:
        if self._wall is not None:
            self._wall.stop()
        active.deactivate(self)
        self.timeline.release_sleepers()
        if self._driver is not None:
            self._driver.end()
        self._wall = self._driver = None
        for text in self.threads.notes:
            self.note_once(text)
        self.threads.close()

    def run(self, coro: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in a loop of its own and return its result.

        Ctrl-C cancels it, as `asyncio.run` has it.

        Raises:
            ClockError: Time cannot go on; see the subclasses.
            RuntimeError: An event loop is running in this thread.
            TypeError: `coro` is no coroutine.

        """
        if not asyncio.iscoroutine(coro):
            msg = f"clock.run({coro!r}) needs a coroutine, such as main()"
            raise TypeError(msg)
        if asyncio.events._get_running_loop() is not None:
            coro.close()
            msg = (
                "clock.run(...) starts an event loop of its own, and one is running: "
                "await it there, or call it where none is"
            )
            raise RuntimeError(msg)
        with self:
            return running.run(self.new_loop(), coro)

    def new_loop(self, selector: selectors.BaseSelector | None = None) -> VirtualLoop:
        """Make a loop that lives in this clock's time."""
        loop = VirtualLoop(selector)
        self._attach(loop)
        return loop

    @contextlib.contextmanager
    def on(self, loop: asyncio.AbstractEventLoop) -> Iterator[Self]:
        """Take over the time of a loop that was there before and goes on afterwards.

        The clock starts at the loop's present time. When it is left, what still waits
        in the loop goes on waiting for as long as was left, in real time.

        Raises:
            TypeError: The loop keeps its time to itself, as uvloop's does.

        """
        checked = _checked_loop(loop)
        self.timeline.rebase(to_ns(checked.time()))
        with self:
            self._attach(checked)
            try:
                yield self
            finally:
                self.forget(checked)
                checked.detach()

    def forget(self, loop: VirtualLoop) -> None:
        """Let go of a loop that has been closed."""
        if loop in self._loops:
            self._loops.remove(loop)

    def _attach(self, loop: VirtualLoop) -> None:
        self._loops.append(loop)
        loop.attach(Policy(self, loop), self.timeline)

    # --- the same time again -------------------------------------------------

    def mark(self) -> ClockMark:
        """Remember this moment, so that `rewind` can return to it."""
        return ClockMark(
            self.timeline.moment(), self.epoch_ns, self._autojump, len(self.notes)
        )

    def rewind(self, mark: ClockMark | None = None) -> None:
        """Return to a moment as if nothing had happened since: time, log and wishes.

        It takes about a microsecond. No loop may be running.

        Args:
            mark: What `mark` gave; the moment when the clock was made unless given.
        """
        if mark is None:
            start_ns, epoch_ns, autojump = self._made
            beginning = Moment(start_ns, start_ns, 0, 0, 0, {}, {}, 0)
            mark = ClockMark(beginning, epoch_ns, autojump, 0)
        moment, self.epoch_ns, self._autojump, notes = mark
        self.timeline.rewind(moment)
        del self.notes[notes:]
        if self.has_wishes:
            self._settlers.clear()
            self._advances.clear()
            self._holds.clear()
            self._real_depth = 0
        self._waking.clear()
        self.has_wishes = not self._autojump

    def simulate(self, loop: SimulationLoop | None) -> None:
        """Let `loop` move time from now on, None for nobody."""
        self._simulation = loop

    # --- moving it by hand ---------------------------------------------------

    @property
    def autojump(self) -> bool:
        """Whether time moves by itself when everybody waits."""
        return self._autojump

    @autojump.setter
    def autojump(self, value: bool) -> None:
        self._autojump = check_flag("autojump", value)
        self._reconsider()

    def freeze(self) -> Frozen:
        """Stop time from moving by itself; in a `with` statement, for its block."""
        return Frozen(self)

    async def advance(self, duration: float | timedelta) -> None:
        """Let `duration` pass, step by step, and return when all is quiet.

        What is due on the way happens at its own instant, in order, and so does what
        it sets off in turn; at the end nothing is left to run.

        Args:
            duration: Seconds, or a timedelta.

        Raises:
            TypeError: `duration` is neither.
            ValueError: `duration` is negative or not finite.
            RuntimeError: The running loop is not in this clock's time.

        """
        target = self.timeline.now_ns + to_ns(check_duration("duration", duration))
        waiter = self._here().create_future()
        entry = (target, next(self._ages), waiter)
        heapq.heappush(self._advances, entry)
        self._reconsider()
        await waiter

    async def settle(self) -> None:
        """Wait, without any time passing, until nothing is left to run now.

        Raises:
            RuntimeError: The running loop is not in this clock's time.

        """
        waiter = self._here().create_future()
        self._settlers.append(waiter)
        self._reconsider()
        await waiter

    def stall(self, duration: float | timedelta) -> None:
        """Let `duration` pass at once, as if the process had been stopped.

        What was due in between happens afterwards, late.

        Raises:
            TypeError: `duration` is neither seconds nor a timedelta.
            ValueError: `duration` is negative or not finite.

        """
        self.timeline.stall(to_ns(check_duration("duration", duration)))

    @contextlib.contextmanager
    def hold(self, reason: str = "clock.hold()") -> Iterator[None]:
        """Keep time from moving while the block runs, in whatever thread."""
        token = object()
        self._holds[token] = reason
        self._reconsider()
        try:
            yield
        finally:
            del self._holds[token]
            self._reconsider()
            self._wake_loops()

    @contextlib.contextmanager
    def real(self) -> Iterator[None]:
        """Let time pass as it does outside while the block runs."""
        self._real_depth += 1
        self._reconsider()
        try:
            yield
        finally:
            self._real_depth -= 1
            self._reconsider()

    def _here(self) -> LoopCore:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, LoopCore) or loop.clock is not self:
            msg = f"{loop!r} is not in the time of {self!r}; run it with clock.run()"
            raise RuntimeError(msg)
        return loop

    def _wake_loops(self) -> None:
        for loop in self._loops:
            if not loop.is_closed():
                loop.wake()
        if self._simulation is not None:
            self._simulation.wake()

    # --- what trampolines and freezegun ask for ------------------------------

    def block(self, seconds: float) -> None:
        """Sleep in the thread that owns the clock: time moves, timers are late."""
        task = _current_task()
        who = threading.current_thread().name if task is None else task.get_name()
        began, target = self.timeline.elapsed_ns, self.timeline.now_ns + to_ns(seconds)
        if self._simulation is not None and self._simulation.is_aside:
            self._record(seconds, "thread", who)
            return self.timeline.show(target)
        self._record(seconds, "blocking", who)
        self._blocks += 1
        try:
            pass_time(self, target)
        finally:
            self._blocks -= 1
        self.timeline.jump(target)
        return self.timeline.note_stall(began)

    def sleep_in_thread(self, seconds: float) -> None:
        """Sleep in a worker thread until virtual time got there."""
        if self._simulation is not None:
            self._simulation.wake()
        number = self._record(seconds, "thread", threading.current_thread().name)
        sleeper = self.timeline.add_sleeper(seconds, number)
        if not self.is_active:
            # The clock was left a moment ago, and nobody would wake this thread.
            self.timeline.drop_sleeper(sleeper)
            return
        if self.is_driven:
            self._wake_loops()
        # A loop moves time; but its thread may be blocked, and wait for this one.
        self._drive_sleepers()
        sleeper.gate.acquire()
        self._waking.pop(sleeper, None)

    def jump_forward(self, seconds: float) -> None:
        """Move time from outside the loop; what was due happens afterwards, in order.

        Raises:
            ValueError: `seconds` is negative.

        """
        self.stall(seconds)

    def _record(
        self, seconds: float, kind: Literal["blocking", "thread"], who: str
    ) -> int:
        spot = user_spot(sys._getframe(2))
        path = describe.path_of_current()
        return self.timeline.record(seconds, kind, who, spot, path)

    # --- what the policy of a loop asks for ----------------------------------

    @property
    def owner(self) -> threading.Thread:
        """The thread that entered the clock."""
        return self._owner

    @property
    def is_active(self) -> bool:
        """Whether the clock has been entered."""
        return self._depth > 0

    @property
    def is_driven(self) -> bool:
        """Whether a loop, or a sleep of the owner, moves time."""
        if self._blocks > 0 or self._simulation is not None:
            return True
        return any(loop.is_running() for loop in self._loops)

    def movers(self) -> set[int | None]:
        """Give the idents of the threads whose turn it is to move time.

        Those of the loops that run, else that of the owner. None while the owner
        sleeps, or a simulation runs: they do it in any case.
        """
        if self._blocks > 0 or self._simulation is not None:
            return set()
        return self._loop_threads() or {self._owner.ident}

    @property
    def is_real(self) -> bool:
        """Whether time passes as it does outside."""
        return self._real_depth > 0

    def holder(self) -> Holder | None:
        """Name a block, or a thread of the test, that keeps time from moving."""
        if self._holds:
            return self.held()
        for sleeper in self._waking:
            if sleeper.thread.is_alive():
                return Holder(f"thread {sleeper.thread.name!r}", "the end of its sleep")
        busy = self.threads.busy(self.known_threads())
        return None if busy is None else Holder(f"thread {busy.name!r}", busy.where)

    def held(self) -> Holder | None:
        """Name a block that keeps time from moving."""
        for reason in self._holds.values():
            return Holder(reason)
        return None

    @property
    def has_company(self) -> bool:
        """Whether more than one loop lives in the clock's time."""
        return len(self._loops) > 1

    def running_loops(self) -> list[VirtualLoop]:
        """List the loops that run, in whatever threads; the first one moves time.

        That is the loop of the thread that owns the clock, where it runs one.
        """
        running = [loop for loop in list(self._loops) if loop.is_running()]
        return sorted(running, key=lambda loop: loop.thread_ident != self._owner.ident)

    def known_threads(self) -> set[int | None]:
        """Give the idents of the threads at which nobody has to look.

        Those that run a loop, which knows whether it waits, and those that sleep.
        """
        return self._loop_threads().union(self.timeline.sleeping())

    def _loop_threads(self) -> set[int | None]:
        return {loop.thread_ident for loop in list(self._loops)} - {None}

    def wake_sleeper(self) -> None:
        """Wake the thread whose sleep ends first."""
        sleeper = self.timeline.pop_sleeper()
        self._waking[sleeper] = None
        sleeper.gate.release()

    def end_settling(self) -> bool:
        """Tell those who wait for quiet that it is quiet; False if there are none."""
        settlers, self._settlers = self._settlers, []
        waiting = [waiter for waiter in settlers if not waiter.done()]
        for waiter in waiting:
            waiter.set_result(None)
        self._reconsider()
        return bool(waiting)

    def advance_target(self) -> int | None:
        """Give the instant up to which time is being moved by hand."""
        while self._advances and self._advances[0][2].done():
            heapq.heappop(self._advances)
            self._reconsider()
        return self._advances[0][0] if self._advances else None

    def end_advance(self) -> None:
        """Tell whoever moved time by hand that it got there."""
        _, _, waiter = heapq.heappop(self._advances)
        waiter.set_result(None)
        self._reconsider()

    def loop_stopped(self) -> None:
        """See to the threads that still sleep when no loop runs any more."""
        if self.is_active and self.timeline.next_sleeper is not None:
            self._drive_sleepers()

    def _drive_sleepers(self) -> None:
        with _making_driver:
            driver = self._driver = self._driver or Driver(self)
        driver.ensure()

    def _reconsider(self) -> None:
        """Note whether anybody wants anything but time moving by itself."""
        self.has_wishes = bool(
            not self._autojump
            or self._settlers
            or self._advances
            or self._holds
            or self._real_depth
        )


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _checked_loop(loop: asyncio.AbstractEventLoop) -> VirtualLoop:
    if not isinstance(loop, VirtualLoop):
        msg = (
            f"the clock cannot take over {type(loop).__module__}."
            f"{type(loop).__qualname__}: it keeps its time to itself; make the loop "
            "with loop_factory=clock.new_loop or pytest_tta.clock.VirtualLoop"
        )
        raise TypeError(msg)
    if loop.clock is not None:
        msg = f"{loop!r} is in the time of {loop.clock!r} already"
        raise RuntimeError(msg)
    return loop
