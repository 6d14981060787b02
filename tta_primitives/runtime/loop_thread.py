"""One event loop for a process whose own code is synchronous: Flask, Celery, RQ.

`asyncio.run` for each request makes a loop and throws it away with every connection
that was opened in it. Here there is one loop, in a thread of its own, that all of the
process's threads hand their coroutines to; clients and pools live as long as it does.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import inspect
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.arguments import seconds
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.runtime.loop_host import (
    CLEANUP_SECONDS,
    Call,
    Host,
    Submitted,
    expired,
    logger,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LoopThread", "loop_thread", "release"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for code that is not async.

    It starts with its first call, and again in a process that was forked: what a
    worker inherits from its parent is the picture of a loop that nobody runs.

    Where `asyncio.new_event_loop` is replaced, as in a test that has virtual time,
    the loops that it makes are used as long as it stands there.

    Args:
        name: The name of the thread.
        drain_seconds: How long work may go on when the interpreter ends.

    Attributes:
        name: As above.
        drain_seconds: As above; it may be set until then.
    """

    def __init__(self, *, name: str = "tta-loop", drain_seconds: float = 5.0) -> None:
        self.name = name
        self.drain_seconds: float = seconds("drain_seconds", drain_seconds, zero=True)
        self._hosts: dict[object, Host] = {}
        self._closed_in: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether the loop has been started in this process, and not closed."""
        host = self._hosts.get(asyncio.new_event_loop)
        return host is not None and host.is_open and host.pid == os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called in this process."""
        return self._closed_in == os.getpid()

    def run(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        timeout: float | None = None,
        name: str | None = None,
    ) -> T:
        """Run a coroutine on the loop and return its result; block until then.

        It runs in a copy of the caller's contextvars. Whatever is raised in the thread
        that waits (Ctrl-C, a soft time limit, the exit of a worker) cancels it; its
        cleanup then has five seconds.

        Args:
            coroutine: What to run.
            timeout: Seconds after which it is cancelled, on the loop's clock.
            name: What errors and logs call it; that of its function unless given.

        Raises:
            TimeoutExceededError: It took longer than `timeout`.
            concurrent.futures.CancelledError: It was cancelled by somebody else.
            RuntimeError: This was called in the loop's own thread, or after `close`.
            TypeError: It is no coroutine.
        """
        _check_coroutine(self, "run", coroutine)
        what = name or name_of(coroutine)
        limit = _limit(coroutine, timeout, what)
        host = self._host_for(coroutine)
        if host.is_here:
            raise _waiting_for_itself(self, coroutine)
        call: Call[T] = Call(coroutine, Future(), what)
        ended = threading.Event()
        call.future.add_done_callback(lambda _: ended.set())
        try:
            try:
                call.send(host, limit)
                # The loop sees to the limit; only one that is blocked does not.
                ended.wait(None if limit is None else limit + CLEANUP_SECONDS)
            except BaseException:
                _abandon(call, host, ended)
                raise
            if limit is not None and not ended.is_set():
                host.cancel(call)
                raise expired(call, limit, ended=False)
            if limit is not None and call.limit_passed:
                raise expired(call, limit, ended=True) from _error_of(call)
            return call.future.result()
        finally:
            # An error's traceback holds this frame, which must not hold the error.
            del call

    def submit(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> Future[T]:
        """Begin a coroutine on the loop and return the future of its result.

        It runs in a copy of the caller's contextvars; cancelling the future cancels
        it. What is still running when the process ends has `drain_seconds`.

        Args:
            coroutine: What to run.
            name: As for `run`.

        Raises:
            RuntimeError: The loop thread is closed.
            TypeError: It is no coroutine.
        """
        _check_coroutine(self, "submit", coroutine)
        host = self._host_for(coroutine)
        future: Submitted[T] = Submitted()
        future.what = name or name_of(coroutine)
        call = Call(coroutine, future, future.what)
        future.add_done_callback(lambda _: call.follow(host))
        try:
            call.send(host)
        except BaseException:
            coroutine.close()
            raise
        return future

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until no call runs; tell whether that was so in time.

        For hosts whose processes end hard after each piece of work.

        Args:
            timeout: Seconds to wait, on the loop's clock; without end unless given.

        Raises:
            RuntimeError: This was called in the loop's own thread, or after `close`.
        """
        try:
            self.run(self._host().idle(), timeout=timeout)
        except TimeoutExceededError:
            return False
        return True

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's own, where nothing may block."""
        return any(host.is_here for host in list(self._hosts.values()))

    def time(self) -> float:
        """Return the loop's time in seconds, from any thread: what deadlines are in."""
        return self.loop.time()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this process, started if it is not; it is another after a fork.

        Whatever it offers except `call_soon_threadsafe` and `time` belongs to its own
        thread.
        """
        return self._host().loop

    def at_close(self, function: Callable[[float], Awaitable[object]]) -> None:
        """Call an async function on the loop before it ends, the last one first.

        It is called when no call runs any more, for what has to be closed on the loop
        that opened it. It belongs to the loop of this moment: a process that is forked
        begins with none.

        Args:
            function: Gets the seconds that it may take.
        """
        self._host().closers.append(function)

    def close(self, timeout: float | None = None) -> None:
        """Wait for what runs, cancel what is left after that, and end the thread.

        Args:
            timeout: Seconds that running work gets to end by itself; `drain_seconds`
                unless given. What is cancelled then has five more to clean up.

        Raises:
            RuntimeError: This was called in the loop's own thread.
        """
        given = self.drain_seconds if timeout is None else timeout
        limit = seconds("timeout", given, zero=True)
        if self.is_here:
            msg = f"{self!r} cannot be closed in its own thread: it would wait for it"
            raise RuntimeError(msg)
        with _lock:
            self._closed_in = os.getpid()
            hosts, self._hosts = self._hosts, {}
            _started.discard(self)
        for host in hosts.values():
            if host.pid == os.getpid():
                host.close(limit)
            else:
                _inherited.append(host)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "idle"
        return f"<LoopThread {self.name!r} {'running' if self.is_running else state}>"

    def _host_for(self, coroutine: Coroutine[Any, Any, Any]) -> Host:
        """Return the host of this process; close the coroutine if there is none."""
        try:
            return self._host()
        except BaseException:
            coroutine.close()
            raise

    def _host(self) -> Host:
        """Return the host of this process, started if it is not."""
        host = self._hosts.get(asyncio.new_event_loop)
        if host is None or host.pid != os.getpid() or not host.is_open:
            host = self._start()
        return host

    def _start(self) -> Host:
        with _lock:
            if self.is_closed:
                msg = f"{self!r} takes no more work: close() was called"
                raise RuntimeError(msg)
            maker = asyncio.new_event_loop
            host = self._hosts.get(maker)
            if host is not None and host.pid != os.getpid():
                _inherited.append(host)
                host = None
            if host is None or not host.is_open:
                _close_at_exit()
                host = self._hosts[maker] = Host(self.name)
                _started.add(self)
            return host


def loop_thread() -> LoopThread:
    """Return the loop thread that all sync hosts of this process share.

    If somebody has closed it, the next one asked for is a new one, except when the
    interpreter is ending: what came then would be lost.
    """
    global _shared  # noqa: PLW0603 - one for the process
    if _shared.is_closed and not _ended:
        with _lock:
            if _shared.is_closed:
                _shared = LoopThread(drain_seconds=_shared.drain_seconds)
    return _shared


def release(maker: object) -> None:
    """Close the loops that a maker of loops has made for loop threads; others stay.

    Args:
        maker: What stood for `asyncio.new_event_loop` when they were made.
    """
    for thread in list(_started):
        with _lock:
            host = thread._hosts.pop(maker, None)
        if host is not None and host.pid == os.getpid():
            host.close(thread.drain_seconds)


def _limit(
    coroutine: Coroutine[Any, Any, Any], timeout: float | None, what: str
) -> float | None:
    """Return the checked limit; refuse to begin what has no time at all."""
    if timeout is None:
        return None
    try:
        limit = seconds("timeout", timeout, zero=True)
    except BaseException:
        coroutine.close()
        raise
    if limit == 0:
        coroutine.close()
        msg = f"{what} had no time left to start"
        raise TimeoutExceededError(msg, timeout_seconds=limit)
    return limit


def _abandon(call: Call[Any], host: Host, ended: threading.Event) -> None:
    """Cancel what nobody waits for any more, and see its cleanup through."""
    host.cancel(call)
    if not ended.wait(CLEANUP_SECONDS):
        logger.error(
            "%s did not end within %g s of its cancellation", call.what, CLEANUP_SECONDS
        )


def _error_of(call: Call[Any]) -> BaseException | None:
    """Return what a call that was cancelled has raised of its own."""
    return None if call.future.cancelled() else call.future.exception()


def _check_coroutine(thread: LoopThread, method: str, given: object) -> None:
    """Refuse what cannot be run, and say what to write instead."""
    if isinstance(given, Coroutine):
        return
    msg = f"{thread!r} needs a coroutine for {method}(), not {given!r}"
    if inspect.iscoroutinefunction(given):
        name = getattr(given, "__name__", "work")
        msg = (
            f"{thread!r} needs a coroutine, not the function {name!r}: call it, "
            f"{method}({name}(...))"
        )
    raise TypeError(msg)


def _waiting_for_itself(
    thread: LoopThread, coroutine: Coroutine[Any, Any, Any]
) -> RuntimeError:
    """Say why a loop cannot wait for what it is to run itself."""
    coroutine.close()
    return RuntimeError(
        f"{thread!r} cannot run {name_of(coroutine)} in its own thread, which would "
        "wait for itself: inside async code write `await`, not run()"
    )


# --- the process: its shared thread, forks, and the end ---------------------

_lock = threading.RLock()
_started: set[LoopThread] = set()
# What a child got from its parent is kept and never touched: to take a socket out of
# a loop's poll would take it out of the parent's, too.
_inherited: list[Host] = []
_shared = LoopThread()
_registered = False
_ended = False


def _close_at_exit() -> None:
    """See to it that work that was submitted is not lost when the interpreter ends."""
    global _registered  # noqa: PLW0603 - once for the process
    if _registered:
        return
    _registered = True
    # Functions of `atexit` come after Python has told all pools of threads to take no
    # more work, and asyncio resolves host names in one. This list comes before, last
    # in first out, so that the module with the pools has to be there first.
    importlib.import_module("concurrent.futures.thread")
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_close_all)


def _close_all() -> None:
    global _ended  # noqa: PLW0603 - as above
    _ended = True
    for thread in list(_started):
        if any(host.pid == os.getpid() for host in list(thread._hosts.values())):
            thread.close()


def _forget_parents() -> None:
    """Begin anew in a process that was forked, perhaps with the lock taken."""
    global _lock  # noqa: PLW0603 - as above
    _lock = threading.RLock()
    for thread in list(_started):
        _inherited.extend(thread._hosts.values())
        thread._hosts = {}
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
