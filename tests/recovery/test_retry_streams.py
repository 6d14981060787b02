"""Streams through a retry: begun again until the first chunk, never after it."""

from __future__ import annotations

import asyncio

import pytest

from tests.recovery.doubles import CANCELLED, Boom, Stream, chunks_of, virtual
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
    attempts_of,
)


def quick(primitive, **options):
    """Return a retry without jitter, so that delays are exact."""
    return RetryPrimitive(primitive, jitter="none", **options)


@virtual
async def test_case_23_a_stream_is_retried_before_its_first_chunk(clock, events):
    """Nothing was passed on, so nobody notices but the clock."""
    tokens = Stream([Boom()], [Boom()], ["t1", "t2"])
    assert await chunks_of(quick(tokens), "x", WorkflowContext()) == (
        ["t1", "t2"],
        None,
    )
    assert (tokens.calls, clock.elapsed) == (3, 1.5)
    assert events.names.count("retry.scheduled") == 2


@virtual
async def test_case_23_no_chunk_is_ever_repeated(clock):
    """After the first chunk the error propagates."""
    error = Boom()
    tokens = Stream(["t1", "t2", error])
    assert await chunks_of(quick(tokens), "x", WorkflowContext()) == (
        ["t1", "t2"],
        error,
    )
    assert tokens.calls == 1


@virtual
async def test_an_exhausted_stream_raises_the_last_error_with_its_history(clock):
    """The same error as without streaming."""
    errors = [Boom(n) for n in range(4)]
    tokens = Stream(*([error] for error in errors))
    seen, error = await chunks_of(quick(tokens), "x", WorkflowContext())
    assert (seen, error) == ([], errors[3])
    assert [attempt.error for attempt in attempts_of(error)] == errors


@virtual
async def test_a_stream_without_chunks_is_a_success(clock):
    """An empty stream is not repeated."""
    tokens = Stream([])
    assert await chunks_of(quick(tokens), "x", WorkflowContext()) == ([], None)
    assert tokens.calls == 1


@virtual
async def test_an_attempt_that_hangs_before_its_first_chunk_is_repeated(clock):
    """attempt_timeout bounds the wait for a stream that does not begin."""
    tokens = Stream([60.0, "t1"], ["t1"])
    retried = quick(tokens, attempt_timeout=2)
    assert await chunks_of(retried, "x", WorkflowContext()) == (["t1"], None)
    assert clock.elapsed == 2.5


@virtual
async def test_max_elapsed_ends_a_stream_that_hangs_later(clock):
    """A hang after the first chunk is an error, not a repetition."""
    tokens = Stream(["t1", 60.0])
    seen, error = await chunks_of(quick(tokens, max_elapsed=3), "x", WorkflowContext())
    assert (seen, type(error), clock.elapsed) == (["t1"], TimeoutExceededError, 3)


@virtual
async def test_an_abandoned_stream_is_closed_and_not_retried(clock):
    """A consumer that stops early closes everything below."""
    log = []

    async def source(value):
        log.append("opened")
        try:
            yield "a"
            yield "b"
        finally:
            log.append("closed")

    stream = quick(source).stream("x", WorkflowContext())
    assert await anext(stream) == "a"
    await stream.aclose()
    assert log == ["opened", "closed"]


@virtual
async def test_a_cancelled_stream_is_not_retried(clock):
    """Cancellation before the first chunk is no failure."""
    tokens = Stream([60.0, "t1"])
    task = asyncio.create_task(chunks_of(quick(tokens), "x", WorkflowContext()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert tokens.calls == 1


@virtual
async def test_an_error_of_the_consumer_is_not_a_failure_of_the_stream(clock):
    """What is thrown in at a chunk comes back out."""
    tokens = Stream(["t1", "t2"])
    stream = quick(tokens).stream("x", WorkflowContext())
    await anext(stream)
    with pytest.raises(Boom, match="consumer"):
        await stream.athrow(Boom("consumer"))
    assert tokens.calls == 1


@virtual
async def test_a_chain_streams_through_its_last_retry(clock):
    """The steps before run once; the last one streams and is retried."""
    calls = []
    chain = step(calls.append) >> quick(Stream([Boom()], ["t1"]))
    assert await chunks_of(chain, "x", WorkflowContext()) == (["t1"], None)
    assert calls == ["x"]


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


@pytest.mark.parametrize(
    "wrap",
    [
        RetryPrimitive,
        lambda inner: RetryPrimitive(inner, attempt_timeout=5),
        lambda inner: FallbackPrimitive(inner, [0]),
        lambda inner: TimeoutPrimitive(inner, timeout_seconds=5),
        lambda inner: TimeoutPrimitive(
            Stream([60.0]), timeout_seconds=5, fallback=inner
        ),
    ],
    ids=["retry", "attempt", "fallback", "timeout", "timeout's fallback"],
)
@virtual
async def test_a_stream_need_not_be_an_async_generator(clock, wrap):
    """An async iterator without `aclose` streams through every wrapper."""
    assert await chunks_of(wrap(Countdown()), "x", WorkflowContext()) == ([1, 0], None)
