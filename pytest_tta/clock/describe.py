"""Tell who waits, where and for what, in the words of an error."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.places import Spot, is_library, place
from pytest_tta.clock.timeline import NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from pytest_tta.clock.sleeps import Row
    from pytest_tta.clock.timers import Timer

__all__ = [
    "busiest",
    "next_timers",
    "path_of_current",
    "remarks",
    "seconds",
    "task_line",
    "waiting_tasks",
]

# What stands between an awaiting frame and the next one, and does not name it.
_STEPS = frozenset(
    {
        "anext_awaitable",
        "async_generator_asend",
        "async_generator_athrow",
        "coroutine_wrapper",
    }
)
_INNER = _STEPS | {"async_generator", "coroutine"}
_MAX_TASKS = 20
_MAX_TIMERS = 5


def _no_path() -> str | None:
    return None


path_of_current: Callable[[], str | None] = _no_path
"""Tell the path of the primitive that runs in the current context.

Whoever knows about primitives sets it; the clock itself knows nothing of them.
"""


def _no_remarks() -> list[str]:
    return []


remarks: Callable[[], list[str]] = _no_remarks
"""Tell what a test knows of why somebody waits, such as a hang that it scripted."""


def seconds(ns: int) -> str:
    """Write nanoseconds as seconds, without digits that say nothing."""
    return f"{ns / 1e9:.9f}".rstrip("0").rstrip(".") + " s"


def waiting_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """List tasks, one per line, each with its line of code and what it waits for."""
    lines = [task_line(task) for task in tasks if not task.done()]
    hidden = len(lines) - _MAX_TASKS
    if hidden > 0:
        lines[_MAX_TASKS:] = [f"... and {hidden} more tasks"]
    return _listed("tasks:", lines) if lines else "\n  no task is left"


def task_line(task: asyncio.Task[Any]) -> str:
    """Describe one task: name, primitive path, line, what it waits for."""
    chain = list(_chain(task.get_coro()))
    path = _path_of(task)
    inside = f" in primitive {path!r}" if path else ""
    return f"{task.get_name()}{inside} at {place(_innermost(chain))}{_wanted(chain)}"


def _path_of(task: asyncio.Task[Any]) -> str | None:
    context = getattr(task, "own_context", None)
    return None if context is None else context.run(path_of_current)


def _chain(awaitable: object) -> Iterator[Spot]:
    """Walk from a task's coroutine down to what it waits for in the end."""
    while awaitable is not None:
        for prefix in ("cr", "ag", "gi"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                yield frame.f_code, frame.f_lasti
                break
        awaitable = _awaited(awaitable)


def _awaited(awaitable: object) -> object:
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        found: object = getattr(awaitable, name, None)
        if found is not None:
            return found
    return _stepped(awaitable)


def _stepped(step: object) -> object:
    """Find what a step belongs to, such as an async generator; only gc can tell."""
    if type(step).__name__ not in _STEPS:
        return None
    inner = (each for each in gc.get_referents(step) if type(each).__name__ in _INNER)
    return next(inner, None)


def _innermost(chain: list[Spot]) -> Spot | None:
    for spot in reversed(chain):
        if not is_library(spot[0].co_filename):
            return spot
    return chain[-1] if chain else None


def _wanted(chain: list[Spot]) -> str:
    """Name the library call in which a task waits, such as `Queue.get`."""
    if not chain or not is_library(chain[-1][0].co_filename):
        return ""
    entry = chain[0]
    for outer, inner in zip([None, *chain], chain, strict=False):
        if outer is not None and is_library(outer[0].co_filename):
            continue
        if is_library(inner[0].co_filename):
            entry = inner
    return f", waiting in {entry[0].co_qualname}"


def next_timers(timers: Iterable[Timer], now_ns: int, rows: Iterable[Row]) -> str:
    """List the timers that come next, with what the log knows of them."""
    pending = sorted(timer for timer in timers if not timer.cancelled())
    known = {row[0]: row for row in rows}
    lines = [
        f"{_distance(timer, now_ns)}: {_purpose(known.get(timer.seq))}"
        for timer in pending[:_MAX_TIMERS]
    ]
    return _listed("next timers:", lines) if lines else ""


def _distance(timer: Timer, now_ns: int) -> str:
    return "never" if timer.ns >= NEVER else f"in {seconds(timer.ns - now_ns)}"


def _purpose(row: Row | None) -> str:
    if row is None:
        return "set before the clock was entered"
    return f"{row[3]} of {row[4] or 'a callback'}, set at {place(row[5])}"


def busiest(rows: Iterable[Row]) -> str:
    """Name the lines that asked for time most often."""
    counted = Counter((row[4], row[3], row[5]) for row in rows)
    lines = [
        f"{times} x {kind} by {who} at {place(spot)}"
        for (who, kind, spot), times in counted.most_common(3)
    ]
    return _listed("most frequent:", lines) if lines else ""


def _listed(title: str, lines: list[str]) -> str:
    return f"\n  {title}" + "".join(f"\n    {line}" for line in lines)
