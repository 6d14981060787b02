"""Hedging after a quantile of the latencies: what counts, how long, and until when."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from math import ceil

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom, virtual
from tta_primitives import WorkflowContext
from tta_primitives.recovery import HedgePrimitive, Quantile
from tta_primitives.recovery.latency import Latencies


class Takes:
    """A step whose executions take as long as the list says, the last being repeated.

    An error in the list is raised after a second.
    """

    __name__ = "takes"

    def __init__(self, *takes):
        self.takes = takes
        self.calls = 0

    async def __call__(self, value):
        takes = self.takes[min(self.calls, len(self.takes) - 1)]
        self.calls += 1
        if isinstance(takes, BaseException):
            await asyncio.sleep(1)
            raise takes
        await asyncio.sleep(takes)
        return takes


async def call(hedge, times=1):
    for _ in range(times):
        await hedge.execute("x", WorkflowContext())


@virtual
async def test_before_minimum_calls_nothing_is_hedged(clock, events):
    """Too little is known, and the calls only teach."""
    slow = Takes(*range(1, 20), 50)
    hedge = HedgePrimitive(slow, delay=Quantile(0.95))
    await call(hedge, 20)
    assert (slow.calls, hedge.stats.hedges, hedge.stats.delay) == (20, 0, 19.0)
    assert events.seen == [("hedge.skipped", {"reason": "latency_unknown"})] * 20
    await call(hedge)
    assert (slow.calls, hedge.stats.hedges) == (22, 1)
    assert events.detail("hedge.started") == [{"number": 1, "delay": 19}]


@virtual
async def test_until_then_there_may_be_an_initial_delay(clock):
    """It is replaced by what was observed."""
    slow = Takes(3)
    hedge = HedgePrimitive(slow, delay=Quantile(0.5, minimum_calls=2, initial=1))
    assert hedge.stats.delay == 1
    await call(hedge, 2)
    assert slow.calls == 4
    assert hedge.stats.delay == 3
    await call(hedge)
    assert hedge.stats.hedges in (2, 3)


@virtual
async def test_failures_teach_nothing(clock):
    """How long a failure takes says nothing about when to expect an answer."""
    hedge = HedgePrimitive(Takes(Boom(), 5), delay=Quantile(0.5, minimum_calls=1))
    with pytest.raises(Boom, match="boom"):
        await call(hedge)
    assert hedge.stats.delay is None
    await call(hedge)
    assert hedge.stats.delay == 5
    failing = HedgePrimitive(
        Takes(Boom(), 5, 5), delay=Quantile(0.5, minimum_calls=1, initial=60)
    )
    await call(failing)
    assert failing.stats.delay == 60


@virtual
async def test_a_primary_that_was_overtaken_has_taken_at_least_so_long(clock):
    """Without it the quantile would sink from hedge to hedge."""
    usual = [1.0] * 19
    hedge = HedgePrimitive(
        Takes(*usual, *[60, 1] * 20), delay=Quantile(0.9, minimum_calls=19)
    )
    await call(hedge, 19)
    assert hedge.stats.delay == 1
    await call(hedge, 2)
    assert (hedge.stats.hedges, hedge.stats.wins, hedge.stats.delay) == (2, 2, 1)
    # When one in ten is slow, the quantile says so.
    await call(hedge)
    assert hedge.stats.delay == 2


@virtual
async def test_hedges_are_not_counted_themselves(clock):
    """What answers from another region says nothing about this one."""
    hedge = HedgePrimitive(
        Takes(60),
        delay=Quantile(0.5, minimum_calls=1, initial=4),
        alternatives=[Takes(1)],
    )
    await call(hedge)
    assert hedge.stats.delay == 5


@virtual
async def test_latencies_count_for_a_window(clock):
    """What is older is forgotten, and too few that are left are too few."""
    hedge = HedgePrimitive(
        Takes(9, 9, 1), delay=Quantile(0.99, minimum_calls=2, window=100)
    )
    await call(hedge, 2)
    assert hedge.stats.delay == 9
    await asyncio.sleep(91)
    # The first has left the window, exactly now.
    await call(hedge)
    assert (hedge.stats.hedges, hedge.stats.skipped) == (0, 3)
    assert hedge.stats.delay == 9
    await asyncio.sleep(10)
    await call(hedge)
    assert hedge.stats.delay == 1


def test_on_a_loop_with_an_earlier_time_it_begins_anew():
    """As the next test with a virtual clock does."""
    hedge = HedgePrimitive(Takes(2), delay=Quantile(0.5, minimum_calls=2))
    VirtualClock(loop_start=1000).run(call(hedge, 2))
    assert hedge.stats.delay == 2
    VirtualClock().run(call(hedge))
    assert hedge.stats.delay is None


@pytest.mark.parametrize("share", [0.001, 0.07, 0.5, 0.95, 0.999])
@virtual
async def test_the_quantile_is_that_of_the_latest_thousand(clock, share):
    """By nearest rank, also while latencies come and go, some of them equal."""
    latencies = Latencies(Quantile(share, minimum_calls=1, window=50))
    dice = random.Random(7)
    seen = []
    for _ in range(100):
        for _ in range(dice.choice([1, 2, 50, 50, 600])):
            latency = dice.choice([0.5, dice.random(), dice.expovariate(1)])
            seen.append((clock.elapsed, latency))
            latencies.note(latency)
        await asyncio.sleep(dice.choice([0, 0, 1, 7, 60]))
        now = clock.elapsed
        kept = sorted(took for at, took in seen[-1000:] if at > now - 50)
        rank = ceil(round(share * len(kept), 9))
        assert latencies.delay() == (kept[rank - 1] if kept else None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "share=0 must be a positive number"),
        ((1,), ValueError, "share=1 must be a number between 0 and 1"),
        ((95,), ValueError, "share=95 must be a number between 0 and 1"),
        (("p95",), TypeError, "share='p95' must be a positive number"),
        ((0.9, {"minimum_calls": 0}), ValueError, "minimum_calls=0 must be a whole"),
        ((0.9, {"minimum_calls": 1001}), ValueError, "minimum_calls=1001 must be at"),
        ((0.9, {"window": 0}), ValueError, "window=0 must be a positive number of"),
        ((0.9, {"initial": -1}), ValueError, "initial=-1 must be a non-negative"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    share, *options = arguments
    with pytest.raises(error, match=message):
        Quantile(share, **(options[0] if options else {}))


def test_it_shows_what_it_was_made_of():
    """What a failing example prints can be pasted."""
    shown = "Quantile(0.95, minimum_calls=20, window=600)"
    assert repr(Quantile(0.95)) == shown
    other = Quantile(0.5, minimum_calls=5, window=timedelta(minutes=1), initial=0.2)
    shown = "Quantile(0.5, minimum_calls=5, window=60, initial=0.2)"
    assert repr(other) == shown
