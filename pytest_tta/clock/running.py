"""Run a coroutine in a loop of its own as `asyncio.Runner` does, at less cost.

Two things are most of what an empty run costs there. `signal.signal` and
`signal.getsignal` make an enumeration's member of each handler that they meet: for one
that is no member, which is every one that is set here, they build an error with the
text of the handler, its task and its coroutine, and drop it. And at the end all tasks
are looked for, in a set that keeps the size that it had when the process had most.
"""

from __future__ import annotations

import asyncio
import signal
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tta.clock.tasks import is_only_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pytest_tta.clock.loop import VirtualLoop

__all__ = ["run"]

_T = TypeVar("_T")

# What the two of `signal` call, which hand on the handler as it is.
_below: Any = import_module("_signal")
_set: Callable[..., Any] = _below.signal
_get: Callable[..., Any] = _below.getsignal
_SIGINT = int(signal.SIGINT)


class _Handler:
    """Cancel a task at the first Ctrl-C, and interrupt whatever runs at the next."""

    __slots__ = ("count", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count > 1 or self.task.done():
            raise KeyboardInterrupt
        # A loop that waits for something real looks around every now and then.
        self.task.cancel()


def run(loop: VirtualLoop, coro: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in a loop, and close the loop.

    Where Python's own handler of Ctrl-C stands, in the main thread, one that cancels
    the coroutine takes its place until then.

    Raises:
        KeyboardInterrupt: It was cancelled by that and by nobody else; or Ctrl-C was
            pressed again.
    """
    task = loop.create_task(coro)
    handler = _listen(task)
    try:
        return loop.run_until_complete(task)
    except asyncio.CancelledError:
        if handler is not None and handler.count and not task.uncancel():
            raise KeyboardInterrupt from None
        raise
    finally:
        if handler is not None and _get(_SIGINT) is handler:
            _set(_SIGINT, signal.default_int_handler)
        _close(loop, task)
        # What it raises leads to this frame: the two would be cyclic garbage.
        del task, handler


def _close(loop: VirtualLoop, main: asyncio.Task[Any]) -> None:
    if main.done() and loop.is_bare and is_only_task(main):
        loop.close()
        return
    # It cancels what is left, lets it clean up, and waits for generators and threads.
    with asyncio.Runner(loop_factory=lambda: loop):
        pass


def _listen(task: asyncio.Task[Any]) -> _Handler | None:
    if _get(_SIGINT) is not signal.default_int_handler:
        return None
    handler = _Handler(task)
    try:
        _set(_SIGINT, handler)
    except ValueError:
        # Only the main thread may, and not in every program around an interpreter.
        return None
    return handler
