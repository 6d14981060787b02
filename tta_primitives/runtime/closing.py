"""What is closed at the end: the last first, each in its own share of the time."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from tta_primitives.loops import now, running_loop

__all__ = ["Closer", "close_all", "flush_last", "flush_with", "flush_without"]

logger: logging.Logger = logging.getLogger("tta_primitives")

Close: TypeAlias = Callable[[], object]

# How long what was cancelled has to end before nobody waits for it any more.
_GRACE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Closer:
    """Something to be closed.

    Attributes:
        close: Closes it: a sync or an async function without parameters.
        name: What it is called in the log.
        timeout: Seconds that it may take.
        blocking: Whether it is a sync function that may block: it gets a thread.
    """

    close: Close
    name: str
    timeout: float
    blocking: bool


async def close_all(closers: list[Closer], until: float) -> list[str]:
    """Close everything, the last first; return the names of what could not be closed.

    Args:
        closers: Emptied while they are closed; one may add others.
        until: When all of it must be over, in seconds of the loop's clock. Each may
            take an equal share of what is left, so that one that hangs leaves time for
            those after it.
    """
    failed = []
    while closers:
        share = (until - now()) / len(closers)
        closer = closers.pop()
        if not await _closed(closer, max(0.0, min(closer.timeout, share))):
            failed.append(closer.name)
    return failed


Flush: TypeAlias = Callable[[float], object]

_flushes: list[Flush] = []


def flush_with(flush: Flush) -> None:
    """Let the end of every lifecycle send what waits in this process, such as spans.

    A server may end its process by a signal as soon as it has drained, and then nothing
    runs that was registered for the interpreter's exit.

    Args:
        flush: Blocks for at most the seconds that it is given; called in a thread.
    """
    _flushes.append(flush)


def flush_without(flush: Flush) -> None:
    """Forget what was given to `flush_with`; what was not is no error."""
    if flush in _flushes:
        _flushes.remove(flush)


async def flush_last(until: float) -> None:
    """Send what waits, when everything else is closed.

    Args:
        until: When it must be over, in seconds of the loop's clock.
    """
    for flush in tuple(_flushes):
        left = max(0.0, until - now())
        name = getattr(flush, "__qualname__", repr(flush))
        closer = Closer(partial(flush, left), name, left, blocking=True)
        await _closed(closer, left)


async def _closed(closer: Closer, limit: float) -> bool:
    # A task of its own can be left behind if it cannot be cancelled.
    task = running_loop().create_task(_close(closer), name=f"closing {closer.name}")
    try:
        await asyncio.wait({task}, timeout=limit)
    finally:
        task.cancel()
    if not task.done():
        logger.error("closing %s took longer than %.3g s", closer.name, limit)
        await asyncio.wait({task}, timeout=_GRACE_SECONDS)
        return False
    return not task.cancelled() and task.result()


async def _close(closer: Closer) -> bool:
    try:
        made = _threaded(closer) if closer.blocking else closer.close()
        if inspect.isawaitable(made):
            await made
    except Exception:
        logger.exception("closing %s failed", closer.name)
        return False
    return True


def _threaded(closer: Closer) -> asyncio.Future[None]:
    """Close in a thread that holds up nobody's exit, as those of a pool would."""
    loop = running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        problem = None
        try:
            closer.close()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            problem = error
        try:
            loop.call_soon_threadsafe(tell, problem)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            logger.debug("%s was closed too late", closer.name)

    context = copy_context()
    name = f"closing {closer.name}"
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return done
