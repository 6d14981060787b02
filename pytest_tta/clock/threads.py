"""Know the threads of a test, and which of them is at work."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pytest_tta.clock import active
from pytest_tta.clock.functions import REAL, running_threads, thread_here
from pytest_tta.clock.places import place, user_spot
from pytest_tta.clock.waits import Evidence, Wait, is_computing, still_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from types import FrameType

__all__ = ["BusyThread", "OwnedThreads", "adopt_started_threads"]

CONFIRM_NS = 200_000
"""A recognised wait counts once it has gone on for this long without CPU."""

PATIENCE_NS = 2_000_000
"""An unknown wait (a socket, a time limit) counts after this long without CPU."""

TRUST_NS = 5_000_000
"""Where CPU time cannot be read, a judgement holds for this long."""

_TASKS = "/proc/self/task"
# Runnable, or waiting for a disk.
_AWAKE = frozenset({b"R", b"D"})

# Tools that keep real time for themselves start their threads beside the test,
# even when the test's thread runs that code. Not so pools, queues and loops.
_TOOLS = frozenset(
    {"coverage", "debugpy", "execnet", "pydevd", "pytest_timeout", "pytest_tta"}
)
_CHILD_WATCHER = "asyncio-waitpid-"
"""How asyncio names threads that wait for processes, which the loop's books know."""

_now = REAL["monotonic_ns"]
_T = TypeVar("_T")


class BusyThread(NamedTuple):
    """Describe a thread that may still have an effect without time moving.

    Attributes:
        name: The thread's name.
        where: Its innermost telling line, as "tests/test_file.py:12 in fn".
        certain: False while it looks blocked but must be looked at once more.

    """

    name: str
    where: str
    certain: bool


class _Look:
    """Remember what a thread looked like.

    Attributes:
        mark: Its CPU time, None if it runs right now; its frame; where in that it is.
        since: When it looked like this first, in real nanoseconds.
        wait: What it waits for, or None for an unknown wait.
        where: Its line.
        sure_at: When it was found to be durably blocked; None before.

    """

    __slots__ = ("mark", "since", "sure_at", "wait", "where")

    def __init__(
        self,
        mark: tuple[int | None, int, int],
        since: int,
        wait: Wait | None,
        where: str,
    ) -> None:
        self.mark = mark
        self.since = since
        self.wait = wait
        self.where = where
        self.sure_at: int | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether the wait is known to have ended."""
        return self.wait is not None and not self.wait()

    @property
    def patience(self) -> int:
        """Real nanoseconds without CPU after which the wait counts."""
        return PATIENCE_NS if self.wait is None else CONFIRM_NS

    @property
    def trust(self) -> int:
        """Real nanoseconds for which the judgement holds without a CPU meter."""
        late = self.wait is not None and self.wait.evidence is Evidence.LATE
        return 0 if late else TRUST_NS


class _CpuMeter:
    """Read how long threads have been running, where the system tells it.

    Args:
        root: The directory with one entry per thread, as Linux has it in /proc.

    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[threading.Thread, dict[str, int]] = {}
        self.works = Path(root, str(threading.get_native_id()), "schedstat").exists()

    def read(self, thread: threading.Thread) -> int | None:
        """Return nanoseconds of CPU so far, or None if the thread is gone."""
        return self._number(thread, "schedstat")

    def read_asleep(self, thread: threading.Thread) -> int | None:
        """Return the same, or None if the system would run the thread now.

        The state comes first: a thread that was woken is runnable at once, and that
        it has run shows in its time by when it sleeps again.
        """
        state = self._text(thread, "stat").rpartition(b")")[2].split()
        if not state or state[0] in _AWAKE:
            return None
        return self.read(thread)

    def forget(self, thread: threading.Thread) -> None:
        """Close what was opened for `thread`."""
        for file in self._files.pop(thread, {}).values():
            os.close(file)

    def close(self) -> None:
        """Close everything."""
        while self._files:
            self.forget(next(iter(self._files)))

    def _number(self, thread: threading.Thread, name: str) -> int | None:
        first = self._text(thread, name).split(b" ", 1)[0]
        return int(first) if first else None

    def _text(self, thread: threading.Thread, name: str) -> bytes:
        files = self._files.setdefault(thread, {})
        try:
            if name not in files:
                path = f"{self._root}/{thread.native_id}/{name}"
                files[name] = os.open(path, os.O_RDONLY)
            return os.pread(files[name], 512, 0)
        except OSError:
            return b""


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
        # As `thread_here` does it; this runs with every reading of the time.
        thread = running_threads.get(get_ident())
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

    def busy(self, others: Container[int | None] = ()) -> BusyThread | None:
        """Return a worker that is not durably blocked, or None.

        Durably blocked is a thread that only another thread can wake: one that
        waits without a time limit on a condition, a lock, an empty queue or the
        end of a thread, and has had no CPU since it was first seen there. Any
        other wait counts after 2 ms without CPU, and is noted.

        The answer never waits. `certain=False` means: let the thread run for
        half a millisecond of real time, then ask again.

        Args:
            others: Idents of living threads that are judged otherwise.

        """
        frames: dict[int, FrameType] | None = None
        for thread in [*self._workers, *self._lent]:
            if thread.ident in others or self._still_blocked(thread):
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
        if look is None or look.sure_at is None or look.is_over:
            return False
        evidence = Evidence.LATE if look.wait is None else look.wait.evidence
        if evidence is Evidence.FULL:
            return True
        meter = self._meter()
        if not meter.works:
            return False
        late = evidence is Evidence.LATE
        cpu = meter.read_asleep(thread) if late else meter.read(thread)
        return cpu is not None and cpu == look.mark[0]

    def _judge(
        self, thread: threading.Thread, frames: dict[int, FrameType]
    ) -> BusyThread | None:
        if running_threads.get(thread.ident or 0, thread) is not thread:
            # The system has given its number to another: it has ended.
            self.disown(thread)
            return None
        frame = frames.get(thread.ident or 0)
        if frame is None:
            return self._without_frame(thread)
        mark = self._mark(thread, frame)
        look = self._looks.get(thread)
        if look is None or look.mark != mark:
            return self._first_look(thread, frame, mark)
        if look.is_over:
            return BusyThread(thread.name, look.where, certain=True)
        return self._second_look(thread, look)

    def _without_frame(self, thread: threading.Thread) -> BusyThread | None:
        if thread.ident is not None and not thread.is_alive():
            self.disown(thread)
            return None
        return BusyThread(thread.name, "about to start", certain=True)

    def _mark(
        self, thread: threading.Thread, frame: FrameType
    ) -> tuple[int | None, int, int]:
        meter = self._meter()
        if meter.works:
            cpu = meter.read_asleep(thread)
        else:
            cpu = None if is_computing(frame) else 0
        return (cpu, id(frame), frame.f_lasti)

    def _first_look(
        self,
        thread: threading.Thread,
        frame: FrameType,
        mark: tuple[int | None, int, int],
    ) -> BusyThread:
        ran = thread in self._looks or mark[0] is None
        look = _Look(mark, _now(), still_waiting(frame), place(user_spot(frame)))
        self._looks[thread] = look
        return BusyThread(thread.name, look.where, certain=ran or look.is_over)

    def _second_look(self, thread: threading.Thread, look: _Look) -> BusyThread | None:
        now = _now()
        if look.mark[0] is None:
            look.since = now
            return BusyThread(thread.name, look.where, certain=True)
        if look.sure_at is not None:
            if now - look.sure_at < look.trust:
                return None
            # No CPU time to go by: it may have been round its loop and back.
            look.since, look.sure_at = now, None
        if now - look.since < look.patience:
            return BusyThread(thread.name, look.where, certain=False)
        look.sure_at = now
        self._note(thread, look)
        return None

    def _note(self, thread: threading.Thread, look: _Look) -> None:
        if look.wait is not None:
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
        if self.name.startswith(_CHILD_WATCHER):
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
