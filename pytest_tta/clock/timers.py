"""Order the timers of a loop by instant and, at one instant, by age."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.timeline import NEVER, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import FrameType

    from pytest_tta.clock.sleeps import Kind

__all__ = ["Timer", "kind_of"]

_END_OF_SLEEP = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]
_END_OF_WAIT = asyncio.tasks._release_waiter  # type: ignore[attr-defined]
_END_OF_TIMEOUT = asyncio.Timeout._on_timeout  # type: ignore[attr-defined]
_WAIT_FOR = asyncio.wait_for.__code__


class Timer(asyncio.TimerHandle):
    """Be a timer that fires in the order of whole nanoseconds, then of age.

    asyncio compares the instants only and its heap is not stable, so that forty
    timers of one instant would fire in an order that nobody can explain.
    """

    __slots__ = ("ns", "seq")

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
        when = ns / SECOND if ns < NEVER else math.inf
        super().__init__(when, callback, args, loop, context)
        self.ns = ns
        self.seq = seq

    def __lt__(self, other: object) -> bool:
        """Order by instant, then by age."""
        if not isinstance(other, Timer):
            return NotImplemented
        return self.ns < other.ns or (self.ns == other.ns and self.seq < other.seq)

    def move(self, ns: int, seq: int) -> None:
        """Fire at another instant; the caller keeps the order of the heap."""
        self.ns = ns if self.ns < NEVER else NEVER
        self.seq = seq
        self._when = self.ns / SECOND if self.ns < NEVER else math.inf


def kind_of(callback: object, frame: FrameType | None) -> Kind:
    """Tell from its callback what a timer is for."""
    if callback is _END_OF_SLEEP:
        return "sleep"
    if callback is _END_OF_WAIT:
        # Python 3.11's wait_for is not yet built on asyncio.timeout.
        in_wait_for = frame is not None and frame.f_code is _WAIT_FOR
        return "timeout" if in_wait_for else "wait"
    if getattr(callback, "__func__", None) is _END_OF_TIMEOUT:
        return "timeout"
    # Whoever has timers of its own may say what they are for.
    return "timeout" if getattr(callback, "timer_kind", "") == "timeout" else "timer"
