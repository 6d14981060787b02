"""What recovery costs: no cyclic garbage, and bounded memory for a call in flight."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import suppress

import pytest

from tests.garbage import only_new_garbage
from tests.recovery.doubles import Boom, virtual
from tta_primitives import WorkflowContext
from tta_primitives.errors import RetryResultError, TimeoutExceededError
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive


async def fails(value):
    """Fail with a new error each time."""
    raise Boom


async def hangs(value):
    """Wait for longer than anybody has."""
    await asyncio.sleep(3600)


async def answers(value):
    """Answer."""
    return value


class Flaky:
    """A step that fails twice before each success."""

    __name__ = "flaky"
    calls = 0

    async def __call__(self, value):
        self.calls += 1
        if self.calls % 3:
            raise Boom
        return value


WORKFLOWS = {
    "exhausted": RetryPrimitive(fails, initial_delay=0),
    "delayed": RetryPrimitive(fails),
    "recovered": RetryPrimitive(Flaky(), initial_delay=0),
    "nested": RetryPrimitive(RetryPrimitive(fails, initial_delay=0)),
    "not retryable": RetryPrimitive(fails, retry_on=OSError),
    "refused": RetryPrimitive(answers, retry_if_result=bool, initial_delay=0),
    "timed out": TimeoutPrimitive(hangs, timeout_seconds=1),
    "attempts timed out": RetryPrimitive(hangs, attempt_timeout=1, max_retries=1),
    "all failed": FallbackPrimitive(fails, [fails]),
}


async def run_many(workflow, times):
    for _ in range(times):
        with suppress(Boom, TimeoutExceededError, RetryResultError, ExceptionGroup):
            await workflow.execute("x", WorkflowContext())


@pytest.mark.parametrize("name", WORKFLOWS)
@virtual
async def test_case_06_failures_leave_no_cyclic_garbage(clock, name):
    """After 100 runs with the collector off there is nothing to collect."""
    await run_many(WORKFLOWS[name], 2)
    with only_new_garbage():
        await run_many(WORKFLOWS[name], 100)
        assert gc.collect() == 0


@virtual
async def test_case_06_a_task_that_ends_in_an_error_under_a_limit_is_no_garbage(clock):
    """The alarm lets go of the task, which holds the error that leads to the alarm."""

    async def fails_later(value):
        await asyncio.sleep(1)
        raise Boom

    limited = TimeoutPrimitive(fails_later, timeout_seconds=5)

    async def run():
        tasks = [
            asyncio.create_task(limited.execute("x", WorkflowContext()))
            for _ in range(10)
        ]
        await asyncio.wait(tasks)
        return {type(task.exception()) for task in tasks}

    await run()
    with only_new_garbage():
        assert await run() == {Boom}
        # The waker of the last task still stands in this turn of the loop.
        await asyncio.sleep(0)
        assert gc.collect() == 0


async def in_flight(execute, count):
    """Return the bytes that each of many calls in flight holds."""
    tasks = [asyncio.create_task(execute("x", WorkflowContext())) for _ in range(10)]
    await asyncio.sleep(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks += [
        asyncio.create_task(execute("x", WorkflowContext())) for _ in range(count)
    ]
    await asyncio.sleep(0)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return held / count


@pytest.mark.parametrize(
    ("wrap", "limit"),
    [
        (RetryPrimitive, 512),
        (lambda inner: FallbackPrimitive(inner, ["x"]), 512),
        (lambda inner: TimeoutPrimitive(inner, timeout_seconds=10_000), 1024),
    ],
    ids=["retry", "fallback", "timeout"],
)
def test_case_97_a_call_in_flight_holds_little_memory(wrap, limit):
    """What a wrapper adds to each of many waiting calls is bounded."""

    async def waits(value):
        await asyncio.get_running_loop().create_future()

    async def bare(value, context):
        await waits(value)

    async def measure():
        # The first round pays for what is made once.
        await in_flight(wrap(waits).execute, 10)
        return await in_flight(wrap(waits).execute, 500) - await in_flight(bare, 500)

    assert asyncio.run(measure()) <= limit
