"""SIGTERM and SIGINT: heard before the host hears them, and handed on to it.

A server that is told to end closes its socket at once, so that nobody can see from
outside that it is about to. Here the signal waits: the process says that it is not
ready, goes on serving until that has got round, and only then does the host's own
handler get the signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.loops import now, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Signals", "is_main_thread"]

logger: logging.Logger = logging.getLogger("tta_primitives")

Handler: TypeAlias = Any

# A supervisor tells the whole group and the parent tells its children: that is one
# request to end, not two.
_REPEAT_SECONDS = 1.0
_NAMES = ("SIGTERM", "SIGINT", "SIGBREAK")


def is_main_thread() -> bool:
    """Tell whether handlers can be set here: only the main thread may."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """The handlers of one lifecycle, in front of those that were there.

    Args:
        begin: Called at the first signal; returns how many seconds the host must not
            hear of it yet.
        hurry: Called when another signal comes after the host has heard of the first.
        deliver: Called when the host may hear of it, with the signal and the handler
            that was there.
    """

    def __init__(
        self,
        begin: Callable[[int], float],
        hurry: Callable[[], None],
        deliver: Callable[[int, Handler], None],
    ) -> None:
        self._begin = begin
        self._hurry = hurry
        self._deliver = deliver
        self._loop = running_loop()
        self._before: dict[int, Handler] = {}
        # What the loop itself was to call, where the host asked it to.
        self._handles: dict[int, asyncio.Handle] = {}
        self._first_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def install(self) -> None:
        """Stand in front of the handlers that are there.

        What is ignored stays ignored, and so does what no Python code handles.
        """
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None:
                continue
            handle = _handle_of(self._loop, number)
            before = signal.getsignal(number)
            if handle is not None:
                self._handles[number] = handle
                self._loop.add_signal_handler(number, self._act, number)
                self._before[number] = handle
            elif before is not None and before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._hear)

    def restore(self) -> None:
        """Put back the handlers that were there, where nobody has replaced ours."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number, before in self._before.items():
            handle = self._handles.get(number)
            if handle is not None:
                # Private to asyncio, as there is no other way to put one back.
                _put_back(self._loop, number, handle)
            elif signal.getsignal(number) == self._hear:
                signal.signal(number, before)
        self._before.clear()
        self._handles.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal, between any two instructions of the main thread."""
        try:
            self._loop.call_soon_threadsafe(self._act, number)
        except RuntimeError:  # The loop is closed: there is nothing to wait for.
            before = self._before.get(number, signal.SIG_DFL)
            self.restore()
            pass_on(number, before, frame)

    def _act(self, number: int) -> None:
        present = now()
        if self._first_at is None:
            self._first_at = present
            wait = self._begin(number)
            if wait > 0:
                self._timer = self._loop.call_later(wait, self._hand_on, number)
            else:
                self._hand_on(number)
        elif present - self._first_at < _REPEAT_SECONDS:
            logger.debug("%s again, as part of the first", _name_of(number))
        elif self._timer is not None:
            self._timer.cancel()
            self._hand_on(number)
        else:
            self._hurry()
            self._hand_on(number)

    def _hand_on(self, number: int) -> None:
        self._timer = None
        self._deliver(number, self._before.get(number, signal.SIG_DFL))


def pass_on(number: int, handler: Handler, frame: FrameType | None = None) -> None:
    """Do what a handler that was there would have done."""
    if isinstance(handler, asyncio.Handle):
        handler._run()
    elif callable(handler):
        handler(number, frame)
    elif handler is signal.SIG_DFL:
        signal.raise_signal(number)


def _name_of(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def _handle_of(loop: asyncio.AbstractEventLoop, number: int) -> asyncio.Handle | None:
    """Return what a loop calls at a signal: it hears of it beside any other handler."""
    handles = getattr(loop, "_signal_handlers", None)
    return handles.get(number) if isinstance(handles, dict) else None


def _put_back(
    loop: asyncio.AbstractEventLoop, number: int, handle: asyncio.Handle
) -> None:
    callback: Any = getattr(handle, "_callback", None)
    arguments = getattr(handle, "_args", ())
    if loop.is_closed() or callback is None:
        return
    loop.add_signal_handler(number, callback, *arguments)
