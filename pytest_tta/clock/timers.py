"""Order the timers of a loop by instant and, at one instant, by age."""

from __future__ import annotations

import asyncio
import heapq
import math
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.timeline import NEVER, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import FrameType

    from pytest_tta.clock.choices import Unit
    from pytest_tta.clock.sleeps import Kind

__all__ = ["Timer", "drop_cancelled", "kind_of", "next_timers", "take"]

_END_OF_SLEEP = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
_END_OF_WAIT = asyncio.tasks._release_waiter  # type: ignore[attr-defined]
# Of asyncio and async_timeout, and of anyio.
_ENDS_OF_TIMEOUTS = frozenset({"Timeout._on_timeout", "CancelScope._timeout"})
_WAIT_FOR = asyncio.wait_for.__code__

_begin = asyncio.Handle.__init__
_cancel = asyncio.Handle.cancel
_by_age = attrgetter("seq")


class Timer(asyncio.TimerHandle):
    """Be a timer that fires in the order of whole nanoseconds, then of age.

    asyncio compares the instants only and its heap is not stable, so that forty
    timers of one instant would fire in an order that nobody can explain.

    Attributes:
        ns: When it fires, in nanoseconds of the loop's time.
        seq: Its age: the order among those of one instant.
        kind: What it is for.
        chain: The number, by birth, of the task that set it; -1 if none did.
        unit: What stands for it where events are chosen; None as long as none were.
    """

    __slots__ = ("chain", "kind", "ns", "seq", "unit")

    def __init__(  # noqa: PLR0917 - asyncio's order, after two numbers of ours
        self,
        ns: int,
        seq: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        """Fire at `ns` nanoseconds of the loop's time."""
        # As `TimerHandle` does, in one call less: timers are made by the million.
        _begin(self, callback, args, loop, context)
        self._when = ns / SECOND if ns < NEVER else math.inf
        self._scheduled = False
        self.ns: int = ns
        self.seq: int = seq
        self.kind: Kind = "timer"
        self.chain: int = -1
        self.unit: Unit | None = None

    def __lt__(self, other: object) -> bool:
        """Order by instant, then by age."""
        if type(other) is not Timer:
            return NotImplemented
        if self.ns == other.ns:
            return self.seq < other.seq
        return self.ns < other.ns

    def cancel(self) -> None:
        """Give it up; the loop takes it out of the heap when its time comes."""
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]
            _cancel(self)

    def move(self, ns: int, seq: int) -> None:
        """Fire at another instant; the caller keeps the order of the heap."""
        self.ns = ns if self.ns < NEVER else NEVER
        self.seq = seq
        self._when = self.ns / SECOND if self.ns < NEVER else math.inf


def kind_of(callback: object, frame: FrameType | None) -> Kind:
    """Tell from its callback what a timer is for."""
    if callback is _END_OF_SLEEP:
        return "sleep"
    # Whoever has timers of its own may say what they are for.
    if getattr(callback, "timer_kind", "") == "timeout":
        return "timeout"
    if callback is _END_OF_WAIT:
        # Python 3.11's wait_for is not yet built on asyncio.timeout.
        in_wait_for = frame is not None and frame.f_code is _WAIT_FOR
        return "timeout" if in_wait_for else "wait"
    function = getattr(callback, "__func__", None)
    name = getattr(function, "__qualname__", "")
    return "timeout" if name in _ENDS_OF_TIMEOUTS else "timer"


def drop_cancelled(heap: list[Timer]) -> None:
    """Take all cancelled timers out of the heap, wherever they stand."""
    for timer in heap:
        if timer._cancelled:
            timer._scheduled = False
    heap[:] = [timer for timer in heap if not timer._cancelled]
    heapq.heapify(heap)


def next_timers(heap: list[Timer]) -> list[Timer]:
    """List the timers of the next instant in the order of age, and drop cancelled ones.

    Args:
        heap: The timers of a loop; the list is changed.
    """
    while heap and heap[0]._cancelled:
        heapq.heappop(heap)._scheduled = False
    if not heap or heap[0].ns >= NEVER:
        return []
    ns = heap[0].ns
    for timer in heap[1:3]:
        if timer.ns == ns:
            break
    else:
        return [heap[0]]
    equal = [timer for timer in heap if timer.ns == ns and not timer._cancelled]
    return sorted(equal, key=_by_age)


def take(heap: list[Timer], timer: Timer) -> None:
    """Take a timer of the next instant out of the heap, whatever its age."""
    others: list[Timer] = []
    while (first := heapq.heappop(heap)) is not timer:
        others.append(first)
    for other in others:
        heapq.heappush(heap, other)
    timer._scheduled = False
