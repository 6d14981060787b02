"""Which tasks go on that somebody should have ended."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pytest_tta.names import HTTP_LIBRARIES

if TYPE_CHECKING:
    import asyncio

__all__ = ["is_forgotten"]


def is_forgotten(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task goes on that somebody should have ended.

    Args:
        task: A task that was there when its workflow had ended.
    """
    return not (task.done() or _is_farewell(task) or _is_late_copy(task))


def _is_late_copy(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task comes twice or late, as in a real fleet: it may go on."""
    fleets = sys.modules.get("pytest_tta.fleet.simulation")
    return fleets is not None and bool(fleets.is_late_copy(task))


def _is_farewell(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task closes what somebody has let go of, and nobody can await it.

    A loop begins one for each async generator that is garbage before its end, as the
    SDKs of OpenAI and Anthropic leave theirs; so do they for an HTTP client, at any
    time, in whichever loop is running then.
    """
    closing = task.get_coro()
    if type(closing).__name__ == "async_generator_athrow":
        return True
    code = getattr(closing, "cr_code", None)
    if code is None or code.co_qualname != "AsyncClient.aclose":
        return False
    package = os.path.basename(os.path.dirname(code.co_filename))  # noqa: PTH119, PTH120 - compared as text
    return package in HTTP_LIBRARIES
