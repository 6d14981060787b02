"""Thousands of random calls through hedges and bulkheads end with nothing left."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.doubles import Boom
from tta_primitives import WorkflowContext
from tta_primitives.errors import BulkheadFullError, TimeoutExceededError
from tta_primitives.recovery import (
    BulkheadPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    Quantile,
    RetryBudget,
    RetryPrimitive,
    TimeoutPrimitive,
)


class Result:
    """Something that must be closed unless the caller gets it."""

    opened = 0
    closed = 0

    def __init__(self):
        type(self).opened += 1

    async def aclose(self):
        type(self).closed += 1


class Service:
    """A step that is slow, fails, resists its cancellation or breaks at it."""

    __name__ = "service"

    def __init__(self, dice, result):
        self.dice = dice
        self.result = result
        self.running = 0
        self.most = 0

    async def __call__(self, value):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.work()
        finally:
            self.running -= 1

    async def work(self):
        dice = self.dice
        try:
            await asyncio.sleep(dice.choice([0, 0.1, 0.5, 1, dice.expovariate(1)]))
        except asyncio.CancelledError:
            manner = dice.randrange(8)
            if manner == 0:
                await asyncio.sleep(0.2)
            elif manner == 1:
                raise OSError("broken") from None
            elif manner == 2:
                return self.result()
            raise
        if dice.random() < 0.2:
            raise Boom
        return self.result()

    async def chunks(self, value):
        for _ in range(self.dice.randrange(4)):
            yield await self(value)


def workflows(dice, result):
    """Return the service, its bulkheads, and workflows around them."""
    service = Service(dice, result)
    inner = BulkheadPrimitive(service, max_concurrency=5, max_queue=10, max_wait=2)
    outer = BulkheadPrimitive(
        HedgePrimitive(service, delay=0.3, max_hedges=2),
        max_concurrency=8,
        max_queue=None,
    )
    streams = BulkheadPrimitive(
        HedgePrimitive(service.chunks, delay=0.3), max_concurrency=4, max_queue=9
    )
    budget = RetryBudget(ratio=0.3)
    quantile = Quantile(0.8, minimum_calls=5, initial=0.5)
    every = [
        TimeoutPrimitive(HedgePrimitive(inner, delay=0.2), timeout_seconds=1.5),
        FallbackPrimitive(TimeoutPrimitive(outer, timeout_seconds=3), ["cached"]),
        RetryPrimitive(
            HedgePrimitive(inner, delay=quantile, budget=budget),
            max_retries=2,
            budget=budget,
        ),
        HedgePrimitive(service, delay=0, max_hedges=2),
        streams,
    ]
    return service, (inner, outer, streams), every


async def one_call(workflow, is_stream, got):
    """Make one call; note what the caller got."""
    context = WorkflowContext()
    if is_stream:
        async for result in workflow.stream("x", context):
            got.append(result)
    else:
        got.append(await workflow.execute("x", context))


async def make_calls(dice, every, calls, got, ends):
    """Make the calls, some of which are cancelled, once or twice."""
    loop = asyncio.get_running_loop()
    pending = set()
    for _ in range(calls):
        workflow = dice.choice(every)
        is_stream = isinstance(workflow, BulkheadPrimitive)
        task = asyncio.create_task(one_call(workflow, is_stream, got))
        pending.add(task)
        task.add_done_callback(pending.discard)
        task.add_done_callback(lambda task: note_end(ends, task))
        for _ in range(dice.choice([0, 0, 1, 2])):
            loop.call_later(dice.choice([0, 0.3, dice.expovariate(1)]), task.cancel)
        if dice.random() < 0.5:
            await asyncio.sleep(dice.choice([0, 0.1, 0.2]))
    while pending:
        await asyncio.wait(pending)
    await asyncio.sleep(0)


def note_end(ends, task):
    kind = "cancelled" if task.cancelled() else type(task.exception()).__name__
    ends[kind] = ends.get(kind, 0) + 1


async def run(seed, calls):
    dice = random.Random(seed)
    service, bulkheads, every = workflows(dice, object)
    got, ends = [], {}
    await make_calls(dice, every, calls, got, ends)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert service.running == 0
    for bulkhead in bulkheads:
        stats = bulkhead.stats
        assert (stats.active, stats.queued) == (0, 0)
        assert stats.peak <= bulkhead.max_concurrency
        assert not bulkhead._slots.queue
    assert sum(ends.values()) == calls
    return got, ends


def check(seed, calls):
    """Soak, and see that nothing is left; return how many calls ended in which way."""
    clock = VirtualClock(max_jumps=None)
    got, ends = clock.run(run(seed, calls))
    assert got
    late = [wait for wait in clock.sleeps if wait.at > clock.elapsed]
    assert all(wait.cancelled for wait in late)
    return ends


KINDS = {
    "NoneType",
    "cancelled",
    Boom.__name__,
    BulkheadFullError.__name__,
    TimeoutExceededError.__name__,
}


def test_random_calls_and_cancellations_leave_nothing():
    """Neither a task nor a slot, nor a place in a queue, nor a timer."""
    seen = set().union(*(check(seed, 300) for seed in range(5)))
    # A broken connection is what a call is told whose task was cancelled from outside.
    assert KINDS <= seen <= KINDS | {"OSError"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_many_random_calls_and_cancellations_leave_nothing(seed):
    """The same for longer."""
    assert set(check(seed, 10_000)) >= KINDS


def test_the_same_seed_gives_the_same_run():
    """What was found once can be found again."""
    first, second = (VirtualClock().run(run(3, 200))[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(3))
def test_every_result_is_delivered_or_closed_once(seed):
    """Whoever loses, whoever leaves, and whenever."""
    dice = random.Random(seed)
    result = type("Opened", (Result,), {"opened": 0, "closed": 0})
    service = Service(dice, result)
    every = [
        HedgePrimitive(service, delay=delay, max_hedges=hedges)
        for delay in (0, 0.3)
        for hedges in (1, 3)
    ]
    got = []

    async def calls():
        await make_calls(dice, every, 400, got, {})
        assert asyncio.all_tasks() == {asyncio.current_task()}

    VirtualClock().run(calls())
    assert got
    assert 0 < result.closed < result.opened
    assert result.opened == result.closed + len(got)


def test_a_soak_leaves_no_cyclic_garbage():
    """After 200 calls with the collector off there is nothing to collect."""
    dice = random.Random(1)
    # Without the fallback: what it files in a context holds errors, whose frames lead
    # to that context.
    every = [
        one
        for one in workflows(dice, object)[-1]
        if not isinstance(one, FallbackPrimitive)
    ]

    async def garbage():
        await make_calls(dice, every, 200, [], {})  # What is made once is made now.
        with only_new_garbage():
            await make_calls(dice, every, 200, [], {})
            return gc.collect()

    assert VirtualClock().run(garbage()) == 0
