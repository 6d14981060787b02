"""When the next call may start: the arithmetic of rate limits, without any waiting.

Nothing here adds up durations, which would drift. A bucket remembers a moment and how
many units were taken since, and reckons every start from these two.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SLACK",
    "Algorithm",
    "Bucket",
    "LeakyBucket",
    "Limit",
    "SlidingWindow",
    "TokenBucket",
]

Algorithm: TypeAlias = Literal["token_bucket", "leaky_bucket", "sliding_window"]

SLACK: Final = 1e-9
"""What counts as no time at all, in seconds: 0.1 + 0.2 is a hair above 0.3."""

# The same for units, whose sums may be of fractions.
_CRUMB: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Limit:
    """What a rate limit allows.

    Attributes:
        algorithm: How it is reckoned.
        rate: So many units in each period.
        period: In seconds.
        capacity: No call may cost more units; infinite where nothing sets a limit.
    """

    algorithm: Algorithm
    rate: float
    period: float
    capacity: float

    def seconds_for(self, units: float) -> float:
        """Return how long it takes until so many units have come."""
        # In this order: 3 * 1 / 10 is 0.3, and 3 * (1 / 10) is not.
        return units * self.period / self.rate

    def bucket(self) -> Bucket:
        """Return the state of a key that nobody has used yet."""
        return _KINDS[self.algorithm](self)


class Bucket:
    """The state of one key.

    Attributes:
        adds_up: Whether it is enough to know the units of those ahead of a call, and
            not each one's.
        closed_until: Nobody starts before this moment: a penalty.
    """

    __slots__ = ("_limit", "closed_until")

    adds_up: ClassVar[bool] = True

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self.closed_until: float = -math.inf

    def due(self, now: float, cost: float, ahead: float = 0.0) -> float:
        """Return when a call may start; not above `now` if it may start at once.

        Args:
            now: The present.
            cost: Its units.
            ahead: The units of those who start before it.
        """
        raise NotImplementedError

    def take(self, now: float, cost: float) -> None:
        """Note that a call starts now, which must be due."""
        raise NotImplementedError

    def enter(self, now: float, cost: float) -> bool:
        """Take the units of a call if it is due now; tell whether it is."""
        if self.due(now, cost) > now + SLACK:
            return False
        self.take(now, cost)
        return True

    def give_back(self, taken_at: float, cost: float) -> None:
        """Take back that a call has started, a moment ago."""
        raise NotImplementedError

    def penalize(self, until: float) -> None:
        """Let nobody start before a moment, and then not all at once."""
        self.closed_until = max(self.closed_until, until)

    def has_room(self, now: float, waiting: float) -> bool:  # noqa: ARG002 - for those who override this
        """Tell whether so many units may wait."""
        return True

    def available(self, now: float) -> float:
        """Return the units that could start now."""
        raise NotImplementedError

    def idle_at(self) -> float:
        """Return from when on it is as good as a new one."""
        raise NotImplementedError

    def copy(self) -> Bucket:
        """Return another in the same state; only of those that do not add up."""
        raise NotImplementedError


class TokenBucket(Bucket):
    """Holds `capacity` units when it is full, and fills at the rate.

    Attributes:
        full_at: When it is full if nobody takes more.
    """

    __slots__ = ("_since", "_spent", "full_at")

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        # It was full at one moment, and since then so many units were taken.
        self.full_at: float = -math.inf
        self._since = -math.inf
        self._spent = 0.0

    def due(self, now: float, cost: float, ahead: float = 0.0) -> float:
        """Return when there are enough units for a call, after those ahead of it."""
        limit = self._limit
        spent, since = self._spent, self._since
        if now > self.full_at:
            spent, since = 0.0, now
        start = since + limit.seconds_for(spent + ahead + cost - limit.capacity)
        return max(start, self.closed_until)

    def take(self, now: float, cost: float) -> None:
        """Take the units of a call."""
        if now > self.full_at + SLACK:
            self._since = now
            self._spent = 0.0
        self._spent += cost
        self._reckon()

    def enter(self, now: float, cost: float) -> bool:
        """Take the units of a call if there are enough; tell whether there were."""
        # As `due` and `take`, at half their price: this is in the way of every call.
        limit, spent = self._limit, self._spent + cost
        soon = now + SLACK
        if now > self.full_at + SLACK:
            self._since, spent = now, cost
        elif self.closed_until > soon or (
            self._since + (spent - limit.capacity) * limit.period / limit.rate > soon
        ):
            return False
        self._spent = spent
        self.full_at = self._since + spent * limit.period / limit.rate
        return True

    def give_back(self, taken_at: float, cost: float) -> None:  # noqa: ARG002 - as its base
        """Put the units of a call back."""
        # Not below 0: a penalty may have emptied it in between.
        self._spent = max(0.0, self._spent - cost)
        self._reckon()

    def penalize(self, until: float) -> None:
        """Empty it, so that there is one unit when the penalty is over."""
        super().penalize(until)
        others = max(0.0, self._limit.capacity - 1)
        self._begin_at(until + self._limit.seconds_for(others))

    def available(self, now: float) -> float:
        """Return the units in it."""
        if now < self.closed_until - SLACK:
            return 0.0
        limit = self._limit
        missing = max(0.0, self.full_at - now) * limit.rate / limit.period
        return max(0.0, limit.capacity - missing)

    def idle_at(self) -> float:
        """Return when it is full."""
        return max(self.full_at, self.closed_until)

    def _begin_at(self, moment: float) -> None:
        """Let it be full then, unless that is later already."""
        if moment > self.full_at:
            self._since = moment
            self._spent = 0.0
            self._reckon()

    def _reckon(self) -> None:
        self.full_at = self._since + self._limit.seconds_for(self._spent)


class LeakyBucket(TokenBucket):
    """Lets calls out one after the other, each so long after the one before as it cost.

    `full_at` is when the next may start; the capacity is how many units may be in it,
    those of the call that was let out last among them until the next is due.
    """

    __slots__ = ()

    def due(self, now: float, cost: float, ahead: float = 0.0) -> float:  # noqa: ARG002 - as its base
        """Return when everything ahead of a call has run out."""
        spent, since = self._spent, self._since
        if now > self.full_at:
            spent, since = 0.0, now
        start = since + self._limit.seconds_for(spent + ahead)
        return max(start, self.closed_until)

    def enter(self, now: float, cost: float) -> bool:
        """Let a call out if the one before has run out; tell whether it has."""
        limit, full_at = self._limit, self.full_at
        if full_at > now + SLACK:
            return False
        if now > full_at + SLACK:
            self._since, self._spent = now, 0.0
        spent = self._spent = self._spent + cost
        self.full_at: float = self._since + spent * limit.period / limit.rate
        return True

    def penalize(self, until: float) -> None:
        """Let the next start when the penalty is over."""
        self.closed_until: float = max(self.closed_until, until)
        self._begin_at(until)

    def has_room(self, now: float, waiting: float) -> bool:
        """Tell whether so many units fit in, beside what has not yet run out."""
        limit = self._limit
        left = max(0.0, self.full_at - max(now, self.closed_until))
        inside = left * limit.rate / limit.period
        return inside + waiting <= limit.capacity + _CRUMB

    def available(self, now: float) -> float:
        """Return 1 if a call could start now, else 0."""
        return 1.0 if self.due(now, 1.0) <= now + SLACK else 0.0


class SlidingWindow(Bucket):
    """Remembers every start of the last period, and allows `rate` units among them.

    A period is open at its end: what started exactly one period ago has left.
    """

    __slots__ = ("_first", "_gone", "_sums", "_times")

    adds_up = False

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        # The moments of all starts, and the units up to each of them. Those before
        # `_first` have left, with `_gone` units.
        self._times: list[float] = []
        self._sums: list[float] = []
        self._first = 0
        self._gone = 0.0

    def due(self, now: float, cost: float, ahead: float = 0.0) -> float:  # noqa: ARG002 - as its base
        """Return when enough starts have left; nobody may be ahead."""
        self._forget(now)
        start = max(now, self.closed_until)
        if not self._times:
            return start
        # Not before the last one, which in a plan is still to come.
        start = max(start, self._times[-1])
        must_go = self._total() + cost - self._limit.rate - _CRUMB
        if must_go <= self._gone:
            return start
        last = bisect_left(self._sums, must_go, lo=self._first)
        return max(start, self._times[last] + self._limit.period)

    def enter(self, now: float, cost: float) -> bool:
        """Remember a start if it fits in; tell whether it does."""
        times, sums = self._times, self._sums
        if times and times[self._first] <= now - self._limit.period + SLACK:
            self._forget(now)
        total = (sums[-1] if sums else 0.0) + cost
        if self.closed_until > now + SLACK or (
            total - self._limit.rate - _CRUMB > self._gone
        ):
            return False
        sums.append(total)
        times.append(now)
        return True

    def take(self, now: float, cost: float) -> None:
        """Remember a start."""
        self._forget(now)
        self._sums.append(self._total() + cost)
        self._times.append(now)

    def give_back(self, taken_at: float, cost: float) -> None:
        """Forget a start, a moment after it."""
        times, sums = self._times, self._sums
        for index in range(len(times) - 1, self._first - 1, -1):
            before = sums[index - 1] if index else self._gone
            if times[index] == taken_at and sums[index] - before == cost:
                del times[index], sums[index]
                sums[index:] = [units - cost for units in sums[index:]]
                return

    def available(self, now: float) -> float:
        """Return the units that are not used in this period."""
        self._forget(now)
        if now < self.closed_until - SLACK:
            return 0.0
        return self._limit.rate - (self._total() - self._gone)

    def idle_at(self) -> float:
        """Return when all starts have left."""
        last = self._times[-1] + self._limit.period if self._times else -math.inf
        return max(last, self.closed_until)

    def copy(self) -> SlidingWindow:
        """Return another in the same state."""
        twin = SlidingWindow(self._limit)
        twin.closed_until = self.closed_until
        twin._times, twin._sums = self._times[:], self._sums[:]
        twin._first, twin._gone = self._first, self._gone
        return twin

    def _total(self) -> float:
        return self._sums[-1] if self._sums else 0.0

    def _forget(self, now: float) -> None:
        """Let those starts go that have left the period."""
        times, first, count = self._times, self._first, len(self._times)
        oldest = now - self._limit.period + SLACK
        while first < count and times[first] <= oldest:
            first += 1
        if first == self._first:
            return
        self._first, self._gone = first, self._sums[first - 1]
        if first == count:
            times.clear()
            self._sums.clear()
            self._first, self._gone = 0, 0.0
        elif first > count // 2:
            del times[:first], self._sums[:first]
            self._first = 0


_KINDS: Final[dict[Algorithm, Callable[[Limit], Bucket]]] = {
    "token_bucket": TokenBucket,
    "leaky_bucket": LeakyBucket,
    "sliding_window": SlidingWindow,
}
