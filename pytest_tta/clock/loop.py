"""Give asyncio a loop that does real I/O and whose time may be virtual."""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tta.clock.core import LoopCore
from pytest_tta.clock.errors import ClockError
from pytest_tta.clock.functions import REAL
from pytest_tta.clock.outside import Job, Outside
from pytest_tta.clock.runner_task import is_call_in_runner, leave_test, runner_tasks
from pytest_tta.clock.selector import AskingSelector
from pytest_tta.clock.tasks import birth
from pytest_tta.clock.timeline import to_ns

if TYPE_CHECKING:
    import socket
    import weakref
    from collections.abc import Awaitable, Callable, Iterable

    from pytest_tta.clock.clock import VirtualClock
    from pytest_tta.clock.policy import Policy
    from pytest_tta.clock.timeline import Timeline

__all__ = ["VirtualLoop", "missing_internals"]

_T = TypeVar("_T")

_real_time: Callable[[], float] = REAL["monotonic"]
_RESOLUTION = time.get_clock_info("monotonic").resolution
_FINE_RESOLUTION = 1e-10
_CLEANING_ROUNDS = 3
_INTERNALS: dict[type, tuple[str, ...]] = {
    asyncio.SelectorEventLoop: (
        "_add_reader",
        "_check_callback",
        "_check_closed",
        "_check_thread",
        "_close_self_pipe",
        "_make_datagram_transport",
        "_make_self_pipe",
        "_make_socket_transport",
        "_make_ssl_transport",
        "_make_subprocess_transport",
        "_run_once",
        "_timer_handle_cancelled",
        "_write_to_self",
    ),
    asyncio.Handle: ("_args", "_callback", "_run"),
    asyncio.TimerHandle: ("_scheduled", "_when"),
}
_ATTRIBUTES = (
    "_clock_resolution",
    "_ready",
    "_scheduled",
    "_selector",
    "_thread_id",
    "_timer_cancelled_count",
    "_transports",
)


def missing_internals(loop: asyncio.AbstractEventLoop) -> list[str]:
    """List the parts of asyncio's loop that this module needs and does not find."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in _INTERNALS.items()
        for name in names
        if not hasattr(owner, name)
    ]
    return missing + [name for name in _ATTRIBUTES if not hasattr(loop, name)]


class VirtualLoop(LoopCore, asyncio.SelectorEventLoop):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Be asyncio's own loop, with time that a clock may take over.

    Without a clock it keeps real time as any loop does. While a clock is attached,
    time stands still until nothing is left to do at the present instant, and then
    moves at once to the next.

    Args:
        selector: How to wait for I/O; the system's best by default.

    Raises:
        RuntimeError: This interpreter's loop is not built as expected.

    """

    # Parts of asyncio's loop that the stubs do not show.
    _clock_resolution: float
    _asyncgens: weakref.WeakSet[Any]
    _default_executor: concurrent.futures.ThreadPoolExecutor | None
    _ssock: socket.socket | None
    _csock: socket.socket | None

    _is_checked = False

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        """Make a loop in real time."""
        self.asking: AskingSelector = AskingSelector(
            selector or selectors.DefaultSelector()
        )
        self._policy: Policy | None = None
        self.woken: bool = False
        self.rests = False
        self._has_given_up = False
        self.asking.prepare = self._open_pipe
        super().__init__(self.asking)
        self._check_internals()
        self.outside: Outside = Outside(self.asking, self._transports)  # type: ignore[attr-defined]

    def _check_internals(self) -> None:
        if VirtualLoop._is_checked:
            return
        missing = missing_internals(self)
        if missing:
            self.close()
            msg = (
                "pytest_tta's virtual clock does not fit this interpreter "
                f"({sys.implementation.name} {sys.version.split()[0]}): asyncio has no "
                f"{missing[0]}; use CPython 3.11 to 3.14 or a newer tta-dev-primitives"
            )
            raise RuntimeError(msg)
        VirtualLoop._is_checked = True

    # --- real or virtual -----------------------------------------------------

    @property
    def clock(self) -> VirtualClock | None:
        """The clock that is attached."""
        return None if self._policy is None else self._policy.clock

    def attach(self, policy: Policy, timeline: Timeline) -> None:
        """Take time from `timeline`, moved by `policy`."""
        self._policy = policy
        self._timeline = timeline
        self.asking.ask = policy.select
        self._clock_resolution = _FINE_RESOLUTION

    def detach(self) -> None:
        """Return to real time; what waits goes on waiting for as long as was left."""
        timeline = self._timeline
        if timeline is None:
            return
        self._policy = self._timeline = self.asking.ask = None
        self._clock_resolution = _RESOLUTION
        shift = to_ns(self.time()) - timeline.now_ns
        # One shift for all keeps the order of the heap; ages only need to be older
        # than those that real timers will get.
        self._scheduled.sort()
        for timer in self._scheduled:
            timer.move(timer.ns + shift, next(self._ages))

    def close(self) -> None:
        """Close the loop, and let go of its clock."""
        super().close()
        # It holds the loop: without this the collector would have to end the two.
        self.asking.prepare = None
        policy = self._policy
        if policy is not None:
            self._policy = self.asking.ask = None
            policy.clock.forget(self)

    def time(self) -> float:
        """Return the loop's time in seconds."""
        timeline = self._timeline
        return _real_time() if timeline is None else timeline.now

    @property
    def is_quiet(self) -> bool:
        """Whether the loop has nothing to do until time moves; from any thread."""
        return self.rests and not self.woken

    @property
    def has_ready(self) -> bool:
        """Whether a callback waits to be run."""
        return bool(self._ready)

    def set_resolution(self, resolution: float) -> None:
        """Let timers that are due within `resolution` seconds fire."""
        self._clock_resolution = resolution

    # --- the end of a run ----------------------------------------------------

    def run_until_complete(self, future: Awaitable[_T]) -> _T:  # type: ignore[override]
        """Run until `future` is done; a clock's error leaves no task behind."""
        if getattr(future, "cr_code", None) in _LAST_LOOKS and self.is_bare:
            # It looks, finds nothing and returns, for which no loop has to run.
            with suppress(StopIteration):
                future.send(None)  # type: ignore[attr-defined]
            return None  # type: ignore[return-value]
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()  # type: ignore[attr-defined]
        first = self._numbering.born
        main = asyncio.ensure_future(future, loop=self)
        is_ours = main is not future
        if is_ours:
            # The caller has no handle on it and hears of its failure by this call.
            main._log_destroy_pending = False  # type: ignore[attr-defined]
        main.add_done_callback(_stop_for)
        try:
            try:
                self.run_forever()
            finally:
                main.remove_done_callback(_stop_for)
            if not main.done():
                msg = "Event loop stopped before Future completed."  # As asyncio.
                raise RuntimeError(msg)
            return main.result()
        except ClockError as error:
            if is_call_in_runner(main):
                self._leave_test(main, first, error)
            self._abandon(main, first)
            raise
        finally:
            if is_ours and main.done() and not main.cancelled():
                main.exception()
            if self._policy is not None:
                self._policy.clock.loop_stopped()
            # What it raises leads to this frame: the two would be cyclic garbage.
            del main, future

    @property
    def is_bare(self) -> bool:
        """Whether nothing is left that a further round could do anything for."""
        return not (
            self._ready
            or self._scheduled
            or self._asyncgens
            or self._default_executor is not None
            or self.asking.outside
        )

    def _leave_test(
        self, main: asyncio.Future[Any], first: int, error: ClockError
    ) -> None:
        """Let a task that is older than this run, and shared, go on without it."""
        main.cancel()
        for task in runner_tasks(self.living_tasks()):
            if birth(task) < first:
                self._policy_forgives()
                with suppress(ClockError):
                    super().run_until_complete(leave_test(task, error))

    def _abandon(self, main: asyncio.Future[Any], first: int) -> None:
        """Cancel what this run began, and let it clean up.

        What was there before, such as the tasks of a fixture, is left alone.
        """
        self._has_given_up = True
        for _ in range(_CLEANING_ROUNDS):
            left = self._left(main, first)
            if not left:
                return
            for task in left:
                task.cancel()
            try:
                self._policy_forgives()
                super().run_until_complete(_all_done(left))
            except ClockError:
                continue
        for task in self._left(main, first):
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def _policy_forgives(self) -> None:
        if self._policy is not None:
            self._policy.forgive()

    def _left(self, main: asyncio.Future[Any], first: int) -> list[asyncio.Future[Any]]:
        tasks = self.living_tasks()
        mine: list[asyncio.Future[Any]] = [
            task
            for task in tasks
            if task is not main and getattr(task, "born", 0) >= first
        ]
        return mine if main.done() else [main, *mine]

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        """Wait for the executor's threads; from now on only real work is waited for.

        After a clock's error nobody is waited for.
        """
        self.winding_up = True
        executor = self._default_executor
        if self._has_given_up and executor is not None:
            # A thread may be what is stuck, and would keep the error from being seen.
            executor.shutdown(wait=False, cancel_futures=True)
            return
        await super().shutdown_default_executor(*args, **options)

    # --- the books about the world outside -----------------------------------

    def run_in_executor(  # type: ignore[override]
        self,
        executor: concurrent.futures.Executor | None,
        func: Callable[..., Any],
        *args: Any,  # noqa: ANN401
    ) -> asyncio.Future[Any]:
        """Run `func(*args)` in an executor; the clock stands still meanwhile."""
        clock = self.clock
        if clock is None:
            return super().run_in_executor(executor, func, *args)
        used = executor or self._default_executor
        job = Job(func, used, clock.threads)
        in_thread = isinstance(used, concurrent.futures.ThreadPoolExecutor | None)
        future = super().run_in_executor(executor, job if in_thread else func, *args)
        if executor is None:
            job.executor = self._default_executor
        self.outside.add_job(future, job)
        return future

    def _make_socket_transport(
        self,
        sock: socket.socket,
        *args: Any,  # noqa: ANN401 - handed on as they come
        **options: Any,  # noqa: ANN401
    ) -> asyncio.Transport:
        made: asyncio.Transport = super()._make_socket_transport(sock, *args, **options)  # type: ignore[misc]
        self.outside.watch(sock.fileno())
        return made

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        *args: Any,  # noqa: ANN401 - handed on as they come
        **options: Any,  # noqa: ANN401
    ) -> asyncio.Transport:
        made: asyncio.Transport = super()._make_ssl_transport(rawsock, *args, **options)  # type: ignore[misc]
        self.outside.watch(rawsock.fileno())
        return made

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        *args: Any,  # noqa: ANN401 - handed on as they come
        **options: Any,  # noqa: ANN401
    ) -> asyncio.DatagramTransport:
        made: asyncio.DatagramTransport = super()._make_datagram_transport(  # type: ignore[misc]
            sock, *args, **options
        )
        self.outside.watch(sock.fileno())
        return made

    async def _make_subprocess_transport(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        made = await super()._make_subprocess_transport(*args, **options)  # type: ignore[misc]
        self.outside.processes.append(made)
        return made

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection on a bare socket."""
        connection, address = await super().sock_accept(sock)
        self.outside.saw(connection)
        return connection, address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401
        """Connect a bare socket."""
        await super().sock_connect(sock, address)
        self.outside.saw(sock)

    def add_signal_handler(  # type: ignore[override]
        self,
        sig: int,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - the callback's own
    ) -> None:
        """Handle a signal; its byte comes by the loop's own pipe, unannounced."""
        self._open_pipe()
        super().add_signal_handler(sig, callback, *args)
        self.asking.outside += 1

    # --- the pipe by which other threads wake the loop -----------------------

    def _make_self_pipe(self) -> None:
        """Make none yet: most loops of tests never wait for anything real."""
        self._ssock = self._csock = None

    def _open_pipe(self) -> bool:
        """Make the pipe; tell whether somebody wanted to wake the loop before that."""
        if self._ssock is None:
            self.asking.prepare = None
            super()._make_self_pipe()  # type: ignore[misc]
            self.asking.outside -= 1
        # What a thread adds after this look, it announces by the pipe.
        return bool(self._ready)

    def _close_self_pipe(self) -> None:
        if self._ssock is not None:
            super()._close_self_pipe()  # type: ignore[misc]

    def wake(self) -> None:
        """Make the loop look around; from any thread."""
        self._write_to_self()

    def _write_to_self(self) -> None:
        self.woken = True
        super()._write_to_self()  # type: ignore[misc]


_stop_for: Callable[[asyncio.Future[Any]], object] = vars(asyncio.base_events)[
    "_run_until_complete_cb"
]

# What a runner asks of a loop before it closes it, each in a run of its own.
_LAST_LOOKS = frozenset(
    {
        asyncio.BaseEventLoop.shutdown_asyncgens.__code__,
        VirtualLoop.shutdown_default_executor.__code__,
    }
)


async def _all_done(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.gather(*futures, return_exceptions=True)
