"""A cancellation that a step has turned into an error of its own is still one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.recovery.doubles import Boom, Script, exactly, virtual
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
    attempts_of,
)


class Driver:
    """A step that reports a cancellation as a broken connection, in several ways."""

    __name__ = "driver"

    def __init__(self, how):
        self.how = how
        self.calls = 0

    async def __call__(self, value):
        self.calls += 1
        await getattr(self, self.how)()

    async def except_block(self):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("broken") from None

    async def finally_block(self):
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("broken")

    async def cause(self):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            cancelled = error
        raise OSError("broken") from cancelled

    async def group(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.except_block())


def quick(primitive, **options):
    return RetryPrimitive(primitive, jitter="none", **options)


HOWS = ["except_block", "finally_block", "cause", "group"]


@pytest.mark.parametrize("how", HOWS)
@virtual
async def test_a_cancellation_in_disguise_is_not_retried(clock, events, how):
    """The task ends at once, with the step's error, which says why."""
    driver = Driver(how)
    task = asyncio.create_task(quick(driver).execute("x", WorkflowContext()))
    await asyncio.sleep(5)
    task.cancel()
    await asyncio.wait([task])
    error = task.exception()
    assert (driver.calls, clock.elapsed) == (1, 5)
    assert len(attempts_of(error)) == 1
    assert error.__notes__[0].startswith(
        "retry gave up after 1 attempt (the task was cancelled):"
    )
    name, detail = events.seen[-1]
    assert (name, detail["reason"]) == ("retry.gave_up", "cancelled")


@pytest.mark.parametrize("how", HOWS)
@virtual
async def test_a_cancellation_in_disguise_leads_to_no_fallback(clock, how):
    """Nobody answers for a task that was told to end."""
    backup = Script("backup")
    fallback = FallbackPrimitive(Driver(how), [backup])
    task = asyncio.create_task(fallback.execute("x", WorkflowContext()))
    await asyncio.sleep(5)
    task.cancel()
    await asyncio.wait([task])
    assert isinstance(task.exception(), (OSError, ExceptionGroup))
    assert (backup.calls, clock.elapsed) == (0, 5)


@virtual
async def test_a_cancellation_in_disguise_ends_the_work_on_items(clock):
    """A worker that collects exceptions does not go on to the next item."""
    driver = Driver("except_block")
    items = MapPrimitive(driver, max_concurrency=2, return_exceptions=True)
    task = asyncio.create_task(items.execute(range(10), WorkflowContext()))
    await asyncio.sleep(5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (driver.calls, clock.elapsed) == (2, 5)


@virtual
async def test_a_limit_of_asyncio_bounds_a_retry_around_such_a_step(clock):
    """The limit cancels once, and that is enough."""
    driver = Driver("except_block")
    with pytest.raises(OSError, match="broken"):
        async with asyncio.timeout(5):
            await quick(driver).execute("x", WorkflowContext())
    assert (driver.calls, clock.elapsed) == (1, 5)


@virtual
async def test_an_attempt_that_reports_its_own_limit_so_is_retried(clock):
    """The limit of the attempt took its cancellation back: the task is not to end."""
    driver = Driver("except_block")
    with pytest.raises(OSError, match="broken"):
        await quick(driver, attempt_timeout=1, max_retries=2).execute(
            "x", WorkflowContext()
        )
    assert driver.calls == 3


@pytest.mark.parametrize("limited", [False, True])
@virtual
async def test_cleanup_of_a_cancelled_task_may_retry(clock, limited):
    """What is being handled further outside is not what has failed now."""
    unlock = Script(Boom(), ValueError("again"), "unlocked", takes=1)
    answers = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            options = {"attempt_timeout": 5} if limited else {}
            retry = quick(unlock, **options)
            answers.append(await retry.execute("x", WorkflowContext()))

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (answers, unlock.calls) == (["unlocked"], 3)


@virtual
async def test_cleanup_of_a_cancelled_task_may_retry_after_a_limit(clock):
    """A limit that expired inside has taken its own cancellation back."""
    unlock = Script("never", takes=60)

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            with suppress(TimeoutExceededError):
                await quick(unlock, attempt_timeout=1, max_retries=1).execute(
                    "x", WorkflowContext()
                )

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert unlock.calls == 2


@virtual
async def test_an_error_after_an_ignored_cancellation_is_one_like_any_other(clock):
    """Who swallows a cancellation for good goes on: nothing of it is in the error."""
    calls = []

    async def stubborn(value):
        calls.append(value)
        if len(calls) == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            raise Boom
        return "ok"

    task = asyncio.create_task(quick(stubborn).execute("x", WorkflowContext()))
    await asyncio.sleep(1)
    task.cancel()
    assert await task == "ok"


@virtual
async def test_an_outer_limit_ends_what_reports_it_as_an_error(clock):
    """The step's own error comes out at the limit, and nothing is tried again."""
    driver = Driver("except_block")
    workflow = TimeoutPrimitive(
        FallbackPrimitive(quick(step(driver)), ["cached"]), timeout_seconds=5
    )
    error = OSError("broken")
    with pytest.raises(OSError, match=exactly(error)):
        await workflow.execute("x", WorkflowContext())
    assert (driver.calls, clock.elapsed) == (1, 5)
