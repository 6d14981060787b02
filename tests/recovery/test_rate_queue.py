"""The queue of a rate limit: what is told to those who come when others start late."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.recovery.doubles import virtual
from tta_primitives.recovery.rate_algorithms import Limit, SlidingWindow
from tta_primitives.recovery.rate_queue import Counts, Lanes

LIMIT = Limit("sliding_window", 4, 1.0, 4)


class CountedWindow(SlidingWindow):
    """Counts how often starts are planned, for which it is copied."""

    copies = 0

    def copy(self):
        self.copies += 1
        return super().copy()


class Queue:
    """The lane of one key, on a loop that has run for a while."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        lanes = Lanes(self.loop, LIMIT, Counts())
        self.window = CountedWindow(LIMIT)
        self.lane = lanes.lane("key", self.now)
        self.lane.bucket = self.window

    @property
    def now(self):
        return self.loop.time()

    def join(self, count):
        """Let so many wait, of whom each needs a period."""
        if not self.lane.waiting:
            assert self.lane.enter_at(self.now, 4)
        for _ in range(count):
            self.lane.join(4, self.now, math.inf)

    def told(self):
        """Return in how many seconds one more could start."""
        return round(self.lane.due(self.now, 4) - self.now, 6)


async def timers_fired():
    """Let those timers fire whose time is over."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def wake_late(clock, queue, seconds):
    """Let the first one start, so many seconds after it was due."""
    clock.stall(queue.lane._timer.when() - queue.now + seconds)
    await timers_fired()


@virtual
async def test_a_late_start_is_reckoned_with(clock):
    """Each one behind it starts later as well, and who comes is told so."""
    await asyncio.sleep(1000)
    queue = Queue()
    queue.join(5)
    assert queue.told() == 6
    await asyncio.sleep(0.5)
    assert queue.told() == 5.5
    await wake_late(clock, queue, 0.5)
    assert queue.told() == 5
    await wake_late(clock, queue, 0.5)
    assert queue.told() == 4
    assert queue.window.copies == 3


@virtual
async def test_starts_that_are_hardly_late_are_not_planned_anew(clock):
    """A timer is always a little late, and a plan goes through all who wait."""
    await asyncio.sleep(1000)
    queue = Queue()
    queue.join(5)
    for told in (6, 5, 4):
        assert queue.told() == pytest.approx(told, rel=0.01)
        await wake_late(clock, queue, 0.01)
    assert queue.window.copies == 1


@virtual
async def test_many_small_delays_add_up(clock):
    """What each of them may neglect, all together may not."""
    queue = Queue()
    queue.join(20)
    told = []
    for _ in range(10):
        told.append(queue.told())
        await wake_late(clock, queue, 0.1)
    assert told == [pytest.approx(21 - number, rel=0.01) for number in range(10)]
    assert 1 < queue.window.copies < 10


@virtual
async def test_a_start_that_is_overdue_is_reckoned_with(clock):
    """Who comes when time has passed, and no timer has fired, is told what will be."""
    await asyncio.sleep(1000)
    queue = Queue()
    queue.join(5)
    assert queue.told() == 6
    clock.stall(1.5)
    assert [queue.told() for _ in range(3)] == [5, 5, 5]
    assert queue.window.copies == 2
    clock.stall(10)
    assert queue.told() == 5
    await timers_fired()
    assert (queue.told(), queue.window.copies) == (5, 3)
