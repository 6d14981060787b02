"""What a closed circuit breaker counts by: a rolling window."""

from __future__ import annotations

from collections import deque

__all__ = ["SLICES", "Window"]

SLICES = 10
"""A window slides in steps of a tenth: precise enough, and constant memory."""


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
        self.calls: int = 0
        self.failures: int = 0
        self.slow: int = 0
        self.turns_at: float = 0.0
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
