"""What retries, fallbacks and timeouts count, whether somebody listens or not."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from dataclasses import FrozenInstanceError, fields

import pytest

from tests.recovery.doubles import Boom, Events, Script, Stream, chunks_of, virtual
from tta_primitives import WorkflowContext, recovery
from tta_primitives.door import listening
from tta_primitives.errors import OpenWrapperError, TimeoutExceededError
from tta_primitives.recovery import (
    FallbackPrimitive,
    FallbackStats,
    RetryBudget,
    RetryPrimitive,
    RetryStats,
    TimeoutPrimitive,
    TimeoutStats,
)


@pytest.fixture(params=[False, True], ids=["unheard", "heard"])
def heard(request):
    """Run the test twice: what is counted does not depend on who listens."""
    observers = listening(observers=(Events(),)) if request.param else nullcontext()
    with observers:
        yield


async def run(primitive, times=1):
    """Execute so often, whatever becomes of it."""
    for _ in range(times):
        with suppress(Exception):
            await primitive.execute("x", WorkflowContext())


async def stubborn(value):
    """Answer although it was cancelled."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return value


async def spiteful(value):
    """Fail otherwise when it is cancelled."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as told:
        raise Boom from told


def with_context(script):
    """Return a step that looks at its context, so that it needs a view of its own."""

    async def step(value, context):
        assert context.path
        return await script(value)

    return step


def retry_stats(**counts):
    """Return the stats of a retry, 0 where nothing is said."""
    names = ("calls", "retries", "recovered", "exhausted", "budget_exhausted")
    return RetryStats(**{name: counts.get(name, 0) for name in (*names, "gave_up")})


def timeout_stats(**counts):
    """Return the stats of a timeout, 0 where nothing is said."""
    names = ("calls", "expired", "ignored", "rescued")
    return TimeoutStats(**{name: counts.get(name, 0) for name in names})


RETRIES = {
    "succeeded at once": (["ok"], {}, {"calls": 1}),
    "recovered": (
        [Boom(), Boom(), "ok"],
        {},
        {"calls": 1, "retries": 2, "recovered": 1},
    ),
    "exhausted": (
        [Boom()],
        {"max_retries": 2},
        {"calls": 1, "retries": 2, "exhausted": 1},
    ),
    "not to be retried": ([TypeError()], {}, {"calls": 1, "gave_up": 1}),
    "no budget": (
        [Boom()],
        {"budget": RetryBudget(min_retries=0, ratio=0.01)},
        {"calls": 1, "budget_exhausted": 1},
    ),
    "no time": (
        [Boom()],
        {"max_elapsed": 1, "initial_delay": 5, "jitter": "none"},
        {"calls": 1, "gave_up": 1},
    ),
    "refused at last": (
        ["bad"],
        {"retry_if_result": bool, "max_retries": 1},
        {"calls": 1, "retries": 1, "exhausted": 1},
    ),
    "returned though refused": (
        ["bad"],
        {"retry_if_result": bool, "max_retries": 1, "on_exhausted": "return"},
        {"calls": 1, "retries": 1, "exhausted": 1},
    ),
    "accepted after a refusal": (
        ["bad", ""],
        {"retry_if_result": bool},
        {"calls": 1, "retries": 1, "recovered": 1},
    ),
}


@pytest.mark.parametrize("wrap", [lambda script: script, with_context], ids=["", "ctx"])
@pytest.mark.parametrize("name", RETRIES)
@virtual
async def test_a_retry_counts_how_its_executions_end(clock, heard, name, wrap):
    """Each execution is counted once, each attempt after the first as a retry."""
    outcomes, options, counts = RETRIES[name]
    retry = RetryPrimitive(wrap(Script(*outcomes)), **options)
    await run(retry)
    assert retry.stats == retry_stats(**counts)


@virtual
async def test_a_cancelled_retry_is_a_call_and_nothing_else(clock, heard):
    """In an attempt, or before one that therefore never came."""
    hanging = RetryPrimitive(Script("ok", takes=60))
    pausing = RetryPrimitive(Script(Boom()), initial_delay=20, jitter="none")
    for retry in (hanging, pausing):
        task = asyncio.create_task(run(retry))
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.wait([task])
    assert hanging.stats == pausing.stats == retry_stats(calls=1)


@virtual
async def test_what_a_step_made_of_a_cancellation_is_no_failure(clock, heard):
    """The task was told to end, whatever error came of it."""
    retry = RetryPrimitive(spiteful)
    task = asyncio.create_task(run(retry))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert retry.stats == retry_stats(calls=1)


@virtual
async def test_a_retry_counts_streams(clock, heard):
    """Like executions."""
    retry = RetryPrimitive(Stream([Boom()], ["a", "b"], [TypeError()]))
    assert await chunks_of(retry, "x", WorkflowContext()) == (["a", "b"], None)
    await chunks_of(retry, "x", WorkflowContext())
    counted = retry_stats(calls=2, retries=1, recovered=1, gave_up=1)
    assert retry.stats == counted


def test_ratios_of_a_retry():
    """Failures are added up; retries are a share of the calls."""
    stats = retry_stats(calls=4, retries=6, exhausted=1, budget_exhausted=1, gave_up=1)
    assert (stats.failures, stats.retry_ratio) == (3, 1.5)
    assert retry_stats().retry_ratio == 0.0


@virtual
async def test_a_fallback_counts_who_answered(clock, heard):
    """The primary, one of the fallbacks, or nobody."""
    primary = Script("ok", Boom(), Boom(), Boom(), TypeError())
    first, second = Script("1", Boom()), Script("2", Boom())
    fallback = FallbackPrimitive(primary, [first, second])
    await run(fallback, 5)
    assert fallback.stats == FallbackStats(
        calls=5, tried=5, answers=(1, 1), exhausted=1
    )
    assert fallback.stats.rescued == 2


@virtual
async def test_a_fallback_that_refuses_results_counts_alike(clock, heard):
    """If no other answers, the refused result of the primary is no rescue."""
    fallback = FallbackPrimitive(
        Script("", "", "ok"),
        [with_context(Script("", "1"))],
        fallback_if_result=lambda result: not result,
    )
    await run(fallback, 3)
    assert fallback.stats == FallbackStats(calls=3, tried=2, answers=(1,), exhausted=0)


@virtual
async def test_a_fallback_counts_streams(clock, heard):
    """Like executions."""
    fallback = FallbackPrimitive(Stream([Boom()], ["a"]), [Stream(["b"])])
    for _ in range(2):
        await chunks_of(fallback, "x", WorkflowContext())
    assert fallback.stats == FallbackStats(calls=2, tried=1, answers=(1,), exhausted=0)


LIMITED = {
    "at once": (Script("ok"), None, {}),
    "in time": (Script("ok", takes=2), None, {}),
    "failed": (Script(Boom()), None, {}),
    "too slow": (Script("ok", takes=9), None, {"expired": 1}),
    "too slow for the deadline": (Script("ok", takes=9), 1, {"expired": 1}),
    "too late to start": (Script("ok"), -1, {"expired": 1}),
    "answered all the same": (stubborn, None, {"ignored": 1}),
    "failed otherwise": (spiteful, None, {"ignored": 1}),
}


@pytest.mark.parametrize("name", LIMITED)
@virtual
async def test_a_timeout_counts_what_was_cut_short(clock, heard, name):
    """Whether the limit is its own or an earlier deadline."""
    step, deadline, counts = LIMITED[name]
    timeout = TimeoutPrimitive(step, timeout_seconds=5)
    with suppress(TimeoutExceededError, Boom):
        await timeout.execute("x", WorkflowContext(deadline=deadline))
    assert timeout.stats == timeout_stats(calls=1, **counts)


@virtual
async def test_a_timeout_counts_what_its_fallback_answered(clock, heard):
    """Both that the time was up, and that there was an answer all the same."""
    slow = Script("ok", takes=9)
    timeout = TimeoutPrimitive(slow, timeout_seconds=5, fallback="late")
    await run(timeout, 2)
    failing = TimeoutPrimitive(slow, timeout_seconds=5, fallback=Script(Boom()))
    await run(failing)
    assert timeout.stats == timeout_stats(calls=2, expired=2, rescued=2)
    assert failing.stats == timeout_stats(calls=1, expired=1)


@virtual
async def test_a_timeout_counts_streams(clock, heard):
    """Like executions."""
    timeout = TimeoutPrimitive(Stream(["a"], [9.0, "a"]), timeout_seconds=5)
    other = TimeoutPrimitive(Stream([9.0]), timeout_seconds=5, fallback="late")
    for _ in range(2):
        await chunks_of(timeout, "x", WorkflowContext())
    await chunks_of(other, "x", WorkflowContext())
    assert timeout.stats == timeout_stats(calls=2, expired=1)
    assert other.stats == timeout_stats(calls=1, expired=1, rescued=1)


@virtual
async def test_each_limit_counts_its_own(clock, heard):
    """The limit further inside is not counted by one around it, nor an attempt's."""
    inner = TimeoutPrimitive(Script("ok", takes=9), timeout_seconds=1)
    outer = TimeoutPrimitive(
        RetryPrimitive(inner, attempt_timeout=3, max_retries=1), timeout_seconds=60
    )
    await run(outer)
    assert inner.stats == timeout_stats(calls=2, expired=2)
    assert outer.stats == timeout_stats(calls=1)


@virtual
async def test_a_cancelled_timeout_is_a_call_and_nothing_else(clock, heard):
    """Whoever cancelled it was not the limit."""
    timeout = TimeoutPrimitive(Script("ok", takes=9), timeout_seconds=5)
    task = asyncio.create_task(run(timeout))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert timeout.stats == timeout_stats(calls=1)


OPEN = {
    "retry": lambda: RetryPrimitive(initial_delay=0),
    "fallback": lambda: FallbackPrimitive(fallbacks=["none"]),
    "timeout": lambda: TimeoutPrimitive(timeout_seconds=5),
}


@pytest.mark.parametrize("name", OPEN)
def test_an_open_wrapper_has_no_stats(name):
    """It has executed nothing."""
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        _ = OPEN[name]().stats


@pytest.mark.parametrize("name", OPEN)
@virtual
async def test_each_binding_counts_by_itself(clock, name):
    """Two chains that were built with one open wrapper share nothing."""
    unbound = OPEN[name]()
    first, second = unbound.bind(Script("ok")), unbound.bind(Script("ok"))
    await run(first, 2)
    assert (first.stats.calls, second.stats.calls) == (2, 0)


@pytest.mark.parametrize("name", OPEN)
@virtual
async def test_a_renamed_twin_shares_the_counts(clock, name):
    """It is the same wrapper by another name, as it is for caches and breakers."""
    one = OPEN[name]().bind(Script("ok"))
    other = one.named("other")
    await run(one, 2)
    await run(other)
    assert one.stats == other.stats
    assert one.stats.calls == 3


@pytest.mark.parametrize("name", OPEN)
@virtual
async def test_stats_are_a_snapshot(clock, name):
    """What was read does not change, and cannot be changed."""
    one = OPEN[name]().bind(Script("ok"))
    before = one.stats
    await run(one)
    assert (before.calls, one.stats.calls) == (0, 1)
    assert isinstance(one.stats.calls, int)
    with pytest.raises(FrozenInstanceError, match="calls"):
        before.calls = 5


@pytest.mark.parametrize("name", [n for n in recovery.__all__ if n.endswith("Stats")])
def test_the_stats_of_no_primitive_can_be_changed(name):
    """Nobody mends a count that he was only shown."""
    kind = getattr(recovery, name)
    first, *others = (field.name for field in fields(kind))
    stats = kind(**dict.fromkeys([first, *others], 0))
    with pytest.raises(FrozenInstanceError, match=first):
        setattr(stats, first, 5)
