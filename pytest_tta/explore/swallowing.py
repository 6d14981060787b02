"""Who has swallowed a cancellation: which of the coroutines that it was thrown into."""

from __future__ import annotations

import asyncio
import dis
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.clock.describe import awaitables
from pytest_tta.clock.places import is_library, is_ours, place

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["Thrown"]


class _Level(NamedTuple):
    """One of the coroutines, each of which waits for the next.

    Attributes:
        awaitable: The coroutine.
        name: Its function; of a library, the name of that in brackets.
        place: The user's line at which it waits; empty for a library.
        has_handler: Whether it can end an error that comes from what it waits for.
    """

    awaitable: Any
    name: str
    place: str
    has_handler: bool


class Thrown:
    """A cancellation that is about to be thrown into a task.

    Args:
        task: The task.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        levels = map(_level, awaitables(task.get_coro()))
        self._levels = [one for one in levels if one is not None]
        self._running: int | None = None

    @property
    def path(self) -> list[str]:
        """Who waits for whom, the innermost first; a library has one name."""
        names = [one.name for one in reversed(self._levels)]
        return [
            name for at, name in enumerate(names) if not at or names[at - 1] != name
        ]

    def look(self) -> None:
        """See who still runs, when the task does something again.

        What is done while somebody handles the cancellation is no sign: they may raise
        it again.
        """
        is_handled = isinstance(sys.exc_info()[1], asyncio.CancelledError)
        if self._running is None and not is_handled:
            frames = [_frame(one.awaitable) for one in self._levels]
            self._running = sum(frame is not None for frame in frames)

    @property
    def swallowers(self) -> list[str]:
        """Those who can have swallowed it: `tenacity, between read and serve`.

        It did not get past the innermost that went on, and only who has a handler can
        have ended it.
        """
        first = max(0, (self._running or 0) - 1)
        levels = enumerate(self._levels[first:], start=first)
        found = [self._told(at) for at, one in levels if one.has_handler]
        return list(dict.fromkeys(reversed(found)))

    def _told(self, at: int) -> str:
        level = self._levels[at]
        if level.place:
            return f"{level.name} ({level.place.partition(' in ')[0]})"
        outside = [one.name for one in self._levels[:at] if one.place]
        inside = [one.name for one in self._levels[at:] if one.place]
        between = (
            f", between {inside[0]} and {outside[-1]}" if inside and outside else ""
        )
        return f"{level.name.strip('()')}{between}"


def _has_handler(code: CodeType) -> bool:
    """Tell whether a function has an `except` or a `finally`, beside its `with`."""
    counts = Counter(one.opname for one in dis.get_instructions(code))
    return counts["PUSH_EXC_INFO"] > counts["WITH_EXCEPT_START"]


def _frame(awaitable: Any) -> FrameType | None:  # noqa: ANN401 - of any kind
    frames = (
        getattr(awaitable, f"{prefix}_frame", None) for prefix in ("cr", "ag", "gi")
    )
    return next((frame for frame in frames if frame is not None), None)


def _level(awaitable: Any) -> _Level | None:  # noqa: ANN401 - as above
    """Return a level; None for what is Python's, or ours, which are no news."""
    frame = _frame(awaitable)
    if frame is None:
        return None
    code = frame.f_code
    if not is_library(code.co_filename):
        name = code.co_qualname.rpartition("<locals>.")[2]
        return _Level(awaitable, name, place((code, frame.f_lasti)), _has_handler(code))
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    if not package or is_ours(code.co_filename) or package in sys.stdlib_module_names:
        return None
    return _Level(awaitable, f"({package})", "", _has_handler(code))
