"""What a closed circuit breaker counts by: the loop's time, and a rolling window."""

from __future__ import annotations

from asyncio.events import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any

from tta_primitives.loops import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

__all__ = ["SLICES", "LoopTime", "Window"]

SLICES = 10
"""A window slides in steps of a tenth: precise enough, and constant memory."""


class _NoLoop:
    """Stands for the loop before the first one."""

    def is_running(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0


class LoopTime:
    """The time of whichever event loop is running, read quickly; it never goes back.

    A loop with a clock of its own, as tests have, may begin earlier than the one before
    it ended: then time goes on from there, so that what was to end after some seconds
    still ends after at most so many. Where the new loop is ahead, those seconds are
    over sooner.
    """

    __slots__ = ("_loop", "_offset", "_read")

    def __init__(self) -> None:
        no_loop: Any = _NoLoop()
        self._loop: AbstractEventLoop = no_loop
        self._read: Callable[[], float] = no_loop.time
        self._offset = 0.0

    def now(self) -> float:
        """Return the time in seconds; a loop must be running."""
        # Asking the loop whether it runs is quicker than asking which one does.
        if not self._loop.is_running():
            self._follow(running_loop())
        return self._read() + self._offset

    def last(self) -> float:
        """Return the time in seconds, also where no loop is running."""
        loop = _get_running_loop()
        if loop is not None and not self._loop.is_running():
            self._follow(loop)
        return self._read() + self._offset

    def _follow(self, loop: AbstractEventLoop) -> None:
        if not isinstance(self._loop, _NoLoop):
            self._offset += max(0.0, self._read() - loop.time())
        self._loop = loop
        self._read = loop.time


class Window:
    """Counts the calls of the last seconds, without keeping them one by one.

    Attributes:
        calls: How many calls there were, and among them:
        failures: How many that failed.
        slow: How many that took too long.
        turns_at: When the present slice ends; `turn` comes before counting then.
    """

    __slots__ = (
        "_before",
        "_number",
        "_slices",
        "_width",
        "calls",
        "failures",
        "slow",
        "turns_at",
    )

    def __init__(self, seconds: float) -> None:
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.turns_at = 0.0
        self._width = seconds / SLICES
        # Earlier slices, each (its number since the clock's zero, calls, failures,
        # slow); the present one is what the totals have gained since it began.
        self._slices: deque[tuple[int, int, int, int]] = deque()
        self._number = -1
        self._before = (0, 0, 0)

    def turn(self, now: float) -> None:
        """Begin the slice of this moment, dropping those that have left the window."""
        number = int(now / self._width)
        if number != self._number:
            self._end_slice()
            self._forget(number - SLICES)
            self._number = number
            self._before = (self.calls, self.failures, self.slow)
        self.turns_at = (number + 1) * self._width

    def _end_slice(self) -> None:
        calls, failures, slow = self._before
        gained = (self.calls - calls, self.failures - failures, self.slow - slow)
        if gained[0]:
            self._slices.append((self._number, *gained))

    def _forget(self, last: int) -> None:
        """Drop the slices up to and including this number."""
        slices = self._slices
        while slices and slices[0][0] <= last:
            _, calls, failures, slow = slices.popleft()
            self.calls -= calls
            self.failures -= failures
            self.slow -= slow
