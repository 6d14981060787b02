"""How long executions took lately, and what all but a few of them stayed under."""

from __future__ import annotations

from asyncio import get_running_loop
from bisect import bisect_left, insort
from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from tta_primitives.arguments import check_count, check_number, seconds

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Latencies", "Quantile"]

# A quantile of more is no better, and to keep them in order would take longer.
_MOST = 1000


class Quantile:
    """A delay that follows the latencies which were observed lately.

    `Quantile(0.95)` is the time within which 95 of 100 executions have succeeded, by
    the nearest-rank method. Each primitive that it is given to observes by itself.

    Args:
        share: Of the executions, between 0 and 1.
        minimum_calls: While fewer are known there is no quantile, and no hedge is
            started unless `initial` says when.
        window: For how long a latency counts, in seconds. At most the latest 1000 do.
        initial: The delay while too few are known, in seconds; None for no hedge.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.
    """

    __slots__ = ("initial", "minimum_calls", "share", "window")

    def __init__(
        self,
        share: float,
        *,
        minimum_calls: int = 20,
        window: float | timedelta = 600.0,
        initial: float | timedelta | None = None,
    ) -> None:
        self.share: float = check_number("share", share)
        if self.share >= 1:
            msg = f"share={share!r} must be a number between 0 and 1"
            raise ValueError(msg)
        self.minimum_calls: int = check_count("minimum_calls", minimum_calls, minimum=1)
        if self.minimum_calls > _MOST:
            msg = f"minimum_calls={minimum_calls!r} must be at most {_MOST}"
            raise ValueError(msg)
        self.window: float = seconds("window", window)
        self.initial: float | None = (
            None if initial is None else seconds("initial", initial, zero=True)
        )

    def __repr__(self) -> str:
        initial = "" if self.initial is None else f", initial={self.initial:g}"
        return (
            f"Quantile({self.share:g}, minimum_calls={self.minimum_calls}, "
            f"window={self.window:g}{initial})"
        )


class Latencies:
    """The latencies that one primitive has shown within a sliding window.

    On a loop whose clock shows an earlier time, as in the next test, it begins anew.

    Args:
        quantile: What will be asked for.
    """

    __slots__ = ("_in_order", "_observed", "quantile")

    def __init__(self, quantile: Quantile) -> None:
        self.quantile: Quantile = quantile
        # When each was observed, and how long it took.
        self._observed: deque[tuple[float, float]] = deque()
        self._in_order: list[float] = []

    def note(self, latency: float) -> None:
        """Count an execution that took so many seconds and ends at this moment."""
        now = self._present()
        if len(self._observed) == _MOST:
            self._forget_oldest()
        self._observed.append((now, latency))
        insort(self._in_order, latency)

    def delay(self) -> float | None:
        """Return the quantile at this moment, or what stands for it; None for none."""
        self._present()
        return self.latest()

    def latest(self) -> float | None:
        """Return the quantile as of the last question, outside of a loop as well."""
        count = len(self._in_order)
        if count < self.quantile.minimum_calls:
            return self.quantile.initial
        # Rounded, because 0.07 * 100 is a hair above 7.
        rank = ceil(round(self.quantile.share * count, 9))
        return self._in_order[rank - 1]

    def _present(self) -> float:
        """Return the time, having dropped what has left the window."""
        now = get_running_loop().time()
        observed = self._observed
        if observed and observed[-1][0] > now:
            observed.clear()
            self._in_order.clear()
        while observed and observed[0][0] <= now - self.quantile.window:
            self._forget_oldest()
        return now

    def _forget_oldest(self) -> None:
        _, latency = self._observed.popleft()
        del self._in_order[bisect_left(self._in_order, latency)]
