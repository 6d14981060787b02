"""A loop thread in a test that has virtual time."""

from __future__ import annotations

import asyncio
import time

import pytest

from pytest_tta import Harness
from pytest_tta.clock import ClockDeadlock
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.runtime import loop_thread


async def nap(seconds):
    await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


def test_a_day_on_the_loop_passes_at_once(tta):
    """A sync test that calls sync code has the time of the loop behind it."""
    assert loop_thread().run(nap(86400)) == 86400.0
    assert tta.elapsed == 86400.0


def test_the_waits_of_a_workflow_are_logged(tta_clock):
    """Retries behind a sync function are as visible as those of an async test."""
    attempts = []

    @step
    async def flaky(value):
        attempts.append(value)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return value

    retried = RetryPrimitive(flaky, backoff_strategy=[1, 2], jitter="none")
    assert loop_thread().run(retried.execute("x", WorkflowContext())) == "x"
    assert tta_clock.sleeps.by(kind="sleep").delays == [1, 2]


def test_time_begins_anew_in_each_test(tta):
    """The loop of another test is not this one's."""
    assert loop_thread().run(nap(5)) == 5.0


async def test_a_blocking_call_inside_an_async_test(tta_clock):
    """Sync code under test blocks the test's own loop, and time goes on."""
    own = asyncio.create_task(nap(3))
    await asyncio.sleep(0)
    assert loop_thread().run(nap(10)) == 10.0
    # Its timer was due meanwhile, and fires late as it would outside.
    assert await own == 10.0
    await asyncio.sleep(1)
    assert tta_clock.elapsed == 11.0


def test_nobody_who_could_wake_it_is_told_at_once(tta):
    """What waits for ever ends the test with the reason, not with a hang."""

    async def stuck():
        await asyncio.Event().wait()

    with pytest.raises(ClockDeadlock, match="every task waits"):
        loop_thread().run(stuck())


def test_a_sleep_of_the_test_makes_timers_late(tta):
    """Time is moved at once; wait for the future to see what is due on the way."""
    future = loop_thread().submit(nap(3))
    loop_thread().run(nap(0))  # It has begun.
    time.sleep(5)
    assert future.result() == 5.0


def test_what_is_submitted_ends_with_the_test():
    """Leaving the test's time drains the loop, which costs nothing."""
    with Harness() as tta:
        future = loop_thread().submit(nap(3))
    assert (future.result(0), tta.elapsed) == (3.0, 3.0)


def test_a_loop_from_before_keeps_real_time():
    """It is somebody else's, and is there again afterwards."""
    thread = loop_thread()
    before = thread.loop
    with Harness():
        assert thread.loop is not before
        assert thread.run(nap(3600)) == 3600.0
    assert thread.loop is before
    assert thread.run(nap(0)) < 1e9
    thread.close()
