"""Know what a loop waits for from outside: jobs, processes, answers of peers."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import concurrent.futures
import enum
import functools
import selectors
import socket
import sys
import threading
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.clock.waits import still_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from pytest_tta.clock.selector import AskingSelector, Events
    from pytest_tta.clock.threads import OwnedThreads

__all__ = ["Holder", "Job", "Outside", "Standing"]

_Stream = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
_Datagram = asyncio.selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]


_WAITING_MODULES = frozenset({"concurrent", "queue", "threading"})


class Holder(NamedTuple):
    """Name what holds the clock, and where it is."""

    what: str
    where: str = ""

    def __str__(self) -> str:
        """Write both."""
        return f"{self.what} at {self.where}" if self.where else self.what


class Standing(enum.Enum):
    """Judge whether something may come from a file without time moving."""

    INSIDE = "both ends are in this loop"
    IN_FLIGHT = "both ends are in this loop and bytes may be on their way"
    LISTENING = "it waits for whoever may connect"
    QUIET = "its peer is elsewhere and owes nothing"
    ASKED = "its peer is elsewhere and owes an answer"


class _WatchedStream(_Stream):  # type: ignore[misc, valid-type]
    """Remember that the last word on a connection was ours."""

    asked = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.asked = True
        super().write(data)

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401 - asyncio's own
        self.asked = True
        super().writelines(list_of_data)


class _WatchedDatagram(_Datagram):  # type: ignore[misc, valid-type]
    """Remember that the last word on a datagram endpoint was ours."""

    asked = False

    def sendto(self, data: Any, addr: Any = None) -> None:  # noqa: ANN401
        self.asked = True
        super().sendto(data, addr)


_WATCHED = {_Stream: _WatchedStream, _Datagram: _WatchedDatagram}


class Job:
    """Be a job of an executor; where it runs in a thread, the thread is adopted."""

    __slots__ = ("_function", "_threads", "executor", "label", "thread")

    def __init__(
        self,
        function: Callable[..., object],
        executor: object,
        threads: OwnedThreads,
    ) -> None:
        """Wrap `function`, to be called by a thread of `executor`."""
        self._function = function
        self._threads = threads
        self.executor: object = executor
        self.label: str = _name_of(function)
        self.thread: threading.Thread | None = None

    def __call__(self, *args: object) -> object:
        """Run the job, counted among the test's own threads."""
        self.thread = threading.current_thread()
        return self._threads.call(self._function, *args)


def _name_of(function: Callable[..., object]) -> str:
    """Return the name that the user knows: `to_thread` wraps its function."""
    while isinstance(function, functools.partial):
        in_context = isinstance(getattr(function.func, "__self__", None), Context)
        function = function.args[0] if in_context else function.func
    return getattr(function, "__qualname__", repr(function))


class Outside:
    """Keep the books of one loop about everything that is not in it.

    Attributes:
        loopback_is_instant: Whether bytes sent to a socket of this machine can be
            read at once. They can on Linux; elsewhere a moment is granted.

    """

    loopback_is_instant: bool = sys.platform == "linux"

    def __init__(self, selector: AskingSelector, transports: Any) -> None:  # noqa: ANN401
        """Begin with nothing; `transports` is the loop's own table by file number."""
        self._selector = selector
        self._transports = transports
        self._named: set[tuple[object, object]] = set()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.jobs: dict[object, Job] = {}
        self.processes: list[asyncio.SubprocessTransport] = []

    # --- the books -----------------------------------------------------------

    def add_job(self, future: asyncio.Future[Any], job: Job) -> None:
        """Count a job until the loop has its result."""
        self.jobs[future] = job
        future.add_done_callback(self._end_job)

    def _end_job(self, future: asyncio.Future[Any]) -> None:
        self.jobs.pop(future, None)

    def watch(self, fileno: int) -> None:
        """Watch the transport that was just made for a file."""
        transport = self._transports.get(fileno)
        watched = _WATCHED.get(type(transport))
        if transport is not None and watched is not None:
            transport.__class__ = watched
            self._named.add(_names_of(transport.get_extra_info))

    def saw(self, sock: socket.socket) -> None:
        """Know a bare socket as one of this loop's."""
        self._sockets.add(sock)
        self._named.add(_names_of_socket(sock))

    def answered(self, events: Events) -> None:
        """Note that peers have sent something."""
        for key, mask in events:
            if mask & selectors.EVENT_READ:
                transport = self._transports.get(key.fd)
                if transport is not None:
                    transport.asked = False

    # --- what may still come -------------------------------------------------

    def working(
        self, loop: asyncio.AbstractEventLoop, others: Container[int | None] = ()
    ) -> Holder | None:
        """Name a job or a process that is at work and whose end `loop` awaits.

        Args:
            loop: The loop whose books these are.
            others: Idents of threads that are judged otherwise.

        """
        for job in self.jobs.values():
            if not (self._is_queued_behind_others(job) or _waits(job.thread, others)):
                return Holder(f"executor job {job.label!r}")
        for thread in threading.enumerate():
            # So do the worker threads of anyio say whom they work for.
            if getattr(thread, "loop", None) is loop and not _waits(thread, others):
                return Holder(f"thread {thread.name!r}")
        self.processes = [each for each in self.processes if _is_alive(each)]
        if self.processes:
            return Holder(f"subprocess {self.processes[0].get_pid()}")
        return None

    def _is_queued_behind_others(self, job: Job) -> bool:
        """Tell whether all threads of a job's pool are taken; they speak for it."""
        if job.thread is not None:
            return False
        size = getattr(job.executor, "_max_workers", None)
        if not isinstance(job.executor, concurrent.futures.ThreadPoolExecutor):
            return False
        mates = (other for other in self.jobs.values() if other.thread is not None)
        return sum(other.executor is job.executor for other in mates) >= (size or 0)

    def asked(self) -> Holder | None:
        """Name a connection whose peer, outside this loop, owes an answer."""
        for key, standing in self.standings():
            if standing is Standing.ASKED:
                return Holder(f"an answer on {self._describe(key)}")
        return None

    def standings(self) -> Iterator[tuple[selectors.SelectorKey, Standing]]:
        """Judge everything that the loop watches, except its own pipe."""
        for key in list(self._selector.get_map().values()):
            names = _callback_names(key)
            if "_read_from_self" not in names:
                yield key, self._judge(key, names)

    def _judge(self, key: selectors.SelectorKey, names: set[str]) -> Standing:
        if names & {"_accept_connection", "_sock_accept"}:
            return Standing.LISTENING
        transport = self._transports.get(key.fd)
        if transport is not None:
            return self._judge_transport(transport)
        if any(name.startswith("_sock_") for name in names):
            return self._judge_socket(key)
        return Standing.QUIET

    def _judge_transport(self, transport: Any) -> Standing:  # noqa: ANN401
        asked = transport.get_write_buffer_size() > 0 or getattr(
            transport, "asked", False
        )
        if self._is_inside(_names_of(transport.get_extra_info)):
            return Standing.IN_FLIGHT if asked else Standing.INSIDE
        # A server's client asks; it need not say anything to our answer.
        is_client = getattr(transport, "_server", None) is None
        return Standing.ASKED if asked and is_client else Standing.QUIET

    def _judge_socket(self, key: selectors.SelectorKey) -> Standing:
        for sock in _sockets_of(key):
            self._sockets.add(sock)
            if self._is_inside(_names_of_socket(sock)):
                return Standing.IN_FLIGHT
        return Standing.ASKED

    def _is_inside(self, names: tuple[object, object]) -> bool:
        """Tell whether the other end of a connection is in this loop, too."""
        own, peer = names
        if own == peer:
            return own is not None and self._count(names) > 1
        return (peer, own) in self._named

    def _count(self, names: tuple[object, object]) -> int:
        """Count living ends of one name; both ends of a socket pair have none."""
        living = [_names_of(each.get_extra_info) for each in self._transports.values()]
        living += [_names_of_socket(each) for each in list(self._sockets)]
        return living.count(names)

    def _describe(self, key: selectors.SelectorKey) -> str:
        transport = self._transports.get(key.fd)
        peer = None if transport is None else transport.get_extra_info("peername")
        return f"file {key.fd}" + (f" (peer {peer!r})" if peer else "")


def _waits(thread: threading.Thread | None, others: Container[int | None]) -> bool:
    """Tell whether a thread with a job waits for another thread or for the loop.

    Any other wait, such as for an answer on a socket, is real work.
    """
    if thread is None:
        return False
    if thread.ident in others:
        return True
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return False
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if module in _WAITING_MODULES:
        return True
    waits = still_waiting(frame)
    return waits is not None and waits()


def _names_of(get_extra_info: Callable[[str], object]) -> tuple[object, object]:
    return get_extra_info("sockname"), get_extra_info("peername")


def _names_of_socket(sock: Any) -> tuple[object, object]:  # noqa: ANN401
    try:
        return sock.getsockname(), sock.getpeername()
    except OSError:
        return None, None


def _sockets_of(key: selectors.SelectorKey) -> list[socket.socket]:
    args = (arg for each in _handles(key) for arg in each._args)
    return [arg for arg in args if isinstance(arg, socket.socket)]


def _handles(key: selectors.SelectorKey) -> list[Any]:
    return [each for each in key.data if each is not None and not each.cancelled()]


def _callback_names(key: selectors.SelectorKey) -> set[str]:
    return {getattr(each._callback, "__name__", "") for each in _handles(key)}


def _is_alive(process: asyncio.SubprocessTransport) -> bool:
    return process.get_returncode() is None and not process.is_closing()
