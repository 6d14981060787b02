"""Know the threads of a test, and which of them is at work."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_tta.clock import active
from pytest_tta.clock.functions import REAL, thread_here
from pytest_tta.clock.places import place, user_spot
from pytest_tta.clock.waits import still_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["BusyThread", "OwnedThreads", "adopt_started_threads"]

CONFIRM_NS = 200_000
"""A recognised wait counts once it has gone on for this long without CPU."""

PATIENCE_NS = 2_000_000
"""An unknown wait (a socket, a time limit) counts after this long without CPU."""

TRUST_NS = 5_000_000
"""Where CPU time cannot be read, a judgement holds for this long."""

_TASKS = "/proc/self/task"

# Tools that keep real time for themselves start their threads beside the test,
# even when the test's thread runs that code. Not so pools, queues and loops.
_TOOLS = frozenset(
    {"coverage", "debugpy", "execnet", "pydevd", "pytest_timeout", "pytest_tta"}
)

_now = REAL["monotonic_ns"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BusyThread:
    """Describe a thread that may still have an effect without time moving.

    Attributes:
        name: The thread's name.
        where: Its innermost telling line, as "tests/test_file.py:12 in fn".
        certain: False while it looks blocked but must be looked at once more.

    """

    name: str
    where: str
    certain: bool


@dataclass(slots=True)
class _Look:
    """Remember what a thread looked like.

    Attributes:
        mark: What changes when the thread runs.
        since: When it looked like this first, in real nanoseconds.
        waits: Whether it waits still, or None for an unknown wait.
        where: Its line.
        sure_at: When it was found to be durably blocked; None before.

    """

    mark: tuple[int, ...]
    since: int
    waits: Callable[[], bool] | None
    where: str
    sure_at: int | None = None


class _CpuMeter:
    """Read how long threads have been running, where the system tells it.

    Args:
        root: The directory with one entry per thread, as Linux has it in /proc.

    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[threading.Thread, int] = {}
        self.works = Path(root, str(threading.get_native_id()), "schedstat").exists()

    def read(self, thread: threading.Thread) -> int | None:
        """Return nanoseconds of CPU so far, or None if the thread is gone."""
        try:
            return int(os.pread(self._file(thread), 64, 0).split(b" ", 1)[0])
        except (OSError, ValueError):
            return None

    def is_runnable(self, thread: threading.Thread) -> bool:
        """Tell whether the system would run the thread, or it waits for a disk."""
        try:
            stat = Path(self._root, str(thread.native_id), "stat").read_bytes()
            state = stat.rpartition(b")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in {b"R", b"D"}

    def forget(self, thread: threading.Thread) -> None:
        """Close what was opened for `thread`."""
        file = self._files.pop(thread, None)
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Close everything."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, thread: threading.Thread) -> int:
        file = self._files.get(thread)
        if file is None:
            path = f"{self._root}/{thread.native_id}/schedstat"
            file = self._files[thread] = os.open(path, os.O_RDONLY)
        return file


class OwnedThreads:
    """Hold the threads that belong to one clock.

    These are the thread that entered the clock and those that it started, and
    that they started in turn, while the clock was active. A thread is known by
    its object: its number may be another thread's a moment later.

    Args:
        owner: The thread that entered the clock.
        tasks: Where the system tells each thread's CPU time; a directory that
            does not exist makes it look twice instead, as on macOS and Windows.

    """

    def __init__(self, owner: threading.Thread, *, tasks: str = _TASKS) -> None:
        """Start with the owner alone."""
        self._owner = owner
        self._workers: dict[threading.Thread, None] = {}
        self._looks: dict[threading.Thread, _Look] = {}
        self._lent: dict[threading.Thread, int] = {}
        self._tasks = tasks
        self._cpu: _CpuMeter | None = None
        self._closed = False
        self.notes: list[str] = []

    def owns_current(self) -> bool:
        """Tell whether the calling thread belongs to this clock."""
        thread = thread_here()
        return thread is self._owner or thread in self._workers or thread in self._lent

    def is_owner(self) -> bool:
        """Tell whether the calling thread is the one that entered the clock."""
        return thread_here() is self._owner

    def adopt(self, thread: threading.Thread) -> None:
        """Count `thread` among the workers, from before it starts."""
        if not self._closed:
            self._workers[thread] = None

    def disown(self, thread: threading.Thread) -> None:
        """Forget `thread`."""
        self._workers.pop(thread, None)
        self._forget(thread)

    def call(self, function: Callable[..., _T], /, *args: object) -> _T:
        """Run `function(*args)` with the calling thread counted as a worker.

        A pool may be older than the clock; while one of its threads runs a job
        of this clock's loop, the job's `time.sleep` is virtual all the same.
        """
        thread = thread_here()
        if thread is None or thread in self._workers or self._closed:
            return function(*args)
        with self._lending(thread):
            return function(*args)

    def alive(self) -> bool:
        """Tell whether any worker is alive."""
        return any(thread.is_alive() for thread in list(self._workers))

    def busy(self) -> BusyThread | None:
        """Return a worker that is not durably blocked, or None.

        Durably blocked is a thread that only another thread can wake: one that
        waits without a time limit on a condition, a lock, an empty queue or the
        end of a thread, and has had no CPU since it was first seen there. Any
        other wait counts after 2 ms without CPU, and is noted.

        The answer never waits. `certain=False` means: let the thread run for
        half a millisecond of real time, then ask again.
        """
        frames: dict[int, FrameType] | None = None
        for thread in [*self._workers, *self._lent]:
            if self._still_blocked(thread):
                continue
            if frames is None:
                frames = sys._current_frames()
            found = self._judge(thread, frames)
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """Adopt no further threads, and let go of those known."""
        self._closed = True
        self._workers.clear()
        self._lent.clear()
        self._looks.clear()
        if self._cpu is not None:
            self._cpu.close()

    @contextlib.contextmanager
    def _lending(self, thread: threading.Thread) -> Iterator[None]:
        self._lent[thread] = self._lent.get(thread, 0) + 1
        try:
            yield
        finally:
            self._give_back(thread)

    def _give_back(self, thread: threading.Thread) -> None:
        left = self._lent.get(thread, 0) - 1
        if left > 0:
            self._lent[thread] = left
            return
        self._lent.pop(thread, None)

    def _meter(self) -> _CpuMeter:
        if self._cpu is None:
            self._cpu = _CpuMeter(self._tasks)
        return self._cpu

    def _still_blocked(self, thread: threading.Thread) -> bool:
        """Tell whether an earlier judgement holds, without looking at frames."""
        look = self._looks.get(thread)
        if look is None or look.sure_at is None:
            return False
        if look.waits is not None and not look.waits():
            return False
        meter = self._meter()
        return meter.works and meter.read(thread) == look.mark[0]

    def _judge(
        self, thread: threading.Thread, frames: dict[int, FrameType]
    ) -> BusyThread | None:
        frame = frames.get(thread.ident or 0)
        if frame is None:
            return self._without_frame(thread)
        mark = self._mark(thread, frame)
        look = self._looks.get(thread)
        if look is None or look.mark != mark:
            ran = look is not None
            look = _Look(mark, _now(), still_waiting(frame), place(user_spot(frame)))
            self._looks[thread] = look
            return BusyThread(thread.name, look.where, certain=ran)
        if look.waits is not None and not look.waits():
            return BusyThread(thread.name, look.where, certain=True)
        return self._after_second_look(thread, look)

    def _without_frame(self, thread: threading.Thread) -> BusyThread | None:
        if thread.ident is not None and not thread.is_alive():
            self.disown(thread)
            return None
        return BusyThread(thread.name, "about to start", certain=True)

    def _mark(self, thread: threading.Thread, frame: FrameType) -> tuple[int, ...]:
        meter = self._meter()
        cpu = meter.read(thread) if meter.works else None
        return (-1 if cpu is None else cpu, id(frame), frame.f_lasti)

    def _after_second_look(
        self, thread: threading.Thread, look: _Look
    ) -> BusyThread | None:
        now = _now()
        if look.sure_at is not None and now - look.sure_at < TRUST_NS:
            return None
        if look.sure_at is not None:
            # No CPU time to go by: it may have been round its loop and back.
            look.since, look.sure_at = now, None
        if now - look.since < (PATIENCE_NS if look.waits is None else CONFIRM_NS):
            return BusyThread(thread.name, look.where, certain=False)
        if self._meter().is_runnable(thread):
            look.since = now
            return BusyThread(thread.name, look.where, certain=True)
        look.sure_at = now
        self._note(thread, look)
        return None

    def _note(self, thread: threading.Thread, look: _Look) -> None:
        if look.waits is not None:
            return
        note = (
            f"time moved while thread {thread.name!r} waited for something unknown "
            f"at {look.where}"
        )
        if note not in self.notes:
            self.notes.append(note)

    def _forget(self, thread: threading.Thread) -> None:
        self._looks.pop(thread, None)
        if self._cpu is not None:
            self._cpu.forget(thread)


def adopt_started_threads() -> None:
    """Wrap `Thread.start`, once, so that an active clock adopts its threads."""
    start = threading.Thread.start
    if not hasattr(start, "__tta_wrapped__"):
        threading.Thread.start = _adopting(start)  # type: ignore[assignment,method-assign]


def _adopting(
    real_start: Callable[[threading.Thread], None],
) -> Callable[[threading.Thread], None]:
    def start(self: threading.Thread) -> None:
        clock = active.clock
        if clock is None or not clock.threads.owns_current() or _is_tool(1):
            return real_start(self)
        clock.threads.adopt(self)
        try:
            real_start(self)
        except BaseException:
            if not self.is_alive():
                clock.threads.disown(self)
            raise
        return None

    start.__doc__ = real_start.__doc__
    start.__tta_wrapped__ = real_start  # type: ignore[attr-defined]
    return start


def _is_tool(depth: int) -> bool:
    caller = sys._getframe(depth + 1)
    name = str(caller.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _TOOLS
