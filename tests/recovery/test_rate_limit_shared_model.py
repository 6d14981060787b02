"""Shared rate limits under random calls: as one limit in one process, or stricter."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.circuit_tools import quiet
from tests.recovery.doubles import Rejected
from tests.recovery.rate_tools import FakeWorld, call, every_algorithm
from tta_primitives.recovery import RateLimitPrimitive

RATE = 4
PAUSE = 2
# Starts in Redis are whole microseconds, rounded up.
CLOSE = 1e-4

CALLS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 0.1, 0.25, 0.6, 2]),
        st.integers(0, 1),
        st.integers(1, RATE),
    ),
    min_size=1,
    max_size=15,
)
COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 1), st.integers(1, RATE)),
        st.tuples(st.just("bad"), st.integers(0, 1), st.integers(1, RATE)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.25, 0.6, 2]), st.just(0)),
    ),
    min_size=1,
    max_size=30,
)


def options(algorithm):
    """Return the options of every limit here."""
    return {"algorithm": algorithm, "cost": lambda value, context: value[1]}


class Journal:
    """A step that notes what starts, at what cost, and which penalties it brings."""

    __name__ = "journal"

    def __init__(self):
        self.starts = []
        self.penalties = []

    async def __call__(self, value):
        number, cost, is_bad = value
        now = asyncio.get_running_loop().time()
        self.starts.append((now, cost, number))
        if is_bad:
            self.penalties.append((now, now + PAUSE))
            raise Rejected(status_code=429, retry_after=PAUSE)

    def check(self, algorithm):
        """Fail unless the starts are such as the limit allows."""
        getattr(self, f"_{algorithm}")()
        for at, until in self.penalties:
            for start, _, _ in self.starts:
                assert not at + CLOSE < start < until - CLOSE

    def _token_bucket(self):
        units, at = RATE, 0
        for start, cost, _ in self.starts:
            units = min(RATE, units + (start - at) * RATE) - cost
            at = start
            assert units >= -CLOSE * RATE

    def _leaky_bucket(self):
        free_at = 0
        for start, cost, _ in self.starts:
            assert start >= free_at - CLOSE
            free_at = start + cost / RATE

    def _sliding_window(self):
        for begin, _, _ in self.starts:
            end = begin + 1 - CLOSE
            inside = sum(cost for at, cost, _ in self.starts if begin <= at < end)
            assert inside <= RATE


@every_algorithm
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=CALLS)
def test_two_processes_are_as_one(algorithm, calls):
    """Without cancellation, each call starts when it would with one limit for all."""

    async def starts_of(limits, journal):
        tasks = []
        for number, (pause, which, cost) in enumerate(calls):
            await asyncio.sleep(pause)
            value = (number, cost, False)
            tasks.append(call(limits[which], value))
            await quiet()
        await asyncio.gather(*tasks)
        return {number: (at, cost) for at, cost, number in journal.starts}

    async def run():
        world, journal = FakeWorld(), Journal()
        limits = [world.limit(journal, RATE, **options(algorithm)) for _ in range(2)]
        found = await starts_of(limits, journal)
        await quiet()
        await world.finish()
        return found

    async def run_local():
        journal = Journal()
        limit = RateLimitPrimitive(journal, rate=RATE, **options(algorithm))
        return await starts_of([limit, limit], journal)

    shared, local = VirtualClock().run(run()), VirtualClock().run(run_local())
    assert shared.keys() == local.keys()
    for number, (at, _) in shared.items():
        assert at == pytest.approx(local[number][0], abs=CLOSE)


@every_algorithm
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commands=COMMANDS)
def test_never_more_than_the_limit_and_nothing_is_left(algorithm, commands):
    """Whoever calls, leaves or is told to wait; and then Redis is empty again."""

    async def run():
        world, journal = FakeWorld(), Journal()
        limits = [world.limit(journal, RATE, **options(algorithm)) for _ in range(2)]
        tasks = []
        for number, (what, which, cost) in enumerate(commands):
            if what == "wait":
                await asyncio.sleep(which)
            elif what == "cancel":
                if tasks:
                    tasks[which % len(tasks)].cancel()
            else:
                tasks.append(call(limits[which], (number, cost, what == "bad")))
            await quiet()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        journal.check(algorithm)
        started = sum(not isinstance(one, asyncio.CancelledError) for one in ended)
        assert started == len(journal.starts)
        assert [limit.stats.waiting for limit in limits] == [0, 0]
        await asyncio.sleep(10)
        assert await world.keys() == {}
        await world.finish()

    VirtualClock().run(run())


@every_algorithm
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    costs=st.lists(st.integers(1, RATE), min_size=1, max_size=12),
    order=st.permutations(range(12)),
    taken=st.integers(1, RATE),
)
def test_in_whatever_order_all_leave_nothing_is_taken(algorithm, costs, order, taken):
    """The next call starts as if they had never come."""

    async def start_of_the_next(limits, costs):
        loop = asyncio.get_running_loop()
        await asyncio.gather(call(limits[0], (-1, taken, False)))
        tasks = []
        for number, cost in enumerate(costs):
            tasks.append(call(limits[number % 2], (number, cost, False)))
            await quiet()
        waiting = [task for task in tasks if not task.done()]
        for index in order:
            if index < len(waiting):
                waiting[index].cancel()
                await quiet()
        started = len(tasks) - len(waiting)
        await asyncio.gather(call(limits[1], (99, RATE, False)))
        return started, loop.time()

    async def run():
        world, journal = FakeWorld(), Journal()
        limits = [world.limit(journal, RATE, **options(algorithm)) for _ in range(2)]
        found = await start_of_the_next(limits, costs)
        await quiet()
        await world.finish()
        return found

    async def run_without(started):
        limit = RateLimitPrimitive(Journal(), rate=RATE, **options(algorithm))
        return await start_of_the_next([limit, limit], costs[:started])

    started, at = VirtualClock().run(run())
    expected = VirtualClock().run(run_without(started))
    assert at == pytest.approx(expected[1], abs=CLOSE)
