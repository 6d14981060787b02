"""Whose cancellation it is: what an error has made of one, and what a group left."""

from __future__ import annotations

import inspect
import sys
from asyncio import CancelledError, current_task
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import TaskGroup
    from types import FrameType

__all__ = ["is_cancellation", "settle"]

# From 3.13 on a group takes back what it has requested.
_LEAVES_REQUESTS = sys.version_info < (3, 13)


def is_cancellation(error: Exception) -> bool:
    """Tell whether an error stands for a cancellation of the current task.

    A driver that reports a broken connection, or a `finally` that fails, puts an error
    of its own in the place of a CancelledError. Whoever tries again after it keeps a
    task at work that was told to end.

    A task that was cancelled earlier may clean up with retries of its own: what is
    being handled further outside counts no more. Nor does what a time limit has turned
    into its TimeoutError and taken back.

    Args:
        error: What was raised and is being handled.
    """
    if error.__context__ is error.__cause__ is None and (
        not isinstance(error, ExceptionGroup)
    ):
        return False
    task = current_task()
    return task is not None and task.cancelling() > 0 and _stems_from_one(error)


def _stems_from_one(error: Exception) -> bool:
    """Tell whether a CancelledError, not yet caught by a caller, led to an error."""
    callers = _callers()
    seen: set[int] = set()
    causes: list[BaseException | None] = [error]
    while causes:
        cause = causes.pop()
        if cause is None or id(cause) in seen or isinstance(cause, TimeoutError):
            continue
        seen.add(id(cause))
        if isinstance(cause, CancelledError):
            trace = cause.__traceback__
            if trace is None or id(trace.tb_frame) not in callers:
                return True
        elif isinstance(cause, BaseExceptionGroup):
            causes += cause.exceptions
        causes += [cause.__cause__, cause.__context__]
    return False


def _callers() -> set[int]:
    """Return the ids of the frames that are running; frames themselves would be kept.

    A traceback begins at the outermost frame that an error has reached.
    """
    found = set()
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found


def settle(group: TaskGroup) -> None:
    """Take back the cancellation by which a failed group woke its own task.

    Before Python 3.13 it stays counted if the group was waiting for its tasks, and a
    time limit further outside would take it for one from elsewhere (`Task.uncancel`).

    Args:
        group: What has just raised an exception group, in the current task.
    """
    task = current_task()
    is_left = _LEAVES_REQUESTS and getattr(group, "_parent_cancel_requested", False)
    if is_left and task is not None:
        task.uncancel()
