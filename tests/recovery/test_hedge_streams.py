"""Hedged streams: the first chunk decides, and each stream stays in one task."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing, suppress

import pytest

from tests.garbage import only_new_garbage
from tests.recovery.doubles import CANCELLED, Boom, chunks_of, virtual
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import (
    HedgeOutcome,
    HedgePrimitive,
    Quantile,
    RetryPrimitive,
    TimeoutPrimitive,
)


class Sources:
    """A streaming step that notes what becomes of each of its streams."""

    __name__ = "sources"

    def __init__(self, *scripts):
        self.scripts = scripts
        self.log = []
        self.tasks = []

    async def __call__(self, value):
        number = len(self.tasks)
        self.tasks.append({asyncio.current_task()})
        self.log.append((number, "opened"))
        try:
            for chunk in self.scripts[min(number, len(self.scripts) - 1)]:
                self.tasks[number].add(asyncio.current_task())
                if isinstance(chunk, BaseException):
                    raise chunk
                if isinstance(chunk, float):
                    await asyncio.sleep(chunk)
                else:
                    self.log.append((number, chunk))
                    yield chunk
        finally:
            self.tasks[number].add(asyncio.current_task())
            self.log.append((number, "closed"))


def only_this_task():
    """Tell whether no other task is left."""
    return asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_stream_that_begins_in_time_is_not_hedged(clock, events):
    """Later chunks may take as long as they like."""
    sources = Sources([0.5, "a", 60.0, "b"])
    context = WorkflowContext()
    seen = await chunks_of(HedgePrimitive(sources, delay=1), "x", context)
    assert seen == (["a", "b"], None)
    assert sources.log == [(0, "opened"), (0, "a"), (0, "b"), (0, "closed")]
    assert (clock.elapsed, events.seen, context.outcomes) == (60.5, [], {})
    assert only_this_task()


@virtual
async def test_the_first_chunk_wins_and_other_streams_are_closed(clock, events):
    """Before the chunk is passed on nothing else runs any more."""
    sources = Sources([60.0, "slow"], [2.0, "a", 1.0, "b"])
    hedge = HedgePrimitive(sources, delay=1)
    context = WorkflowContext()
    async with aclosing(hedge.stream("x", context)) as chunks:
        assert await anext(chunks) == "a"
        assert sources.log[-2:] == [(1, "a"), (0, "closed")]
        assert [chunk async for chunk in chunks] == ["b"]
    assert clock.elapsed == 4
    assert context.outcomes == {"hedge": HedgeOutcome(1, "sources")}
    assert events.names == ["hedge.started", "hedge.won"]
    assert (hedge.stats.wins, hedge.stats.hedges) == (1, 1)
    assert only_this_task()


@virtual
async def test_each_stream_is_read_by_one_task_from_its_first_to_its_last_chunk(clock):
    """What a stream holds open between two chunks belongs to the task it began in."""

    async def source(value):
        async with asyncio.timeout(10):
            yield "a"
            await asyncio.sleep(1)
            yield "b"
            await asyncio.sleep(60)

    hedge = HedgePrimitive(source, delay=1)
    seen, error = await chunks_of(hedge, "x", WorkflowContext())
    assert (seen, type(error), clock.elapsed) == (["a", "b"], TimeoutError, 10)
    assert asyncio.current_task().cancelling() == 0
    sources = Sources([60.0, "slow"], ["a", "b", "c"])
    await chunks_of(HedgePrimitive(sources, delay=1), "x", WorkflowContext())
    assert [len(tasks) for tasks in sources.tasks] == [1, 1]


@pytest.mark.parametrize("ends", ["second wins", "cancelled", "abandoned"])
@virtual
async def test_a_stream_that_ignores_its_cancellation_is_read_no_further(clock, ends):
    """It is closed at its next chunk, whether it lost or its consumer left."""
    log = []

    async def stubborn(value):
        number = len(log)
        log.append("opened")
        try:
            if number == 1 and ends == "second wins":
                yield "quick"
            if ends == "abandoned":
                yield "first"
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                yield "more"
        finally:
            log.append("closed")

    stream = HedgePrimitive(stubborn, delay=1).stream("x", WorkflowContext())
    async with aclosing(stream) as chunks:
        if ends == "cancelled":
            with pytest.raises(TimeoutError, match=r"^$"):
                async with asyncio.timeout(2):
                    await anext(chunks)
        elif ends == "abandoned":
            assert await anext(chunks) == "first"
            with pytest.raises(TimeoutError, match=r"^$"):
                async with asyncio.timeout(2):
                    await anext(chunks)
        else:
            assert await anext(chunks) == "quick"
    assert log.count("opened") == log.count("closed")
    assert only_this_task()


@virtual
async def test_a_stream_is_not_read_ahead_of_its_consumer(clock):
    """The next chunk is made when it is asked for."""
    sources = Sources(["a", "b", "c"])
    stream = HedgePrimitive(sources, delay=1).stream("x", WorkflowContext())
    async with aclosing(stream) as chunks:
        for chunk, made in [("a", 2), ("b", 3), ("c", 4)]:
            assert await anext(chunks) == chunk
            await asyncio.sleep(5)
            assert len(sources.log) == made


@virtual
async def test_after_a_failure_before_the_first_chunk_the_next_starts_at_once(clock):
    """And a failure does not beat a first chunk that is still to come."""
    sources = Sources([1.0, Boom()], ["a"])
    hedge = HedgePrimitive(sources, delay=5)
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["a"], None)
    assert clock.elapsed == 1
    sources = Sources([9.0, "late"], [1.0, Boom()])
    hedge = HedgePrimitive(sources, delay=5)
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["late"], None)
    assert clock.elapsed == 10


@virtual
async def test_if_all_streams_fail_before_a_chunk_the_primarys_error_is_raised(clock):
    """With the note that `execute` leaves as well."""
    own = Boom("own")
    sources = Sources([2.0, own], [ValueError("other")])
    hedge = HedgePrimitive(sources, delay=1)
    seen, error = await chunks_of(hedge, "x", WorkflowContext())
    assert (seen, error) == ([], own)
    assert own.__notes__ == [
        "hedge: its hedges failed as well:\n  1. ValueError('other')"
    ]


@virtual
async def test_after_the_first_chunk_an_error_is_raised_as_it_is(clock):
    """No chunk is repeated, and there is no note on streams that lost."""
    late = Boom("late")
    sources = Sources([60.0, "slow"], ["a", 1.0, late])
    hedge = HedgePrimitive(sources, delay=1)
    seen, error = await chunks_of(hedge, "x", WorkflowContext())
    assert (seen, error) == (["a"], late)
    assert not hasattr(late, "__notes__")
    assert len(sources.tasks) == 2
    assert only_this_task()


@virtual
async def test_an_empty_stream_is_an_answer(clock):
    """It has succeeded, and nobody beats it."""
    sources = Sources([2.0], [60.0, "late"])
    hedge = HedgePrimitive(sources, delay=1)
    assert await chunks_of(hedge, "x", WorkflowContext()) == ([], None)
    assert clock.elapsed == 2
    assert only_this_task()


@virtual
async def test_an_abandoned_stream_is_closed(clock):
    """A consumer that stops early closes everything below, and waits for that."""
    sources = Sources([60.0, "slow"], ["a", "b"])
    stream = HedgePrimitive(sources, delay=1).stream("x", WorkflowContext())
    assert await anext(stream) == "a"
    await stream.aclose()
    assert sources.log[-1] == (1, "closed")
    assert only_this_task()


@virtual
async def test_an_error_of_the_consumer_is_not_a_failure_of_the_stream(clock):
    """What is thrown in at a chunk comes back out."""
    sources = Sources(["a", "b"])
    stream = HedgePrimitive(sources, delay=1).stream("x", WorkflowContext())
    await anext(stream)
    with pytest.raises(Boom, match="consumer"):
        await stream.athrow(Boom("consumer"))
    assert (len(sources.tasks), sources.log[-1]) == (1, (0, "closed"))
    assert only_this_task()


@pytest.mark.parametrize("at", [0.5, 2, 4])
@virtual
async def test_case_84_a_cancelled_consumer_leaves_nothing_running(clock, at):
    """Before the hedge, while both run, and after the first chunk."""
    sources = Sources([60.0, "slow"], [2.0, "a", 60.0, "b"])
    hedge = HedgePrimitive(sources, delay=1)
    task = asyncio.create_task(chunks_of(hedge, "x", WorkflowContext()))
    await asyncio.sleep(at)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    opened = [number for number, what in sources.log if what == "opened"]
    closed = [number for number, what in sources.log if what == "closed"]
    assert sorted(closed) == opened
    assert only_this_task()


@virtual
async def test_case_86_a_stream_that_is_not_eligible_is_executed_once(clock):
    """It is passed through in the caller's own task."""
    sources = Sources([60.0, "a", "b"])
    hedge = HedgePrimitive(sources, delay=1, hedge_if=lambda value: False)
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["a", "b"], None)
    assert sources.tasks == [{asyncio.current_task()}]
    charge = HedgePrimitive(step(idempotent=False)(sources), delay=1)
    assert await chunks_of(charge, "x", WorkflowContext()) == (["a", "b"], None)
    assert sources.tasks == [{asyncio.current_task()}] * 2


@virtual
async def test_case_86_a_stream_that_is_not_eligible_is_that_of_the_primary(clock):
    """Alternatives are for hedges."""
    hedge = HedgePrimitive(
        Sources(["a"]),
        delay=1,
        alternatives=[Sources(["other"])],
        hedge_if=lambda value: False,
    )
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["a"], None)


@virtual
async def test_the_latency_of_a_stream_is_that_of_its_first_chunk(clock):
    """The second stream is hedged after what the first has shown."""
    sources = Sources([2.0, "a", 60.0], [60.0, "slow"], [1.0, "b"])
    hedge = HedgePrimitive(sources, delay=Quantile(0.9, minimum_calls=1))
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["a"], None)
    assert hedge.stats.delay == 2
    began = clock.elapsed
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["b"], None)
    assert clock.elapsed - began == 3
    # The stream that was overtaken would have taken at least so long.
    assert hedge.stats.delay == 3


@virtual
async def test_limits_and_retries_stand_around_and_inside_of_hedged_streams(clock):
    """A limit outside ends both streams; a retry inside belongs to one of them."""
    sources = Sources([60.0, "a"])
    limited = TimeoutPrimitive(HedgePrimitive(sources, delay=1), timeout_seconds=5)
    seen, error = await chunks_of(limited, "x", WorkflowContext())
    assert (seen, type(error), clock.elapsed) == ([], TimeoutExceededError, 5)
    assert only_this_task()
    sources = Sources([Boom()], ["a"])
    inner = RetryPrimitive(sources, initial_delay=0)
    hedge = HedgePrimitive(inner, delay=1)
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["a"], None)
    assert hedge.stats.hedges == 0


class Countdown(WorkflowPrimitive):
    """A primitive whose stream is an iterator that cannot be closed."""

    def __init__(self):
        self.left = 2

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left

    async def execute(self, input_data, context):
        return 0

    def stream(self, input_data, context):
        return self


@virtual
async def test_a_stream_need_not_be_an_async_generator(clock):
    """An async iterator without `aclose` streams through."""
    hedge = HedgePrimitive(Countdown(), delay=1)
    assert await chunks_of(hedge, "x", WorkflowContext()) == ([1, 0], None)


@virtual
async def test_a_primitive_that_cannot_stream_yields_its_result(clock):
    """In one chunk, hedged like any first chunk."""

    async def slow(value):
        await asyncio.sleep(3)
        return value

    hedge = HedgePrimitive(slow, delay=1)
    assert await chunks_of(hedge, "x", WorkflowContext()) == (["x"], None)
    assert (hedge.stats.hedges, clock.elapsed) == (1, 3)


class Fresh:
    """A streaming step that raises a new error each time.

    One that it kept would lead through its traceback to the step itself.
    """

    __name__ = "fresh"

    def __init__(self, *scripts):
        self.scripts = scripts
        self.calls = 0

    async def __call__(self, value):
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        for chunk in script:
            if chunk == "boom":
                raise Boom
            await asyncio.sleep(60 if chunk == "slow" else 0)
            yield chunk


@pytest.mark.parametrize(
    "scripts",
    [[["a"]], [["slow"], ["a"]], [["slow"], ["a", "boom"]], [["boom"], ["boom"]]],
    ids=["well", "overtaken", "fails late", "all fail"],
)
@virtual
async def test_streams_leave_no_cyclic_garbage(clock, scripts):
    """After 50 with the collector off there is nothing to collect."""

    async def many(times):
        for _ in range(times):
            stream = HedgePrimitive(Fresh(*scripts), delay=1)
            await chunks_of(stream, "x", WorkflowContext())

    await many(2)
    await asyncio.sleep(0)
    with only_new_garbage():
        await many(50)
        await asyncio.sleep(0)
        assert gc.collect() == 0
