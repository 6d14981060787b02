"""One event loop that runs in a thread of its own, and the calls that it works on.

A `Host` belongs to the process and to the maker of loops with which it was made; which
one is the right one is decided in `loop_thread`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tta_primitives.errors import TimeoutExceededError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

__all__ = ["CLEANUP_SECONDS", "Call", "Host", "Submitted", "expired", "name_of"]

T = TypeVar("T")

CLEANUP_SECONDS = 5.0
"""How long work that was cancelled may take to clean up."""

CLOSER_SECONDS = 1.0
"""How long what closes a client may take when no time is left to drain."""

logger: logging.Logger = logging.getLogger("tta_primitives")


class Submitted(Future[T]):
    """The result of work that nobody waits for, until somebody asks.

    An error that nobody ever asks for is logged when the future is let go, as asyncio
    does it for its tasks.
    """

    what = ""
    _unseen: BaseException | None = None

    def set_exception(self, exception: BaseException | None) -> None:
        """Keep the error, and remember that nobody has seen it."""
        self._unseen = exception
        super().set_exception(exception)

    def result(self, timeout: float | None = None) -> T:
        """Return the result or raise the error, when the work has ended."""
        try:
            return super().result(timeout)
        finally:
            if self.done():
                self._unseen = None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, None if there is none, when the work has ended."""
        error = super().exception(timeout)
        self._unseen = None
        return error

    def __del__(self) -> None:
        if self._unseen is not None:
            logger.error(
                "%s failed, and nobody asked for its result",
                self.what,
                exc_info=self._unseen,
            )


class Call(Generic[T]):
    """One coroutine on its way through the loop.

    Attributes:
        what: Its name, for messages.
        future: Where its result goes.
        limit_passed: Whether it was cancelled because its time was up.
        task: What runs it, None before and after.

    Args:
        coroutine: What to run, in a copy of the contextvars of this moment.
        future: Where its result goes; cancelling it cancels the coroutine.
        name: What messages call it.
    """

    task: asyncio.Task[T] | None = None
    _host: Host | None = None
    _deadline: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], future: Future[T], name: str
    ) -> None:
        self.what = name
        self.future = future
        self.limit_passed = False
        self._context = copy_context()
        self._coroutine: Coroutine[Any, Any, T] | None = coroutine

    def send(self, host: Host, timeout: float | None = None) -> None:
        """Hand it to the loop, which cancels it after `timeout` seconds.

        Raises:
            RuntimeError: The host is closed; the coroutine has been closed, too.
        """
        self._host = host
        if timeout is not None:
            self._deadline = host.loop.time() + timeout
        host.call_soon(self._begin, context=self._context)

    def follow(self, host: Host) -> None:
        """Cancel it if its future was."""
        if self.future.cancelled():
            host.cancel(self)

    # --- in the loop's thread ------------------------------------------------

    def _begin(self) -> None:
        """Begin, unless it was cancelled before it could."""
        coroutine, self._coroutine, host = self._coroutine, None, self._host
        if coroutine is None or host is None:
            return
        if self.future.cancelled():
            coroutine.close()
            return
        task = host.loop.create_task(coroutine, name=self.what, context=self._context)
        self.task = task
        host.calls.add(self)
        task.add_done_callback(self._end)
        if self._deadline is not None:
            self._timer = host.loop.call_at(self._deadline, _Limit(self))

    def cancel(self) -> None:
        """Cancel it; where it has not begun, it never does."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()
            self.future.cancel()
        elif self.task is not None:
            self.task.cancel()

    def fail(self, error: BaseException) -> None:
        """End it with an error of the loop's own."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _end(self, task: asyncio.Task[T]) -> None:
        host, self._host, self.task = self._host, None, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if host is not None:
            host.calls.discard(self)
        if self.future.done():
            return
        if task.cancelled() and host is not None and not host.is_open:
            self.fail(RuntimeError(f"{self.what} was cancelled: {host} was closed"))
        elif task.cancelled():
            self.future.cancel()
        elif (error := task.exception()) is not None:
            self.fail(error)
        elif self.future.set_running_or_notify_cancel():
            self.future.set_result(task.result())


def name_of(coroutine: Coroutine[Any, Any, Any]) -> str:
    """Return the name of what a coroutine runs."""
    return getattr(coroutine, "__qualname__", None) or repr(coroutine)


class _Limit:
    """Cancels a call when its time is up."""

    __slots__ = ("_call",)

    timer_kind = "timeout"
    """What a log of timers may call it."""

    def __init__(self, call: Call[Any]) -> None:
        self._call = call

    def __call__(self) -> None:
        self._call.limit_passed = True
        self._call.cancel()


class Host:
    """A loop that runs in a daemon thread until it is closed.

    Attributes:
        loop: The loop.
        pid: The process that it runs in; a fork of that has only its picture.
        calls: What it works on.
        is_open: Whether it takes work.
        closers: What is called before it ends, the last first, with the seconds that
            it may take.
    """

    def __init__(self, name: str) -> None:
        self.pid: int = os.getpid()
        self.calls: set[Call[Any]] = set()
        self.is_open: bool = True
        self.closers: list[Callable[[float], Awaitable[object]]] = []
        self._lock = threading.RLock()
        self._is_stopping = False
        self._stopper: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.thread: threading.Thread = threading.Thread(
            target=self._serve, name=name, daemon=True
        )
        self.thread.start()

    def __str__(self) -> str:
        return f"the event loop of {self.thread.name!r}"

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return threading.current_thread() is self.thread

    def call_soon(
        self, function: Callable[[], object], *, context: Context | None = None
    ) -> None:
        """Call a function in the loop's thread.

        Raises:
            RuntimeError: The host is closed.
        """
        # Whoever closes it must not come between the question and the call.
        with self._lock:
            if not self.is_open:
                msg = f"{self} is closed"
                raise RuntimeError(msg)
            self.loop.call_soon_threadsafe(function, context=context)

    def cancel(self, call: Call[Any]) -> None:
        """Cancel a call, also while the host is being closed."""
        with self._lock:
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(call.cancel)
                return
        # Nobody else touches it any more.
        call.cancel()

    def close(self, timeout: float) -> None:
        """Wait for what it works on, cancel the rest and end the thread.

        Args:
            timeout: Seconds that calls get to end by themselves.
        """
        with self._lock:
            if self.is_open:
                self.is_open = False
                self.loop.call_soon_threadsafe(self._begin_to_stop, timeout)
        # Beyond what it takes to wait and to clean up: a moment for asyncio.
        spare = 1 + 2 * CLOSER_SECONDS * len(self.closers)
        self.thread.join(timeout + CLEANUP_SECONDS + spare)
        if self.thread.is_alive():
            names = ", ".join(sorted(call.what for call in list(self.calls)))
            logger.error("%s does not end: something blocks it (%s)", self, names)

    # --- in the loop's thread ------------------------------------------------

    def _serve(self) -> None:
        broken: BaseException | None = None
        try:
            while not self._is_stopping:
                try:
                    self.loop.run_forever()
                except (SystemExit, KeyboardInterrupt):
                    # One call has raised it, and gets it; the others go on.
                    continue
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            broken = error
        try:
            self._end(broken)
        finally:
            del broken

    async def idle(self) -> None:
        """Wait until no call but this one runs."""
        own = asyncio.current_task()
        while others := {call.task for call in self.calls if call.task} - {own}:
            await asyncio.wait(others)

    def _begin_to_stop(self, timeout: float) -> None:
        self._stopper = self.loop.create_task(self._stop(timeout))

    async def _stop(self, timeout: float) -> None:  # noqa: ASYNC109 - as `close`
        """Drain, close, wind up and stop the loop."""
        until = self.loop.time() + timeout
        try:
            waited = [call.task for call in self.calls if call.task is not None]
            if waited and timeout > 0:
                await asyncio.wait(waited, timeout=timeout)
            while self.closers:
                await self._call_closer(self.closers.pop(), until)
            await self._wind_up()
        finally:
            self._is_stopping = True
            self.loop.stop()

    async def _call_closer(
        self, close: Callable[[float], Awaitable[object]], until: float
    ) -> None:
        """Call what wants to know of the end; it has what is left, and a little."""
        left = max(until - self.loop.time(), CLOSER_SECONDS)
        try:
            async with asyncio.timeout(left + CLOSER_SECONDS):
                await close(left)
        except Exception:
            name = getattr(close, "__qualname__", None) or repr(close)
            logger.exception("%s failed while %s was closed", name, self)

    async def _wind_up(self) -> None:
        """Cancel whatever is left, and wait for its cleanup."""
        left = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=CLEANUP_SECONDS)
        for task in left:
            logger.error("%r ignores that it was cancelled, and is left", task)
        await self.loop.shutdown_asyncgens()

    def _end(self, broken: BaseException | None) -> None:
        """Close the loop; whoever still waits for it is told why nothing comes."""
        with self._lock:
            self.is_open = False
        calls = list(self.calls)
        if broken is not None and not calls:
            logger.error("%s broke", self, exc_info=broken)
        for call in calls:
            call.fail(broken or RuntimeError(f"{call.what} was left: {self} is closed"))
        if broken is not None:
            winding = self._wind_up()
            with suppress(Exception):
                self.loop.run_until_complete(winding)
            winding.close()
        with self._lock:
            self.loop.close()


def expired(call: Call[Any], limit: float, *, ended: bool) -> TimeoutExceededError:
    """Return the error of a call that took longer than its limit."""
    error = TimeoutExceededError(
        f"{call.what} took longer than {limit:g} s", timeout_seconds=limit
    )
    if not ended:
        error.add_note(
            f"It did not end within {CLEANUP_SECONDS:g} s of its cancellation: it "
            "swallows it, or something blocks the loop."
        )
    return error
