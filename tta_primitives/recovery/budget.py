"""A shared allowance of retries, so that they do not multiply an overload."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tta_primitives.arguments import check_count, check_number, seconds
from tta_primitives.loops import now

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["RetryBudget"]

# The window slides in steps of a tenth: precise enough, and constant memory.
_SLICES = 10


class RetryBudget:
    """Retries may be at most a share of the calls in a sliding window.

    Give one object to all retries that call the same service. As in the retry budgets
    of Finagle and of the SRE book (chapter 22, "Addressing Cascading Failures"), a few
    retries are always allowed, so that a service with little traffic is retried too.

    A budget belongs to one event loop at a time. On a loop whose clock shows an earlier
    time, as in the next test, it begins anew.

    Args:
        ratio: How many retries there may be for each call, above 0.
        min_retries: So many are allowed in each window whatever the ratio.
        window: Over how long calls and retries are counted, in seconds.

    Raises:
        TypeError: The ratio or the window is no number.
        ValueError: One of them is not positive, or `min_retries` is no count.
    """

    __slots__ = ("_calls", "_retries", "_slices", "min_retries", "ratio", "window")

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        min_retries: int = 3,
        window: float | timedelta = 10.0,
    ) -> None:
        self.ratio: float = check_number("ratio", ratio)
        self.min_retries: int = check_count("min_retries", min_retries)
        self.window: float = seconds("window", window)
        # Each slice is [its number since the loop's zero, calls, retries].
        self._slices: deque[list[int]] = deque()
        self._calls = 0
        self._retries = 0

    def note_call(self) -> None:
        """Count a call, which is not a retry, at the present of the running loop."""
        self._present()[1] += 1
        self._calls += 1

    def take(self) -> bool:
        """Take one retry if there is one left; tell whether there was."""
        present = self._present()
        if self._retries >= self._allowed():
            return False
        present[2] += 1
        self._retries += 1
        return True

    def remaining(self) -> int:
        """Return how many retries are left at this moment."""
        self._present()
        return max(0, int(self._allowed() - self._retries))

    def _allowed(self) -> float:
        # Rounded, because 0.2 * 15 is a hair above 3 and 0.1 * 30 a hair as well.
        return max(self.min_retries, int(round(self.ratio * self._calls, 9)))

    def _present(self) -> list[int]:
        """Return the slice of now, dropping those that have left the window."""
        number = int(now() * _SLICES / self.window)
        slices = self._slices
        if slices and slices[-1][0] == number:
            return slices[-1]
        if slices and slices[-1][0] > number:
            slices.clear()
            self._calls = self._retries = 0
        while slices and slices[0][0] <= number - _SLICES:
            _, calls, retries = slices.popleft()
            self._calls -= calls
            self._retries -= retries
        slices.append([number, 0, 0])
        return slices[-1]

    def __repr__(self) -> str:
        return (
            f"RetryBudget(ratio={self.ratio:g}, min_retries={self.min_retries}, "
            f"window={self.window:g})"
        )
