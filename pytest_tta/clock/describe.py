"""Tell who waits, where and for what, in the words of an error."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.places import Spot, is_library, is_ours, place
from pytest_tta.clock.timeline import NEVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from pytest_tta.clock.sleeps import Row
    from pytest_tta.clock.timeline import Timeline
    from pytest_tta.clock.timers import Timer

__all__ = [
    "awaitables",
    "busiest",
    "deadlock_text",
    "instant",
    "next_timers",
    "path_of_current",
    "paused_text",
    "poll_text",
    "remarks",
    "runaway_text",
    "seconds",
    "spin_text",
    "state",
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


def instant(timeline: Timeline) -> str:
    """Write the present as errors do."""
    return f"at {seconds(timeline.elapsed_ns)} of virtual time"


def deadlock_text(timeline: Timeline) -> str:
    """Say that nothing can wake anybody."""
    return (
        f"every task waits and nothing is left that could wake one, {instant(timeline)}"
    )


def runaway_text(jumps: int, timeline: Timeline) -> str:
    """Say that time was moved without an end."""
    return (
        f"time was moved {jumps} times without an end, now {instant(timeline)}; stop "
        f"what repeats for ever, or set max_jumps= higher{busiest(timeline.rows)}"
    )


def spin_text(rounds: int, timeline: Timeline) -> str:
    """Say that callbacks keep time from moving."""
    return (
        f"callbacks ran {rounds} times in a row {instant(timeline)} and left no moment "
        "for time to move; wait with asyncio.sleep(seconds) or an asyncio.Event "
        "instead of asyncio.sleep(0) in a loop"
    )


def poll_text(answers: int, timeline: Timeline) -> str:
    """Say that whoever asks the outside keeps time from moving."""
    return (
        f"the outside answered {answers} times in a row {instant(timeline)}, and was "
        "asked again each time; wait with asyncio.sleep(seconds) between two calls, or "
        "bound their number"
    )


def paused_text(due: int, timeline: Timeline) -> str:
    """Say that time is moved by hand, and nobody moves it to the next timer."""
    away = seconds(due - timeline.now_ns)
    return (
        f"every task waits, and the clock is moved by hand: next timer in {away}; "
        f"call `await clock.advance({away.removesuffix(' s')})` or set "
        "`clock.autojump = True`"
    )


def state(
    tasks: Iterable[asyncio.Task[Any]], timers: Iterable[Timer], timeline: Timeline
) -> str:
    """Tell, for the end of an error, what tests know, who waits and what comes next."""
    told = "".join(f"\n{remark}" for remark in remarks())
    coming = next_timers(timers, timeline.now_ns, timeline.rows)
    return f"{told}{waiting_tasks(tasks)}{coming}"


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
    spot = _innermost(chain)
    if spot is None and path is None and chain:
        spot = chain[-1]
    at = "" if spot is None else f" at {place(spot)}"
    return f"{task.get_name()}{_inside(path)}{at}{_wanted(chain)}"


def _inside(path: str | None) -> str:
    return f" in primitive {path!r}" if path else ""


def _path_of(task: asyncio.Task[Any]) -> str | None:
    context = getattr(task, "own_context", None)
    return None if context is None else context.run(path_of_current)


def _chain(awaitable: object) -> Iterator[Spot]:
    """Walk from a task's coroutine down to what it waits for in the end."""
    for one in awaitables(awaitable):
        for prefix in ("cr", "ag", "gi"):
            frame = getattr(one, f"{prefix}_frame", None)
            if frame is not None:
                yield frame.f_code, frame.f_lasti
                break


def awaitables(awaitable: object) -> Iterator[object]:
    """Yield what waits for what, from a task's coroutine to the innermost.

    Args:
        awaitable: The coroutine.
    """
    while awaitable is not None:
        yield awaitable
        awaitable = _awaited(awaitable)


def _awaited(awaitable: object) -> object:
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        found: object = getattr(awaitable, name, None)
        if found is not None:
            return found
    frame = getattr(awaitable, "gi_frame", None)
    return _stepped(awaitable) if frame is None else _handed_through(frame)


def _stepped(step: object) -> object:
    """Find what a step belongs to, such as an async generator; only gc can tell."""
    if type(step).__name__ not in _STEPS:
        return None
    inner = (each for each in gc.get_referents(step) if type(each).__name__ in _INNER)
    return next(inner, None)


def _handed_through(frame: FrameType) -> object:
    """Return what a generator of ours drives by hand, before it delegates to it."""
    is_our_own = is_ours(frame.f_code.co_filename)
    return frame.f_locals.get("awaited") if is_our_own else None


def _innermost(chain: list[Spot]) -> Spot | None:
    """Return the innermost line of the user's own code, if there is any."""
    own = (spot for spot in reversed(chain) if not is_library(spot[0].co_filename))
    return next(own, None)


def _wanted(chain: list[Spot]) -> str:
    """Name the library call in which a task waits, such as `Queue.get`.

    Frames of ours say nothing to a user who looks for a line of their own.
    """
    entry: Spot | None = None
    for spot in chain:
        if not is_library(spot[0].co_filename):
            entry = None
        elif entry is None and not _says_nothing(spot):
            entry = spot
    return "" if entry is None else f", waiting in {entry[0].co_qualname}"


def _says_nothing(spot: Spot) -> bool:
    """Tell whether a frame is ours, or the `async with` of any lock or semaphore."""
    code = spot[0]
    is_mixin = code.co_qualname.startswith("_ContextManagerMixin.")
    return is_mixin or is_ours(code.co_filename)


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
    kind, who, spot, path = row[3:]
    return f"{kind} of {who or 'a callback'}{_inside(path)}{_at(', set at', spot)}"


def busiest(rows: Iterable[Row]) -> str:
    """Name the lines that asked for time most often."""
    counted = Counter(
        (kind, who, spot, path) for _, _, _, kind, who, spot, path in rows
    )
    lines = [
        f"{times} x {kind} by {who or 'a callback'}{_inside(path)}{_at(' at', spot)}"
        for (kind, who, spot, path), times in counted.most_common(3)
    ]
    return _listed("most frequent:", lines) if lines else ""


def _at(word: str, spot: Spot | None) -> str:
    """Name the line that asked for time, unless it is ours: then the path says more."""
    ours = spot is not None and is_ours(spot[0].co_filename)
    return "" if ours else f"{word} {place(spot)}"


def _listed(title: str, lines: list[str]) -> str:
    return f"\n  {title}" + "".join(f"\n    {line}" for line in lines)
