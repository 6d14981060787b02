"""Who waits for a rate limit, in order: one queue and one timer for each key."""

from __future__ import annotations

import asyncio
import math
from asyncio import get_running_loop
from asyncio.events import _get_running_loop
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tta_primitives.recovery.rate_algorithms import SLACK

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tta_primitives.recovery.rate_algorithms import Bucket, Limit

__all__ = ["Counts", "Lane", "Lanes", "LanesByLoop", "Waiter"]

# A plan of starts is made anew when it is off by this share of what it covers.
_PLAN_TOLERANCE: Final = 0.01
# With each call so many keys are looked at that are still in use, and so many idle ones
# are forgotten at most: what a burst of keys has left is soon gone.
_LOOKED_AT: Final = 2
_FORGOTTEN: Final = 50


class Counts:
    """What a rate limit has done so far, on all loops together."""

    __slots__ = (
        "abandoned",
        "admitted",
        "delayed",
        "penalties",
        "rejected",
        "waited_seconds",
    )

    def __init__(self) -> None:
        self.admitted: int = 0
        self.delayed: int = 0
        self.rejected: int = 0
        self.abandoned: int = 0
        self.penalties: int = 0
        self.waited_seconds: float = 0.0


class Waiter(asyncio.Future[bool]):
    """A place in a queue: True when its call may start, False when it is too late.

    Attributes:
        cost: The units that the call takes.
        latest: It starts at this moment at the latest, or not at all.
        began_at: When it came.
        started_at: When it was let start.
        due: When it could have started, if it is too late.
    """

    __slots__ = ("_lane", "began_at", "cost", "due", "latest", "started_at")

    def __init__(self, lane: Lane, cost: float, now: float, latest: float) -> None:
        super().__init__(loop=lane.loop)
        self._lane = lane
        self.cost: float = cost
        self.began_at: float = now
        self.started_at: float = now
        self.due: float = now
        self.latest: float = latest

    def cancel(self, msg: Any = None) -> bool:  # noqa: ANN401 - as in its base
        """Give up the place now, and not only when the cancelled task runs again."""
        is_waiting = not self.done()
        is_cancelled = super().cancel(msg)
        if is_waiting:
            self._lane.withdraw(self)
        return is_cancelled

    def leave(self) -> None:
        """Give up the place, or the start that came when it was too late."""
        if not self.done():
            # Not cancelled: its loop may be closed, where that is an error.
            self._lane.withdraw(self)
        elif not self.cancelled() and self.result():
            self._lane.take_back(self)


class Lane:
    """The bucket of one key, and those who wait for it.

    Nobody who comes later starts earlier, however much the first one needs. There is
    one timer, for the first one.

    Attributes:
        bucket: What has started so far; it knows nothing of those who wait.
        waiting: Who waits, in order; None until somebody has to.
        queued: The units of all of them.
    """

    __slots__ = (
        "_armed_for",
        "_late",
        "_owner",
        "_plan",
        "_timer",
        "bucket",
        "queued",
        "waiting",
    )

    def __init__(self, owner: Lanes) -> None:
        self._owner = owner
        self.bucket: Bucket = owner.limit.bucket()
        # Not a deque: a place in the middle is given up as quickly as any other.
        self.waiting: OrderedDict[Waiter, None] | None = None
        self.queued: float = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        # When everybody would start, if that cannot be added up, and by how much the
        # starts since then were late.
        self._plan: Bucket | None = None
        self._late = 0.0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all this belongs to."""
        return self._owner.loop

    def enter(self, loop: asyncio.AbstractEventLoop, cost: float) -> bool:
        """Let a call start if it may do so at once; tell whether it may."""
        owner = self._owner
        if self.waiting or owner.loop is not loop:
            return False
        now = loop.time()
        if now < owner.seen or not self.bucket.enter(now, cost):
            return False
        owner.seen = now
        owner.counts.admitted += 1
        return True

    def enter_at(self, now: float, cost: float) -> bool:
        """Do the same at a time that was read already, on the right loop."""
        if self.waiting or not self.bucket.enter(now, cost):
            return False
        self._owner.counts.admitted += 1
        return True

    def due(self, now: float, cost: float) -> float:
        """Return when a call could start that comes now, after all who wait."""
        if not self.waiting:
            return self.bucket.due(now, cost)
        if self.bucket.adds_up:
            return self.bucket.due(now, cost, self.queued)
        return self._planned(now).due(now, cost)

    def has_room(self, now: float, cost: float) -> bool:
        """Tell whether a call may wait, for all that it is about the depth."""
        return self.bucket.has_room(now, self.queued + cost)

    def join(self, cost: float, now: float, latest: float) -> Waiter:
        """Queue; the waiter is to be awaited, and left if it was not let start."""
        waiter = Waiter(self, cost, now, latest)
        if self.waiting is None:
            self.waiting = OrderedDict()
        if self._plan is not None:
            self._plan.take(self._plan.due(now, cost), cost)
        self.waiting[waiter] = None
        self.queued += cost
        if self._timer is None:
            self._arm(now)
        return waiter

    def withdraw(self, waiter: Waiter) -> None:
        """Take a place out of the queue; those behind it move up."""
        if not self.waiting or waiter not in self.waiting:
            return
        self._plan = None
        is_first = next(iter(self.waiting)) is waiter
        self._drop(waiter)
        if is_first:
            self._arm(self._owner.now())

    def take_back(self, waiter: Waiter) -> None:
        """Undo a start that nothing came of, a moment ago; all who wait move up."""
        self._plan = None
        self.bucket.give_back(waiter.started_at, waiter.cost)
        counts = self._owner.counts
        counts.admitted -= 1
        counts.waited_seconds -= waiter.started_at - waiter.began_at
        self._arm(self._owner.now())

    def penalize(self, now: float, seconds: float) -> None:
        """Let nobody start for so long; tell those for whom that is too late."""
        self.bucket.penalize(now + seconds)
        self._plan = None
        if self.waiting:
            self._turn_away(now)
            self._arm(now)

    def is_idle(self, now: float) -> bool:
        """Tell whether it may be forgotten: nobody waits, and all is as at first."""
        return not self.waiting and now > self.bucket.idle_at() + SLACK

    def abandon(self) -> None:
        """Forget those who wait: their loop is closed, and they never run again."""
        self._disarm()
        self.waiting, self.queued, self._plan = None, 0.0, None

    def begin_anew(self) -> None:
        """Forget what has started, but not those who wait."""
        self.bucket = self._owner.limit.bucket()
        self._plan = None
        now = self.loop.time()
        for waiter in self.waiting or ():
            waiter.began_at = min(waiter.began_at, now)
        self._arm(now)

    def _drop(self, waiter: Waiter) -> None:
        if self.waiting:
            del self.waiting[waiter]
        # What rounding has left goes with the last one.
        self.queued = self.queued - waiter.cost if self.waiting else 0.0

    def _arm(self, now: float) -> None:
        """Set the timer for the first one, unless its time has come already."""
        self._disarm()
        if not self.waiting or self.loop.is_closed():
            return
        due = self.bucket.due(now, next(iter(self.waiting)).cost)
        if due <= now + SLACK:
            self._let_start(now)
        else:
            self._armed_for = due
            self._timer = self.loop.call_at(due, self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        """Let the first one start, whose time has come, and all who may as well."""
        self._timer = None
        due, now = self._armed_for, self.loop.time()
        # A timer of a float fires at the nanosecond, or tick, next to it. A start that
        # is on time is reckoned from when it was due: then nothing adds up.
        if now < due or now - due <= max(SLACK, 2 * math.ulp(now)):
            now = due
        self._late += now - due
        self._let_start(now)

    def _let_start(self, now: float) -> None:
        counts = self._owner.counts
        while self.waiting:
            first = next(iter(self.waiting))
            if self.bucket.due(now, first.cost) > now + SLACK:
                self._arm(now)
                return
            self._drop(first)
            self.bucket.take(now, first.cost)
            counts.admitted += 1
            counts.waited_seconds += now - first.began_at
            first.started_at = now
            first.set_result(True)
        self._plan = None

    def _planned(self, now: float) -> Bucket:
        """Return the bucket as it will be when all who wait have started."""
        # The first one may be late already, and its timer has not fired yet.
        overdue = max(0.0, now - self._armed_for)
        plan = self._plan
        if plan is not None:
            covered = plan.idle_at() - now
            if self._late + overdue <= covered * _PLAN_TOLERANCE:
                return plan
        self._late = -overdue
        plan = self._plan = self.bucket.copy()
        for waiter in self.waiting or ():
            start = max(now, plan.due(now, waiter.cost))
            plan.take(start, waiter.cost)
        return plan

    def _turn_away(self, now: float) -> None:
        """Tell those who would start too late; those behind them move up."""
        after = self.bucket.copy() if not self.bucket.adds_up else self.bucket
        ahead = 0.0
        for waiter in tuple(self.waiting or ()):
            due = after.due(now, waiter.cost, ahead)
            if due > waiter.latest:
                waiter.due = due
                self._drop(waiter)
                waiter.set_result(False)
            elif after.adds_up:
                ahead += waiter.cost
            else:
                after.take(max(now, due), waiter.cost)


class Lanes:
    """The lanes of one event loop, by key.

    Attributes:
        loop: The loop.
        limit: What each of them allows.
        counts: What is counted, for all loops together.
        seen: The latest time that was read, on the loop's clock.
        by_key: All that are not idle; and of those that are, few.
    """

    __slots__ = ("by_key", "counts", "limit", "loop", "seen")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: Limit, counts: Counts
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.limit: Limit = limit
        self.counts: Counts = counts
        self.seen: float = -math.inf
        self.by_key: OrderedDict[Hashable, Lane] = OrderedDict()

    def now(self) -> float:
        """Return the present; if the clock was set back, all limits begin anew."""
        now = self.loop.time()
        if now < self.seen:
            self._begin_anew(now)
        self.seen = now
        return now

    def lane(self, key: Hashable, now: float) -> Lane:
        """Return the lane of a key."""
        lane = self.by_key.get(key)
        if lane is None:
            lane = self.by_key[key] = Lane(self)
        if len(self.by_key) > 1:
            self._sweep(now, lane)
        return lane

    def forget_idle(self) -> None:
        """Forget all keys that are as good as new."""
        now, every = self.now(), self.by_key
        # Not deleted one by one: that would keep a table as large as it ever was.
        self.by_key = OrderedDict(
            (key, lane) for key, lane in every.items() if not lane.is_idle(now)
        )

    def move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on in another loop, after this one was closed."""
        for lane in self.by_key.values():
            lane.abandon()
        self.loop = loop

    def _sweep(self, now: float, used: Lane) -> None:
        """Look at a few keys, in turn, and forget those that are idle."""
        by_key = self.by_key
        living = 0
        for _ in range(min(_FORGOTTEN, len(by_key) - 1)):
            key, lane = by_key.popitem(last=False)
            if lane is used or not lane.is_idle(now):
                by_key[key] = lane
                living += 1
                if living == _LOOKED_AT:
                    return

    def _begin_anew(self, now: float) -> None:
        self.seen = now
        for lane in tuple(self.by_key.values()):
            lane.begin_anew()


class LanesByLoop:
    """The lanes of each event loop that a rate limit is used from.

    Args:
        limit: What each lane allows.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._by_loop: dict[asyncio.AbstractEventLoop, Lanes] = {}
        self.counts: Counts = Counts()

    def here(self) -> Lanes:
        """Return the lanes of the running loop.

        What was taken on a loop that is closed since then still counts.
        """
        loop = get_running_loop()
        lanes = self._by_loop.get(loop)
        if lanes is None:
            lanes = self._inherited(loop) or Lanes(loop, self._limit, self.counts)
            self._by_loop[loop] = lanes
        return lanes

    def waiting(self) -> int:
        """Return how many wait, for all keys."""
        return sum(len(lane.waiting) for lane in self._all() if lane.waiting)

    def keys(self) -> int:
        """Return how many keys are not idle, and forget those that are."""
        here = self._by_loop.get(_get_running_loop())  # type: ignore[arg-type]
        if here is not None:
            here.forget_idle()
        return sum(not lane.is_idle(lane.loop.time()) for lane in self._all())

    def available(self) -> float:
        """Return the units that could start now, if there is one key for all calls."""
        for lane in self._all():
            now = lane.loop.time()
            return 0.0 if lane.waiting else lane.bucket.available(now)
        return self._limit.bucket().available(0.0)

    def _all(self) -> list[Lane]:
        """Return the lanes of all loops, those that were used last first."""
        every = tuple(self._by_loop.values())
        return [lane for lanes in reversed(every) for lane in (*lanes.by_key.values(),)]

    def _inherited(self, loop: asyncio.AbstractEventLoop) -> Lanes | None:
        """Return the lanes of the loop that was closed last, for another to go on."""
        heir = None
        for one in tuple(self._by_loop):
            # Another thread may be doing the same.
            gone = self._by_loop.pop(one, None) if one.is_closed() else None
            heir = gone or heir
        if heir is not None:
            heir.move_to(loop)
        return heir
