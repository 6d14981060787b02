"""Saga and cancellation: what was done is undone to the end, whoever ends the task."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from contextlib import suppress

import pytest

from tests.garbage import only_new_garbage
from tests.recovery.doubles import CANCELLED, Boom, virtual
from tta_primitives import ParallelPrimitive, WorkflowContext, step
from tta_primitives.errors import (
    PrimitiveError,
    SagaCompensationError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    CompensationPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    SagaRecord,
    SagaStats,
    TimeoutPrimitive,
)


class Undo:
    """Compensations that take their time, and the steps that they have undone."""

    def __init__(self):
        self.done = []
        self.records = []

    def of(self, name, takes=10, error=None):
        async def work(record):
            self.records.append(record)
            await asyncio.sleep(takes)
            if error is not None:
                raise error
            self.done.append(name)

        return step(work, name=f"undo_{name}")


@pytest.fixture
def undo():
    """Compensations, and what they have undone."""
    return Undo()


async def quick(value):
    """Answer at once."""
    return value


async def hangs(value):
    """Wait for longer than anybody has."""
    await asyncio.sleep(3600)


async def fails(value):
    """Fail after a second."""
    await asyncio.sleep(1)
    raise Boom


def started(primitive):
    """Return a task that executes a primitive."""
    return asyncio.create_task(primitive.execute("in", WorkflowContext()))


async def cancelled_at(task, *times):
    """Cancel a task at these times, and wait for its end."""
    loop = asyncio.get_running_loop()
    for at in times:
        loop.call_at(at, task.cancel)
    await asyncio.wait([task])


def nothing_left():
    """Tell whether no task but the test's own is left."""
    return asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_case_89_a_cancelled_saga_is_undone_and_stays_cancelled(clock, undo):
    """Compensation 1 runs to its end, then the cancellation goes on."""
    saga = SagaPrimitive([(quick, undo.of("1")), (hangs, undo.of("2"))])
    task = started(saga)
    await cancelled_at(task, 5)
    assert task.cancelled()
    assert undo.done == ["1"]
    assert clock.elapsed == 15
    assert nothing_left()
    (record,) = undo.records
    assert isinstance(record.error, asyncio.CancelledError)
    assert saga.stats == SagaStats(1, 0, 1, 1, 0)


@pytest.mark.parametrize("times", [(5, 6), (5, 6, 7), (5, 5), (5, 15), (5, 6, 15)])
@virtual
async def test_case_89_further_cancellations_do_not_abort_it(clock, undo, times):
    """The second and the third are no more than the first, whenever they come."""
    saga = SagaPrimitive([(quick, undo.of("1")), (quick, undo.of("2")), hangs])
    task = started(saga)
    await cancelled_at(task, *times)
    assert task.cancelled()
    assert undo.done == ["2", "1"]
    assert clock.elapsed == 25
    assert nothing_left()


@virtual
async def test_case_89_it_is_bounded(clock, undo):
    """A compensation that hangs is ended by its own limit; that it failed is told."""
    saga = SagaPrimitive(
        [(quick, undo.of("1")), (quick, undo.of("2", takes=3600)), hangs],
        compensation_timeout=30,
    )
    task = started(saga)
    await cancelled_at(task, 5, 6)
    error = task.exception()
    assert isinstance(error, SagaCompensationError)
    assert isinstance(error.__cause__, asyncio.CancelledError)
    assert [str(e) for e in error.exceptions] == ["saga/undo_2 took longer than 30 s"]
    assert undo.done == ["1"]
    assert clock.elapsed == 45


@virtual
async def test_case_89_a_saga_that_undoes_a_failure_may_be_cancelled(clock, undo):
    """All is undone; then the task is cancelled, for that it was told."""
    task = started(SagaPrimitive([(quick, undo.of("1")), fails]))
    await cancelled_at(task, 5)
    assert task.cancelled()
    assert undo.done == ["1"]
    assert clock.elapsed == 11


@virtual
async def test_case_91_a_cancelled_step_is_undone_too(clock, undo):
    """Nobody knows what came of it, as with a step that timed out."""
    saga = SagaPrimitive(
        [(quick, undo.of("1")), (hangs, undo.of("2"))], compensate_failed=True
    )
    task = started(saga)
    await cancelled_at(task, 5)
    assert task.cancelled()
    assert undo.done == ["2", "1"]
    last, first = undo.records
    assert (last.output, last.completed) == (None, False)
    assert first == SagaRecord("in", "in", last.error)


@virtual
async def test_a_cancelled_branch_is_undone_too(clock, undo):
    """A branch that was cancelled because another failed may have done its work."""
    branches = ParallelPrimitive(CompensationPrimitive(hangs, undo.of("2")), fails)
    saga = SagaPrimitive(branches, compensate_failed=True)
    with pytest.raises(Boom, match="boom"):
        await saga.execute("in", WorkflowContext())
    assert undo.done == ["2"]


@virtual
async def test_a_step_that_ignores_its_cancellation_is_done(clock, undo):
    """As asyncio has it: who swallows a cancellation goes on."""

    async def stubborn(value):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return "done"

    async def later(value):
        await asyncio.sleep(1)
        return f"{value} and after"

    saga = SagaPrimitive([(quick, undo.of("1")), stubborn, later])
    task = started(saga)
    await cancelled_at(task, 5)
    assert task.result() == "done and after"
    assert undo.done == []


@virtual
async def test_a_cancellation_that_became_an_error_is_undone_and_comes_out(clock, undo):
    """The step's own error is what propagates; no retry and no fallback follows it."""

    async def driver(value):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise OSError("broken") from None

    saga = SagaPrimitive([(quick, undo.of("1")), driver])
    task = started(FallbackPrimitive(RetryPrimitive(saga), ["other"]))
    await cancelled_at(task, 5)
    assert isinstance(task.exception(), OSError)
    assert undo.done == ["1"]


@pytest.mark.parametrize("times", [(5,), (1.5,)])
@virtual
async def test_a_failed_undoing_of_a_cancelled_saga_is_no_verdict(clock, undo, times):
    """It comes out, for somebody has to look at it; but nobody tries again."""
    saga = SagaPrimitive([(quick, undo.of("1", error=OSError("undo"))), fails])
    everything = RetryPrimitive(saga, retry_on=Exception)
    task = started(FallbackPrimitive(everything, ["other"]))
    await cancelled_at(task, *times)
    error = task.exception()
    assert isinstance(error, SagaCompensationError)
    assert saga.stats.calls == 1
    assert isinstance(error.__context__, asyncio.CancelledError)
    assert isinstance(error.__cause__, Boom)


@virtual
async def test_a_limit_of_asyncio_further_outside_is_a_timeout_after_all(clock, undo):
    """It waits until all is undone, and then it is a TimeoutError as always."""
    with pytest.raises(TimeoutError, match=r"^$"):
        async with asyncio.timeout(5):
            await SagaPrimitive([(quick, undo.of("1")), hangs]).execute(
                "in", WorkflowContext()
            )
    assert undo.done == ["1"]
    assert clock.elapsed == 15
    assert asyncio.current_task().cancelling() == 0
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1))


@virtual
async def test_a_limit_that_is_up_while_things_are_undone_waits_too(clock, undo):
    """The step failed in time, and what undoes the others takes longer."""
    saga = SagaPrimitive([(quick, undo.of("1")), fails])
    with pytest.raises(TimeoutExceededError, match="took longer than 5 s"):
        await TimeoutPrimitive(saga, timeout_seconds=5).execute("in", WorkflowContext())
    assert undo.done == ["1"]
    assert clock.elapsed == 11
    assert asyncio.current_task().cancelling() == 0


@virtual
async def test_rule_04_a_cancellation_wins_over_a_limit_that_is_up(clock, undo):
    """Both have asked for the end; the one from outside counts."""
    saga = SagaPrimitive([(quick, undo.of("1")), hangs])
    task = started(TimeoutPrimitive(saga, timeout_seconds=5))
    await cancelled_at(task, 7)
    assert task.cancelled()
    assert undo.done == ["1"]
    assert clock.elapsed == 15


@virtual
async def test_a_group_whose_other_task_fails_waits_for_the_undoing(clock, undo):
    """As it does for any cleanup."""
    saga = SagaPrimitive([(quick, undo.of("1")), hangs])

    async def together():
        async with asyncio.TaskGroup() as group:
            group.create_task(saga.execute("in", WorkflowContext()))
            group.create_task(fails("in"))

    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await together()
    assert undo.done == ["1"]
    assert clock.elapsed == 11
    assert nothing_left()


@pytest.mark.parametrize("again", [False, True])
@virtual
async def test_whoever_cancels_all_tasks_ends_one_compensation_at_most(
    clock, undo, again
):
    """The one that was at work counts as failed; the rest is done by another task."""
    saga = SagaPrimitive(
        [
            (quick, undo.of("1")),
            (quick, undo.of("2")),
            (quick, undo.of("3")),
            hangs,
        ]
    )
    task = started(saga)
    await asyncio.sleep(5)
    task.cancel()
    if again:  # Before the task that undoes has begun.
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(5)
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()
    await asyncio.wait([task])
    if again:
        assert task.cancelled()
        assert undo.done == ["3", "2", "1"]
        return
    error = task.exception()
    assert [str(e) for e in error.exceptions] == [
        "saga/undo_3 was cancelled before it was done"
    ]
    assert isinstance(error.exceptions[0], PrimitiveError)
    assert undo.done == ["2", "1"]


@virtual
async def test_a_compensation_that_cancels_itself_has_failed(clock, undo):
    """Nobody has asked for it, so it is no cancellation of the saga."""

    async def gives_up(record):
        raise asyncio.CancelledError

    saga = SagaPrimitive([(quick, undo.of("1")), (quick, gives_up), fails])
    with pytest.raises(SagaCompensationError, match="could not undo saga/quick#2"):
        await saga.execute("in", WorkflowContext())
    assert undo.done == ["1"]


@virtual
async def test_a_step_that_cancels_itself_is_undone_too(clock, undo):
    """Whoever raised it: the saga has not completed."""

    async def gives_up(value):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await SagaPrimitive([(quick, undo.of("1")), gives_up]).execute(
            "in", WorkflowContext()
        )
    assert undo.done == ["1"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_rule_02_who_ends_the_process_from_a_step_is_undone_like_the_rest(kind, undo):
    """What was done is undone, as a `finally` would do it, and the error goes on."""

    async def ends(value):
        raise kind

    saga = SagaPrimitive([(quick, undo.of("1", takes=0)), ends])
    with pytest.raises(kind, match=r"^$"):
        asyncio.run(saga.execute("in", WorkflowContext()))
    assert undo.done == ["1"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_rule_02_who_ends_the_process_from_a_compensation_ends_the_undoing(kind, undo):
    """It does not wait for the others."""

    async def ends(record):
        raise kind

    saga = SagaPrimitive([(quick, undo.of("1", takes=0)), (quick, ends), fails])
    with pytest.raises(kind, match=r"^$"):
        asyncio.run(saga.execute("in", WorkflowContext()))
    assert undo.done == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_rule_02_a_loop_that_goes_on_after_that_ends_the_saga_with_it(kind, undo):
    """As in a notebook, whose loop is run again after Ctrl+C."""

    async def ends(record):
        raise kind

    saga = SagaPrimitive([(quick, undo.of("1", takes=0)), (quick, ends), fails])
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(saga.execute("in", WorkflowContext()))
        for _ in range(2):
            with pytest.raises(kind, match=r"^$"):
                loop.run_until_complete(task)
    assert undo.done == []


@virtual
async def test_a_coroutine_that_is_closed_undoes_nothing(clock, undo):
    """It cannot wait any more; it must not hide that it was closed."""
    for saga in (
        SagaPrimitive([(quick, undo.of("1")), hangs]),
        SagaPrimitive([(quick, undo.of("1")), (hangs, undo.of("2"))]),
    ):
        execution = saga.execute("in", WorkflowContext())
        contextvars.copy_context().run(execution.send, None)
        execution.close()
    assert undo.done == []
    assert nothing_left()


@virtual
async def test_a_late_step_that_is_closed_undoes_nothing(clock, undo):
    """That its saga was undone meanwhile does not make it wait."""
    part = CompensationPrimitive(hangs, undo.of("late"), compensate_failed=True)
    executions = []

    async def careless(value, context):
        executions.append(part.execute(value, context))
        executions[0].send(None)
        raise Boom

    with pytest.raises(Boom, match="boom"):
        await SagaPrimitive(careless).execute("in", WorkflowContext())
    executions[0].close()
    assert undo.done == []
    assert nothing_left()


@virtual
async def test_a_cancelled_stream_is_undone(clock, undo):
    """Whoever reads it is cancelled after that."""

    async def tell(value):
        yield 1
        await asyncio.sleep(3600)

    saga = SagaPrimitive([(quick, undo.of("1")), (tell, undo.of("2"))])

    async def read():
        return [chunk async for chunk in saga.stream("in", WorkflowContext())]

    task = asyncio.create_task(read())
    await cancelled_at(task, 5, 6)
    assert task.cancelled()
    assert undo.done == ["1"]
    assert clock.elapsed == 15


async def refuses(record):
    """Fail with a new error each time."""
    raise Boom


async def raises_again(record):
    """Fail with what began it."""
    try:
        raise record.error
    finally:
        del record


async def fails_at_once(value):
    """Fail with a new error each time."""
    raise Boom


async def gets_over_it(value, context):
    """Succeed although something that is executed fails."""
    failing = CompensationPrimitive(fails_at_once, quick)
    with suppress(Boom):
        await failing.execute(value, context)


async def executes_late(value, context):
    """Fail while something is still under way."""
    late = CompensationPrimitive(quick, quick)
    task = asyncio.create_task(late.execute(value, context))
    try:
        raise Boom
    finally:
        del late, task


async def breaks(value):
    """Yield a chunk and fail."""
    yield value
    raise Boom


class Streamed:
    """A workflow that is streamed when it is executed."""

    def __init__(self, workflow):
        self.workflow = workflow

    async def execute(self, value, context):
        async for _ in self.workflow.stream(value, context):
            pass


GARBAGE = {
    "streamed": Streamed(
        SagaPrimitive([(quick, quick), (breaks, quick)], compensate_failed=True)
    ),
    "undone": SagaPrimitive([(quick, quick), (quick, quick), fails_at_once]),
    "not undone": SagaPrimitive([(quick, refuses), (quick, quick), fails_at_once]),
    "failed with the same": SagaPrimitive([(quick, raises_again), fails_at_once]),
    "failed step": SagaPrimitive(
        [(quick, quick), (fails_at_once, quick)], compensate_failed=True
    ),
    "failed step, not undone": SagaPrimitive(
        [(quick, quick), (fails_at_once, refuses)], compensate_failed=True
    ),
    "succeeded after a failed attempt": SagaPrimitive(
        gets_over_it, compensate_failed=True
    ),
    "nested": SagaPrimitive(
        [SagaPrimitive([(quick, quick), (quick, refuses)]), fails_at_once]
    ),
    "chain": SagaPrimitive(
        CompensationPrimitive(quick, quick)
        >> CompensationPrimitive(fails_at_once, quick, compensate_failed=True)
    ),
    "alone": CompensationPrimitive(fails_at_once, refuses, compensate_failed=True),
    "late": SagaPrimitive([(quick, quick), executes_late]),
    "timed out": TimeoutPrimitive(
        SagaPrimitive([(quick, quick), (hangs, quick)], compensate_failed=True),
        timeout_seconds=1,
    ),
    "compensation timed out": SagaPrimitive(
        [(quick, hangs), fails_at_once], compensation_timeout=1
    ),
}


async def run_many(workflow, times):
    for _ in range(times):
        with suppress(Boom, TimeoutExceededError, ExceptionGroup):
            await workflow.execute("x", WorkflowContext())
    await asyncio.sleep(1)


@pytest.mark.parametrize("name", GARBAGE)
@virtual
async def test_case_06_sagas_leave_no_cyclic_garbage(clock, name):
    """After 100 runs with the collector off there is nothing to collect."""
    await run_many(GARBAGE[name], 2)
    with only_new_garbage():
        await run_many(GARBAGE[name], 100)
        assert gc.collect() == 0
