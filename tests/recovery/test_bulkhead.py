"""Bulkhead: who gets a slot, who waits, who is turned away, and that none is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from contextlib import aclosing, suppress
from datetime import timedelta

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.doubles import (
    CANCELLED,
    Boom,
    Script,
    Stream,
    chunks_of,
    virtual,
)
from tta_primitives import ParallelPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.door import Observer, listening
from tta_primitives.errors import (
    BulkheadFullError,
    ExecutionRejectedError,
    OpenWrapperError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    BulkheadPrimitive,
    BulkheadStats,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)


class Jobs:
    """A step whose executions last until the test ends them."""

    __name__ = "jobs"

    def __init__(self):
        self.begun = []
        self.ends = {}
        self.most = 0

    async def __call__(self, name):
        self.begun.append(name)
        end = self.ends[name] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.ends))
        try:
            return await end
        finally:
            del self.ends[name]

    def end(self, name, result="done"):
        self.ends[name].set_result(result)


def start(bulkhead, *names, context=None):
    """Return a task for each call."""
    return [
        asyncio.create_task(
            bulkhead.execute(name, context or WorkflowContext()), name=str(name)
        )
        for name in names
    ]


async def settled():
    """Let everything run that can run without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def at_once(bulkhead, value="x", context=None):
    """Return the error of a call that must end without waiting for anything."""
    running = bulkhead.execute(value, context or WorkflowContext())
    with pytest.raises(BulkheadFullError, match="slots taken") as caught:
        running.send(None)
    return caught.value


def figures(bulkhead):
    """Return how many are active and how many wait."""
    return bulkhead.stats.active, bulkhead.stats.queued


@virtual
async def test_so_many_calls_are_executed_at_a_time(clock):
    """With three slots, ten calls of a second take four seconds."""
    running = 0
    most = 0

    async def work(value):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return value

    bulkhead = BulkheadPrimitive(work, max_concurrency=3, max_queue=None)
    assert await asyncio.gather(*start(bulkhead, *range(10))) == list(range(10))
    assert (most, clock.elapsed) == (3, 4)


@virtual
async def test_a_call_with_a_free_slot_does_not_wait(clock):
    """Its result and its very error come out as without a bulkhead."""
    boom = Boom("own")
    bulkhead = BulkheadPrimitive(Script("ok", boom), max_concurrency=1)
    assert await bulkhead.execute("x", WorkflowContext()) == "ok"
    with pytest.raises(Boom, match="own") as caught:
        await bulkhead.execute("x", WorkflowContext())
    assert caught.value is boom
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_case_76_a_cancelled_waiter_frees_its_place_at_once(clock):
    """After it two later jobs both run: neither place nor slot is lost."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=1)
    first, waiter = start(bulkhead, "first", "waiter")
    await settled()
    waiter.cancel()
    # Not even the cancelled task itself has run again.
    assert figures(bulkhead) == (1, 0)
    (later,) = start(bulkhead, "later")
    await settled()
    assert waiter.cancelled()
    assert figures(bulkhead) == (1, 1)
    jobs.end("first")
    await settled()
    (last,) = start(bulkhead, "last")
    await settled()
    jobs.end("later")
    await settled()
    jobs.end("last")
    assert await asyncio.gather(first, later, last) == ["done"] * 3
    assert jobs.begun == ["first", "later", "last"]
    assert figures(bulkhead) == (0, 0)


@pytest.mark.parametrize("has_next", [True, False])
@virtual
async def test_case_76_a_slot_handed_to_one_who_is_cancelled_is_passed_on(
    clock, has_next
):
    """The cancellation comes in the tick of the handing over, before the task runs."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=2)
    names = ["first", "second", "third"] if has_next else ["first", "second"]

    async def cancelling():
        await bulkhead.execute("first", WorkflowContext())
        # In this very step the slot was handed over.
        second.cancel()

    first = asyncio.create_task(cancelling())
    await settled()
    second, *third = start(bulkhead, *names[1:])
    await settled()
    jobs.end("first")
    await first
    await settled()
    assert second.cancelled()
    assert jobs.begun == ["first", *(["third"] if has_next else [])]
    assert figures(bulkhead) == (int(has_next), 0)
    assert bulkhead.stats.abandoned == 1
    if has_next:
        jobs.end("third")
        assert await third[0] == "done"
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_case_77_a_full_bulkhead_rejects_before_any_await(clock):
    """Without a queue and with a full one; each time with an error of its own."""
    jobs = Jobs()
    for max_queue in (0, 2):
        bulkhead = BulkheadPrimitive(jobs, max_concurrency=2, max_queue=max_queue)
        tasks = start(bulkhead, *range(2 + max_queue))
        await settled()
        error, other = at_once(bulkhead), at_once(bulkhead)
        assert error is not other
        assert isinstance(error, ExecutionRejectedError)
        assert error.retry_after is None
        assert str(error) == (
            "bulkhead/jobs is full: 2 of 2 slots taken, "
            f"{max_queue} of {max_queue} places in the queue"
        )
        assert bulkhead.stats.rejected == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert jobs.begun == [0, 1, 0, 1]


@virtual
async def test_case_77_those_who_wait_are_served_in_their_order(clock):
    """First come first served, whoever ends in between."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=2, max_queue=None)
    tasks = start(bulkhead, *range(8))
    await settled()
    tasks[3].cancel()
    for name in (1, 0, 2, 4, 5, 6, 7):
        jobs.end(name)
        await settled()
    assert jobs.begun == [0, 1, 2, 4, 5, 6, 7]
    assert jobs.most == 2
    # It is cancelled, and not an error of the bulkhead.
    assert tasks[3].cancelled()


@virtual
async def test_nobody_overtakes_those_who_wait(clock):
    """A newcomer in the tick in which a slot is handed over finds none."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=1)
    newcomers = []

    async def first():
        await bulkhead.execute("first", WorkflowContext())
        # In this very step the slot was handed over, and its new owner sleeps still.
        newcomers.extend(start(bulkhead, "newcomer"))
        await bulkhead.execute("first again", WorkflowContext())

    begun = asyncio.create_task(first())
    await settled()
    (second,) = start(bulkhead, "second")
    await settled()
    jobs.end("first")
    await settled()
    assert jobs.begun == ["first", "second"]
    # One of the two has the place in the queue, and neither has the slot.
    assert figures(bulkhead) == (1, 1)
    jobs.end("second")
    await settled()
    assert jobs.begun == ["first", "second", "first again"]
    assert isinstance(newcomers[0].exception(), BulkheadFullError)
    jobs.end("first again")
    assert await asyncio.gather(begun, second) == [None, "done"]


@virtual
async def test_a_waiter_is_turned_away_after_max_wait(clock, events):
    """At exactly that time, without an execution; its place is free."""
    work = Script("ok", takes=10)
    for max_wait in (1.5, timedelta(seconds=1.5)):
        bulkhead = BulkheadPrimitive(
            work, max_concurrency=1, max_queue=1, max_wait=max_wait
        )
        first, second = start(bulkhead, "first", "second")
        with pytest.raises(
            BulkheadFullError, match=r"^bulkhead/script had no free"
        ) as c:
            await second
        assert str(c.value).endswith("within max_wait=1.5 s: 1 of 1 slots taken")
        assert figures(bulkhead) == (1, 0)
        assert await first == "ok"
    assert (work.calls, clock.elapsed) == (2, 20)
    assert events.detail("bulkhead.rejected") == [{"reason": "max_wait"}] * 2
    timers = [wait for wait in clock.sleeps if wait.kind != "sleep"]
    assert [timer.delay for timer in timers] == [1.5, 1.5]


@virtual
async def test_a_waiter_who_is_served_leaves_no_timer(clock):
    """What limits the wait says nothing about the execution."""
    work = Script("ok", takes=1)
    bulkhead = BulkheadPrimitive(work, max_concurrency=1, max_queue=1, max_wait=1.5)
    assert await asyncio.gather(*start(bulkhead, "a", "b")) == ["ok", "ok"]
    assert clock.elapsed == 2
    timers = [wait for wait in clock.sleeps if wait.kind != "sleep"]
    assert [timer.cancelled for timer in timers] == [True]


@virtual
async def test_rule_05_nobody_waits_past_the_deadline_of_the_context(clock, events):
    """The earlier of deadline and max_wait ends the waiting."""
    work = Script("ok", takes=10)
    for options in ({}, {"max_wait": 3}):
        bulkhead = BulkheadPrimitive(work, max_concurrency=1, max_queue=2, **options)
        (first,) = start(bulkhead, "first")
        await settled()
        began = clock.elapsed
        with pytest.raises(BulkheadFullError, match="within the deadline: 1 of 1"):
            await bulkhead.execute("x", WorkflowContext(deadline=began + 2))
        assert clock.elapsed == began + 2
        # Its deadline has passed: it need not queue at all.
        at_once(bulkhead, context=WorkflowContext(deadline=began + 2))
        assert await first == "ok"
    assert events.detail("bulkhead.rejected") == [{"reason": "deadline"}] * 4


@virtual
async def test_with_a_free_slot_the_deadline_is_the_steps_own_matter(clock):
    """There is nothing to wait for, so nothing to refuse."""
    bulkhead = BulkheadPrimitive(Script("ok"), max_concurrency=1, max_queue=1)
    await asyncio.sleep(5)
    assert await bulkhead.execute("x", WorkflowContext(deadline=1)) == "ok"


@virtual
async def test_max_wait_of_zero_is_no_wait(clock):
    """A queue that nobody may stand in rejects at once."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=9, max_wait=0)
    start(bulkhead, "first")
    await settled()
    assert "within max_wait=0 s" in str(at_once(bulkhead))
    jobs.end("first")
    await settled()


@pytest.mark.parametrize("max_wait", [None, 2, 5])
@pytest.mark.parametrize("inside", ["task", "branch", "branch of a branch"])
@virtual
async def test_case_h02_of_two_limits_at_one_instant_the_outer_wins(
    clock, events, inside, max_wait
):
    """The limit that the deadline comes from is left to whoever enforces it."""
    bulkhead = BulkheadPrimitive(
        Script("ok", takes=60), max_concurrency=1, max_queue=1, max_wait=max_wait
    )
    (first,) = start(bulkhead, "first")
    await settled()
    waits = bulkhead
    for _ in range(["task", "branch", "branch of a branch"].index(inside)):
        waits = ParallelPrimitive(step(str), waits)
    outer = TimeoutPrimitive(waits, timeout_seconds=2)
    with pytest.raises(TimeoutExceededError, match="took longer than 2 s"):
        await outer.execute("x", WorkflowContext())
    assert clock.elapsed == 2
    assert asyncio.current_task().cancelling() == 0
    assert figures(bulkhead) == (1, 0)
    if max_wait != 2:
        assert "bulkhead.rejected" not in events.names
    first.cancel()
    await asyncio.wait([first])


@virtual
async def test_who_ignored_an_outer_limit_need_not_queue_after_it(clock):
    """Nobody will enforce a deadline that has passed, and it is too late to wait."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=60), max_concurrency=1, max_queue=1)
    (first,) = start(bulkhead, "first")
    await settled()

    async def stubborn(value, context):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        at_once(bulkhead, context=context)
        return "late"

    limited = TimeoutPrimitive(stubborn, timeout_seconds=2)
    assert await limited.execute("x", WorkflowContext()) == "late"
    assert clock.elapsed == 2
    first.cancel()
    await asyncio.wait([first])


def test_only_who_may_wait_asks_for_a_deadline():
    """A limit outside makes a view of the context only for those who look at it."""
    for max_queue, asks in [(0, False), (1, True), (None, True)]:
        bulkhead = BulkheadPrimitive(
            Script("ok"), max_concurrency=1, max_queue=max_queue
        )
        assert bulkhead._reads_deadline is asks


@virtual
async def test_a_shorter_wait_inside_a_limit_is_a_rejection(clock):
    """Which a fallback may answer within the limit."""
    bulkhead = BulkheadPrimitive(
        Script("ok", takes=60), max_concurrency=1, max_queue=1, max_wait=1
    )
    (first,) = start(bulkhead, "first")
    await settled()
    workflow = TimeoutPrimitive(
        FallbackPrimitive(bulkhead, ["busy"]), timeout_seconds=2
    )
    assert await workflow.execute("x", WorkflowContext()) == "busy"
    assert clock.elapsed == 1
    first.cancel()
    await asyncio.wait([first])


@pytest.mark.parametrize("order", ["before", "after"])
@virtual
async def test_rule_04_a_cancellation_at_the_instant_of_max_wait_wins(clock, order):
    """Whichever callback runs first, the waiter is cancelled and not rejected."""
    loop = asyncio.get_running_loop()
    bulkhead = BulkheadPrimitive(
        Script("ok", takes=60), max_concurrency=1, max_queue=1, max_wait=5
    )
    first, second = start(bulkhead, "first", "second")
    if order == "before":
        loop.call_at(5, second.cancel)
    await settled()
    if order == "after":
        loop.call_at(5, second.cancel)
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await second
    assert (clock.elapsed, figures(bulkhead)) == (5, (1, 0))
    first.cancel()
    await asyncio.wait([first])
    assert figures(bulkhead) == (0, 0)


@pytest.mark.parametrize("end", [Boom("x"), KeyboardInterrupt("x"), SystemExit("x")])
@virtual
async def test_rule_02_every_end_of_an_execution_frees_its_slot(clock, end):
    """A failure, and what is no verdict at all."""
    bulkhead = BulkheadPrimitive(Script(end), max_concurrency=1)
    running = bulkhead.execute("x", WorkflowContext())
    with pytest.raises(type(end), match="x"):
        running.send(None)
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_rule_02_a_cancelled_execution_frees_its_slot_after_its_cleanup(clock):
    """Until its `finally` blocks have ended it is at work."""

    async def tidy(value):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)

    bulkhead = BulkheadPrimitive(tidy, max_concurrency=1, max_queue=1)
    first, second = start(bulkhead, "first", "second")
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(1)
    assert figures(bulkhead) == (1, 1)
    await asyncio.sleep(1)
    assert first.cancelled()
    assert figures(bulkhead) == (1, 0)
    second.cancel()
    await asyncio.wait([second])
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_a_coroutine_that_is_closed_frees_slot_and_place(clock):
    """Also when it is thrown away rather than cancelled."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=1), max_concurrency=1, max_queue=1)
    active = bulkhead.execute("x", WorkflowContext())
    active.send(None)
    waits = bulkhead.execute("x", WorkflowContext())
    waits.send(None)
    assert figures(bulkhead) == (1, 1)
    waits.close()
    assert figures(bulkhead) == (1, 0)
    active.close()
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_one_who_leaves_wakes_one_who_waits(clock):
    """Slots are handed over: the others sleep on."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=None)
    tasks = start(bulkhead, *range(100))
    await settled()
    places = list(bulkhead._slots.queue)
    jobs.end(0)
    await settled()
    assert [place.done() for place in places] == [True] + [False] * 98
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert figures(bulkhead) == (0, 0)


@virtual
async def test_rejections_are_retried_and_fallen_back_on(clock):
    """Nothing was executed, so even a step that must not be repeated is retried."""
    charge = step(idempotent=False)(Script("paid", takes=3))
    bulkhead = BulkheadPrimitive(charge, max_concurrency=1)
    retried = RetryPrimitive(bulkhead, backoff_strategy=[2, 2], jitter="none")
    assert await asyncio.gather(*start(retried, 1, 2)) == ["paid", "paid"]
    assert clock.elapsed == 7
    first, second = start(FallbackPrimitive(bulkhead, ["busy"]), 1, 2)
    assert await second == "busy"
    assert await first == "paid"


class Where(WorkflowPrimitive):
    """A primitive that returns its path and the deadline it sees."""

    async def execute(self, input_data, context):
        return context.path, context.deadline


@virtual
async def test_what_is_inside_knows_its_place(clock):
    """Path and deadline are those of a call without a bulkhead."""
    bulkhead = BulkheadPrimitive(Where(), max_concurrency=1)
    context = WorkflowContext(deadline=9)
    assert await bulkhead.execute("x", context) == ("bulkhead/where", 9)
    assert [chunk async for chunk in bulkhead.stream("x", context)] == [
        ("bulkhead/where", 9)
    ]


@virtual
async def test_a_stream_holds_its_slot_until_it_is_closed(clock):
    """Chunks pass, and whoever comes meanwhile finds no slot."""
    bulkhead = BulkheadPrimitive(Stream(["a", 1.0, "b"]), max_concurrency=1)
    async with aclosing(bulkhead.stream("x", WorkflowContext())) as chunks:
        assert await anext(chunks) == "a"
        assert figures(bulkhead) == (1, 0)
        at_once(bulkhead)
        seen, error = await chunks_of(bulkhead, "x", WorkflowContext())
        assert (seen, type(error)) == ([], BulkheadFullError)
        assert await anext(chunks) == "b"
        # It has not ended yet, as far as anybody knows.
        assert figures(bulkhead) == (1, 0)
    assert figures(bulkhead) == (0, 0)
    assert await chunks_of(bulkhead, "x", WorkflowContext()) == (["a", "b"], None)


@virtual
async def test_an_abandoned_or_failed_stream_frees_its_slot(clock):
    """Closing early closes the source first."""
    log = []

    async def source(value):
        try:
            yield "a"
            yield "b"
        finally:
            log.append(figures(bulkhead))

    bulkhead = BulkheadPrimitive(source, max_concurrency=1)
    chunks = bulkhead.stream("x", WorkflowContext())
    await anext(chunks)
    await chunks.aclose()
    assert log == [(1, 0)]
    assert figures(bulkhead) == (0, 0)
    broken = BulkheadPrimitive(Stream(["a", Boom("late")]), max_concurrency=1)
    seen, error = await chunks_of(broken, "x", WorkflowContext())
    assert (seen, str(error), figures(broken)) == (["a"], "late", (0, 0))


@virtual
async def test_a_stream_that_waits_may_be_cancelled(clock):
    """It gives up its place like any other call."""
    bulkhead = BulkheadPrimitive(Stream([60.0, "a"]), max_concurrency=1, max_queue=1)
    first, second = (
        asyncio.create_task(chunks_of(bulkhead, "x", WorkflowContext()))
        for _ in range(2)
    )
    await settled()
    assert figures(bulkhead) == (1, 1)
    second.cancel()
    assert figures(bulkhead) == (1, 0)
    assert await first == (["a"], None)
    assert second.cancelled()


def test_leftovers_of_a_closed_loop_do_not_wedge_it():
    """Slots that were held when a loop was closed are not held on the next."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1, max_queue=1)
    loop = asyncio.new_event_loop()
    kept = [
        loop.create_task(bulkhead.execute(name, WorkflowContext())) for name in "ab"
    ]
    loop.run_until_complete(settled())
    assert figures(bulkhead) == (1, 1)
    loop.close()
    assert figures(bulkhead) == (0, 0)

    async def again():
        (task,) = start(bulkhead, "c")
        await settled()
        assert figures(bulkhead) == (1, 0)
        jobs.end("c")
        return await task

    for _ in range(2):
        assert asyncio.run(again()) == "done"
    assert jobs.begun == ["a", "c", "c"]
    assert bulkhead.stats == BulkheadStats(
        active=0, queued=0, calls=4, waited=1, rejected=0, abandoned=0, peak=1
    )
    for task in kept:
        # Nobody will ever run it; the loop would complain when it is thrown away.
        task._log_destroy_pending = False
        task.get_coro().close()
    assert figures(bulkhead) == (0, 0)


def test_loops_that_are_closed_are_forgotten():
    """A program that makes a loop for each job does not fill the memory with them."""
    bulkhead = BulkheadPrimitive(Script("ok"), max_concurrency=1)
    for _ in range(5):
        assert asyncio.run(bulkhead.execute("x", WorkflowContext())) == "ok"
    assert len(bulkhead._by_loop._by_loop) == 1
    assert bulkhead.stats.calls == 5


def test_a_slot_given_back_on_a_closed_loop_goes_to_nobody():
    """Those who wait there never run again, and nothing is raised in vain."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=9), max_concurrency=1, max_queue=1)

    async def begin():
        calls = [bulkhead.execute("x", WorkflowContext()) for _ in range(2)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await settled()
        return tasks

    loop = asyncio.new_event_loop()
    active, waits = loop.run_until_complete(begin())
    loop.close()
    active._log_destroy_pending = waits._log_destroy_pending = False
    active.get_coro().close()
    waits.get_coro().close()
    assert figures(bulkhead) == (0, 0)


def test_loops_in_several_threads_have_slots_of_their_own():
    """None waits for a task of another loop, nor wakes one."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=1)
    barrier = threading.Barrier(2, timeout=30)
    active = []

    async def work(name):
        (task,) = start(bulkhead, name)
        await settled()
        barrier.wait()
        active.append(bulkhead.stats.active)
        barrier.wait()
        at_once(bulkhead)
        jobs.end(name)
        assert await task == "done"

    threads = [threading.Thread(target=asyncio.run, args=(work(n),)) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert active == [2, 2]
    stats = bulkhead.stats
    assert (stats.active, stats.calls, stats.rejected, stats.peak) == (0, 4, 2, 1)


def test_a_loop_whose_clock_shows_an_earlier_time_starts_afresh():
    """As the next test with a virtual clock does."""
    bulkhead = BulkheadPrimitive(
        Script("ok", takes=1), max_concurrency=1, max_queue=1, max_wait=5
    )

    async def two():
        return await asyncio.gather(*start(bulkhead, "a", "b"))

    for start_at in (1000, 0):
        clock = VirtualClock(loop_start=start_at)
        assert clock.run(two()) == ["ok", "ok"]
        assert clock.elapsed == 2


@virtual
async def test_stats_count_what_became_of_the_calls(clock):
    """Those executed, those who waited, who were turned away and who left."""
    jobs = Jobs()
    bulkhead = BulkheadPrimitive(jobs, max_concurrency=2, max_queue=2)
    tasks = start(bulkhead, *range(5))
    await settled()
    tasks[2].cancel()
    await settled()
    assert bulkhead.stats == BulkheadStats(
        active=2, queued=1, calls=5, waited=2, rejected=1, abandoned=1, peak=2
    )
    jobs.end(0)
    await settled()
    jobs.end(1)
    jobs.end(3)
    await settled()
    assert bulkhead.stats == BulkheadStats(
        active=0, queued=0, calls=5, waited=2, rejected=1, abandoned=1, peak=2
    )
    assert [type(task.exception()) for task in tasks if not task.cancelled()] == [
        type(None),
        type(None),
        type(None),
        BulkheadFullError,
    ]


@virtual
async def test_observers_hear_who_waits_and_for_how_long(clock, events):
    """Nothing is told of a call that finds a slot."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=3), max_concurrency=1, max_queue=2)
    tasks = start(bulkhead, "a", "b", "c", "d")
    await asyncio.wait(tasks)
    assert events.seen == [
        ("bulkhead.queued", {"queued": 1}),
        ("bulkhead.queued", {"queued": 2}),
        ("bulkhead.rejected", {"reason": "full"}),
        ("bulkhead.admitted", {"waited": 3.0}),
        ("bulkhead.admitted", {"waited": 6.0}),
    ]
    assert isinstance(tasks[3].exception(), BulkheadFullError)


class Rude(Observer):
    """An observer that ends the run as an unexpected call of a double does."""

    def __init__(self, event):
        self.at = event

    def event(self, call, name, detail):
        if name == self.at:
            raise KeyboardInterrupt(name)


@pytest.mark.parametrize("event", ["bulkhead.queued", "bulkhead.admitted"])
def test_what_an_observer_does_loses_no_slot(event):
    """Even if it raises what nobody catches."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=3), max_concurrency=1, max_queue=2)

    tasks = []

    async def run():
        with listening(observers=(Rude(event),)):
            tasks.extend(start(bulkhead, "a", "b"))
            await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt, match=event):
        VirtualClock().run(run())
    assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    slots = bulkhead._slots  # Its loop is closed, so that the figures leave it out.
    assert (slots.active, len(slots.queue)) == (0, 0)


@virtual
async def test_an_open_bulkhead_wraps_what_follows_with_slots_of_its_own(clock):
    """Binding makes a copy; a copy under another name shares its slots."""
    opened = BulkheadPrimitive(max_concurrency=1)
    jobs = Jobs()
    one, other = opened >> jobs, opened >> jobs
    tasks = start(one, "a") + start(other, "b")
    await settled()
    assert jobs.begun == ["a", "b"]
    bound = BulkheadPrimitive(jobs, max_concurrency=1)
    tasks += start(bound, "c")
    await settled()
    assert str(at_once(bound.named("llm"))).startswith("llm/jobs is full")
    for name in "abc":
        jobs.end(name)
    assert await asyncio.gather(*tasks) == ["done"] * 3
    for call in (
        lambda: opened.execute("x", WorkflowContext()),
        lambda: anext(opened.stream("x", WorkflowContext())),
    ):
        with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
            await call()
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        _ = opened.stats


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"max_concurrency": 0},
            ValueError,
            "max_concurrency=0 must be a whole number",
        ),
        ({"max_concurrency": True}, ValueError, "max_concurrency=True must be a whole"),
        ({"max_concurrency": 2.5}, ValueError, "max_concurrency=2.5 must be a whole"),
        ({"max_concurrency": None}, ValueError, "max_concurrency=None must be a whole"),
        ({"max_queue": -1}, ValueError, "max_queue=-1 must be a whole number"),
        ({"max_queue": "all"}, ValueError, "max_queue='all' must be a whole number"),
        ({"max_wait": -1, "max_queue": 1}, ValueError, "max_wait=-1 must be a non-neg"),
        (
            {"max_wait": "1", "max_queue": 1},
            TypeError,
            "max_wait='1' must be a non-neg",
        ),
        ({"max_wait": 1}, ValueError, "max_wait=1 needs a queue to wait in"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        BulkheadPrimitive(Script("ok"), **{"max_concurrency": 1, **options})


def test_case_93_it_describes_itself():
    """The number of slots always, the rest if it is not the usual."""
    plain = BulkheadPrimitive(Script("ok"), max_concurrency=3)
    assert plain.describe()["options"] == {"max_concurrency": 3}
    assert repr(plain) == "<BulkheadPrimitive 'script' max_concurrency=3>"
    queue = BulkheadPrimitive(max_concurrency=3, max_queue=None, max_wait=2)
    assert queue.options() == {"max_concurrency": 3, "max_queue": None, "max_wait": 2.0}


@virtual
async def test_rejections_and_cancellations_leave_no_cyclic_garbage(clock):
    """After 100 of each with the collector off there is nothing to collect."""
    bulkhead = BulkheadPrimitive(
        Script("ok", takes=10_000), max_concurrency=1, max_queue=1, max_wait=1
    )
    (first,) = start(bulkhead, "first")
    await settled()

    async def many(times):
        for _ in range(times):
            with suppress(BulkheadFullError):
                await bulkhead.execute("x", WorkflowContext())
            (second,) = start(bulkhead, "second")
            await settled()
            with suppress(BulkheadFullError):
                await bulkhead.execute("x", WorkflowContext())
            second.cancel()
            await asyncio.wait([second])
            del second

    await many(2)
    await settled()
    with only_new_garbage():
        await many(100)
        await settled()
        assert gc.collect() == 0
        first.cancel()
        await asyncio.wait([first])


def test_the_error_of_a_rejection_does_not_grow():
    """Each of 1000 has the traceback of its own call."""
    bulkhead = BulkheadPrimitive(Script("ok", takes=1), max_concurrency=1)

    async def depths():
        (first,) = start(bulkhead, "first")
        await settled()
        found = set()
        for _ in range(1000):
            try:
                await bulkhead.execute("x", WorkflowContext())
            except BulkheadFullError as error:
                trace, depth = error.__traceback__, 0
                while trace is not None:
                    trace, depth = trace.tb_next, depth + 1
                found.add(depth)
        await first
        return found

    assert len(VirtualClock().run(depths())) == 1


def test_case_97_a_call_in_flight_holds_little_memory():
    """What it adds to each of many calls at work, and of many that wait, is bounded."""

    async def waits(value):
        await asyncio.get_running_loop().create_future()

    async def held(execute, count=500):
        tasks = [asyncio.create_task(execute("x")) for _ in range(10)]
        await asyncio.sleep(0)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks += [asyncio.create_task(execute("x")) for _ in range(count)]
        await asyncio.sleep(0)
        size = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return size / count

    async def measure(slots):
        bulkhead = BulkheadPrimitive(waits, max_concurrency=slots, max_queue=None)
        context = WorkflowContext()

        async def bare(value):
            await waits(value)

        async def call(value):
            await bulkhead.execute(value, context)

        await held(call, 10)
        return await held(call) - await held(bare)

    assert asyncio.run(measure(10_000)) <= 512
    assert asyncio.run(measure(1)) <= 1024


class Slow(WorkflowPrimitive):
    """A primitive that takes a second, and may look at its context."""

    async def execute(self, input_data, context):
        await asyncio.sleep(1)


@virtual
async def test_errors_say_where(clock):
    """The path is that of the bulkhead, and what it wraps."""
    inner = BulkheadPrimitive(Slow(), max_concurrency=1)
    chain = (step(str) >> RetryPrimitive(inner, max_retries=0)).named("answer")
    tasks = start(chain, 1, 2)
    await asyncio.wait(tasks)
    message = "answer/retry/bulkhead/slow is full: 1 of 1 slots taken, 0 of 0 places"
    assert str(tasks[1].exception()).startswith(message)
