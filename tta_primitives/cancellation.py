"""Whose cancellation it is: what an error has made of one, and what a group left."""

from __future__ import annotations

import inspect
import sys
from asyncio import CancelledError, current_task
from typing import TYPE_CHECKING

from tta_primitives.loops import running_loop

if TYPE_CHECKING:
    from asyncio import TaskGroup
    from types import FrameType

__all__ = ["is_cancellation", "requests", "settle"]

_GROUPS_FORGET = sys.version_info < (3, 13)


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


def requests() -> int:
    """Return how often the current task was told to end, and has not taken it back."""
    task = current_task(running_loop())
    return 0 if task is None else task.cancelling()


def settle(group: TaskGroup, before: int) -> bool:
    """Set right how often the task was cancelled in which a group has just failed.

    Before Python 3.13 the request by which a group wakes its own task stays counted, so
    that a time limit further outside takes it for one from elsewhere; and one that does
    come from elsewhere while the group is ending is lost. It is made again here.

    Args:
        group: What has raised an exception group, in the current task.
        before: How many requests there were when it was entered.

    Returns:
        Whether the task was told to end meanwhile, and will learn it at its next wait.
    """
    task = current_task()
    if task is None:
        return False
    if _GROUPS_FORGET and getattr(group, "_parent_cancel_requested", False):
        task.uncancel()
    if task.cancelling() <= before:
        return False
    if _GROUPS_FORGET:
        task.uncancel()
        task.cancel()
    return True
