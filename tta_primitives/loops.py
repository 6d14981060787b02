"""The running event loop and its time, which is asked for on the way of many calls.

On CPython 3.11 asyncio makes a system call to answer: it wants to know whether the
process is a fork of the one in which the loop was started. That takes longer than a
whole step, so there the loop that was found last is remembered. It is still the running
one if it says that it runs in the thread that asks.
"""

from __future__ import annotations

import os
import sys
from asyncio import AbstractEventLoop, BaseEventLoop, get_running_loop
from asyncio.events import _get_running_loop
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoopClock", "moment", "now", "running_loop"]


class _NoLoop:
    """Stands for a loop before one was found: no thread runs it."""

    _thread_id = None

    def is_running(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0


# What loops say of their thread is not declared.
_last: Any = _NoLoop()


def running_loop() -> AbstractEventLoop:
    """Return the event loop that runs in this thread.

    Raises:
        RuntimeError: There is none.
    """
    loop = _last
    if loop._thread_id != get_ident():
        loop = _remembered(get_running_loop())
    return loop  # type: ignore[no-any-return]


def now() -> float:
    """Return the time of the running loop, in seconds.

    Raises:
        RuntimeError: No loop is running.
    """
    loop = _last
    if loop._thread_id != get_ident():
        loop = _remembered(get_running_loop())
    return loop.time()  # type: ignore[no-any-return]


def moment() -> float | None:
    """Return the time of the running loop, None if there is none."""
    loop = _last
    if loop._thread_id is None or loop._thread_id != get_ident():
        loop = _get_running_loop()
        if loop is None:
            return None
        _remembered(loop)
    return loop.time()  # type: ignore[no-any-return]


def _forget() -> None:
    """Forget the loop of the parent: a child's thread may get the number of its."""
    global _last  # noqa: PLW0603 - as below
    _last = _NoLoop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _remembered(loop: AbstractEventLoop) -> AbstractEventLoop:
    global _last  # noqa: PLW0603 - one for the process, as most have but one loop
    # Loops of other makes may not say which thread they run in.
    if isinstance(loop, BaseEventLoop):
        _last = loop
    return loop


if sys.version_info >= (3, 12):  # To ask is cheap there, and simplest.
    running_loop = get_running_loop

    def now() -> float:
        """Return the time of the running loop, in seconds."""
        return get_running_loop().time()

    def moment() -> float | None:
        """Return the time of the running loop, None if there is none."""
        loop = _get_running_loop()
        return None if loop is None else loop.time()


class LoopClock:
    """The time of whichever event loop is running; it never goes back.

    Loops of one process usually share one clock. A loop with a clock of its own, as
    tests have, may begin earlier than the one before it ended: then time goes on from
    there, so that what was to end after some seconds ends after at most so many, and
    nothing becomes younger. Where the new loop is ahead, those seconds are over sooner.

    Attributes:
        loop: The loop that was running when the clock was last read.
        read: Returns the time in seconds, for as long as that loop is running. Asking
            it whether it is takes less time than asking which one is.
    """

    __slots__ = ("_offset", "loop", "read")

    def __init__(self) -> None:
        no_loop: Any = _NoLoop()
        self.loop: AbstractEventLoop = no_loop
        self.read: Callable[[], float] = no_loop.time
        self._offset = 0.0

    def now(self) -> float:
        """Return the time in seconds; a loop must be running."""
        if not self.loop.is_running():
            self._follow(running_loop())
        return self.read()

    def last(self) -> float:
        """Return the time in seconds, also where no loop is running."""
        loop = _get_running_loop()
        if loop is not None and not self.loop.is_running():
            self._follow(loop)
        return self.read()

    def _follow(self, loop: AbstractEventLoop) -> None:
        if not isinstance(self.loop, _NoLoop):
            self._offset += max(0.0, self.loop.time() - loop.time())
        self.loop = loop
        time, offset = loop.time, self._offset
        self.read = (lambda: time() + offset) if offset else time
