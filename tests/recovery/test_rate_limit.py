"""Rate limit: when calls start, in which order, and what those get that may not."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from contextlib import suppress
from datetime import timedelta

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.doubles import (
    CANCELLED,
    Boom,
    Rejected,
    Response,
    Script,
    Stream,
    chunks_of,
    exactly,
    virtual,
)
from tests.recovery.rate_tools import (
    Starts,
    by_value,
    call,
    call_all,
    every_algorithm,
    fails_late,
    most_in,
    tenant,
)
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import (
    CircuitOpenError,
    OpenWrapperError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.recovery import (
    FallbackPrimitive,
    RateLimitPrimitive,
    RateLimitStats,
    RetryPrimitive,
    TimeoutPrimitive,
)


async def nothing(value):
    """Do nothing."""


def limited(starts, rate=10, **options):
    """Return a rate limit around a step."""
    return RateLimitPrimitive(starts, rate=rate, **options)


async def rejection_of(limit, value="x", **context):
    """Return the error of a call that must be rejected."""
    with pytest.raises(RateLimitExceededError, match="could start in") as caught:
        await limit.execute(value, WorkflowContext(**context))
    return caught.value


# --- when calls start -----------------------------------------------------------------


@virtual
async def test_case_79_a_token_bucket_lets_a_burst_start_and_then_the_rate(clock):
    """10 per second: 10 at once, then one in each tenth of a second, exactly."""
    starts = Starts()
    await call_all(limited(starts), range(15))
    assert starts.times == [0] * 10 + [0.1, 0.2, 0.3, 0.4, 0.5]
    assert starts.order == list(range(15))


@virtual
async def test_case_79_a_leaky_bucket_spaces_starts_evenly(clock):
    """Nothing starts in bursts, whatever comes at once."""
    starts = Starts()
    await call_all(limited(starts, algorithm="leaky_bucket"), range(5))
    assert starts.times == [0, 0.1, 0.2, 0.3, 0.4]


@virtual
async def test_case_79_a_sliding_window_holds_for_every_period(clock):
    """Those that came late in one period leave room late in the next."""
    starts = Starts()
    limit = limited(starts, 3, algorithm="sliding_window")
    await call_all(limit, "a")
    await asyncio.sleep(0.9)
    await call_all(limit, "bcdefg")
    assert starts.times == [0, 0.9, 0.9, 1.0, 1.9, 1.9, 2.0]


@every_algorithm
@virtual
async def test_case_79_no_second_sees_more_than_rate_and_burst(clock, algorithm):
    """However calls come, no second wherever it begins has more starts."""
    starts = Starts()
    limit = limited(starts, algorithm=algorithm)
    calls = []
    for pause in [0.05, 0.3, 1.7, 0, 0.01, 2.5, 0.4] * 4:
        await asyncio.sleep(pause)
        calls += [call(limit, value) for value in range(7)]
    await asyncio.gather(*calls)
    most = {"token_bucket": 20, "leaky_bucket": 10, "sliding_window": 10}
    assert len(starts.seen) == 28 * 7
    assert most_in(starts.times, 1) <= most[algorithm]


@pytest.mark.parametrize(
    ("algorithm", "count", "expected"),
    [
        ("token_bucket", 20_000, 19_997 / 3),
        ("leaky_bucket", 20_000, 19_999 / 3),
        ("sliding_window", 100_000, 33_333),
    ],
)
@virtual
async def test_starts_do_not_drift(clock, algorithm, count, expected):
    """After so many starts at 3 per second the last is where arithmetic puts it."""
    limit = RateLimitPrimitive(nothing, rate=3, algorithm=algorithm)
    context = WorkflowContext()
    for value in range(count):
        await limit.execute(value, context)
    now = asyncio.get_running_loop().time()
    assert now == pytest.approx(expected, abs=1e-9, rel=0)


@virtual
async def test_a_period_that_is_no_whole_nanosecond_does_not_drift(clock):
    """A third of a second, ten thousand times: timers are rounded, starts are not."""
    limit = limited(nothing, 1, period=1 / 3, algorithm="sliding_window")
    context = WorkflowContext()
    for value in range(10_001):
        await limit.execute(value, context)
    now = asyncio.get_running_loop().time()
    assert now == pytest.approx(10_000 / 3, abs=1e-9, rel=0)


@virtual
async def test_a_caller_that_keeps_the_pace_by_itself_never_waits(clock):
    """Ten sleeps of 0.1 s are a hair more or less than a second; that is no wait."""
    starts = Starts()
    limit = limited(starts, algorithm="leaky_bucket", max_wait=0)
    for _ in range(1000):
        await limit.execute("x", WorkflowContext())
        await asyncio.sleep(0.1)
    assert limit.stats.admitted == 1000


@virtual
async def test_a_bucket_fills_up_to_its_burst_and_no_further(clock):
    """A pause of an hour is worth one burst."""
    starts = Starts()
    limit = limited(starts, 2, period=timedelta(seconds=10), burst=3)
    await call_all(limit, range(3))
    await asyncio.sleep(3600)
    await call_all(limit, range(5))
    assert starts.times == [0] * 3 + [3600] * 3 + [3605, 3610]


@virtual
async def test_a_rate_below_one_still_admits_a_call_at_a_time(clock):
    """One call every 4 seconds; the bucket holds at least one unit."""
    starts = Starts()
    await call_all(limited(starts, 0.25), range(3))
    assert starts.times == [0, 4, 8]


@virtual
async def test_a_bucket_fills_while_nobody_waits(clock):
    """What comes back in a pause counts, in fractions as well."""
    starts = Starts()
    limit = limited(starts, 1, burst=2)
    await call_all(limit, "ab")
    await asyncio.sleep(1.5)
    await call_all(limit, "cd")
    assert starts.times == [0, 0, 1.5, 2]


# --- cost -----------------------------------------------------------------------------


@virtual
async def test_case_79_waiting_is_in_order_also_for_high_costs(clock):
    """What the first one needs is saved for it; small ones behind it do not overtake.

    aiolimiter serves the big one 61st (research: M2).
    """
    starts = Starts()
    limit = limited(starts, cost=by_value)
    await call_all(limit, [10, 10, *[1] * 20])
    assert starts.order == [10, 10, *[1] * 20]
    assert starts.times[:4] == [0, 1.0, 1.1, 1.2]


@virtual
async def test_case_79_order_holds_for_costs_in_a_window(clock):
    """A start of 3 units waits for 3 to leave, and those behind wait for it."""
    starts = Starts()
    limit = limited(starts, 4, cost=by_value, algorithm="sliding_window")
    await call_all(limit, [2, 1, 3, 1, 2])
    assert starts.seen == [(2, 0), (1, 0), (3, 1), (1, 1), (2, 2)]


@virtual
async def test_case_79_a_leaky_bucket_pauses_after_a_call_for_what_it_cost(clock):
    """The start after one of 5 units is 5 units later."""
    starts = Starts()
    limit = limited(starts, cost=by_value, algorithm="leaky_bucket")
    await call_all(limit, [1, 5, 1])
    assert starts.times == [0, 0.1, 0.6]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cost": 11}, "cost=11 must be at most burst=10: there are never more units"),
        ({"cost": 4, "burst": 3}, "cost=4 must be at most burst=3"),
        (
            {"cost": 4, "burst": 3, "algorithm": "leaky_bucket"},
            "cost=4 must be at most burst=3",
        ),
        (
            {"cost": 11, "algorithm": "sliding_window"},
            "cost=11 must be at most rate=10",
        ),
    ],
)
def test_case_79_a_cost_that_could_never_start_is_refused(options, text):
    """Waiting for it would never end; the message says what to change."""
    with pytest.raises(ValueError, match=text):
        limited(Starts(), **options)


@virtual
async def test_case_79_a_cost_by_input_that_could_never_start_is_refused(clock):
    """The call fails at once and takes nothing."""
    starts = Starts()
    limit = limited(starts, cost=by_value)
    with pytest.raises(ValueError, match=r"cost\(input, context\)=11 must be at most"):
        await limit.execute(11, WorkflowContext())
    assert (starts.seen, limit.stats.available) == ([], 10)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, ValueError, r"cost\(input, context\)=0 must be a positive number"),
        (-1, ValueError, "=-1 must be a positive number"),
        (float("nan"), ValueError, "=nan must be a positive number"),
        ("1", TypeError, "='1' must be a positive number, not str"),
        (True, TypeError, "=True must be a positive number, not bool"),
        (None, TypeError, "=None must be a positive number, not NoneType"),
    ],
)
@virtual
async def test_what_a_cost_function_returns_is_checked(clock, value, kind, text):
    """It must be a positive number."""
    with pytest.raises(kind, match=text):
        await limited(Starts(), cost=by_value).execute(value, WorkflowContext())


@virtual
async def test_costs_may_be_fractions(clock):
    """Ten times a tenth is one unit, whatever floats make of it."""
    starts = Starts()
    limit = limited(starts, 1, cost=0.1)
    await call_all(limit, range(12))
    assert starts.times == [0] * 10 + [0.1, 0.2]


@virtual
async def test_what_cost_raises_is_raised(clock):
    """A broken function is seen, and nothing is taken."""
    limit = limited(Starts(), cost=lambda value, context: value.tokens)
    with pytest.raises(AttributeError, match="no attribute 'tokens'"):
        await limit.execute("x", WorkflowContext())
    assert limit.stats.available == 10


@virtual
async def test_case_79_a_newcomer_does_not_take_what_is_due_to_the_first(clock):
    """It comes in the very instant, before the timer of the limit has fired."""
    starts = Starts()
    limit = limited(starts, 1)
    late = limit.execute("late", WorkflowContext())
    asyncio.get_running_loop().call_at(1, late.send, None)
    calls = [call(limit, value) for value in "ab"]
    await asyncio.gather(*calls)
    assert starts.seen == [("a", 0), ("b", 1)]
    assert limit.stats.waiting == 1
    late.close()


# --- how long calls wait --------------------------------------------------------------


@virtual
async def test_case_80_a_wait_that_would_be_too_long_is_rejected_at_once(clock, events):
    """With 3 s of queue and max_wait=1 the error comes in no time, and says 3 s."""
    starts = Starts()
    limit = limited(starts, 1, burst=3, cost=by_value, max_wait=1)
    calls = [call(limit, value) for value in (3, 1)]
    await asyncio.sleep(0)
    coroutine = limit.execute(2, WorkflowContext())
    with pytest.raises(RateLimitExceededError, match="could start in 3 s") as caught:
        # Not even one turn of the loop is needed.
        coroutine.send(None)
    assert caught.value.retry_after == 3
    assert clock.elapsed == 0
    assert events.detail("rate_limit.rejected") == [{"retry_after": 3}]
    await asyncio.gather(*calls)
    assert starts.seen == [(3, 0), (1, 1)]


@every_algorithm
@virtual
async def test_case_80_max_wait_zero_rejects_whoever_would_wait(clock, algorithm):
    """The next one may start exactly when the error said."""
    starts = Starts()
    limit = limited(starts, 3, algorithm=algorithm, max_wait=0)
    with suppress(RateLimitExceededError):
        while True:
            await limit.execute("x", WorkflowContext())
    count = len(starts.seen)
    error = await rejection_of(limit)
    await asyncio.sleep(error.retry_after - 0.001)
    assert (await rejection_of(limit)).retry_after == pytest.approx(0.001)
    await asyncio.sleep(0.001)
    assert await limit.execute("again", WorkflowContext()) == "again"
    assert len(starts.seen) == count + 1


@virtual
async def test_case_80_a_wait_of_exactly_max_wait_is_allowed(clock):
    """The limit is on what is longer."""
    starts = Starts()
    limit = limited(starts, 1, max_wait=timedelta(seconds=2))
    results = await call_all(limit, range(4))
    assert results[:3] == [0, 1, 2]
    assert isinstance(results[3], RateLimitExceededError)
    assert (results[3].retry_after, starts.times) == (3, [0, 1, 2])


@virtual
async def test_case_80_a_rejection_takes_no_place(clock):
    """Those that come later do not wait for those that were rejected."""
    limit = limited(Starts(), 1, max_wait=1)
    results = await call_all(limit, range(50))
    errors = [r for r in results if isinstance(r, RateLimitExceededError)]
    assert (len(errors), {error.retry_after for error in errors}) == (48, {2})


@virtual
async def test_case_80_the_wait_is_known_behind_a_queue_of_a_window(clock):
    """Starts that are still to come leave the window as well, one period later."""
    limit = limited(Starts(), 4, cost=by_value, algorithm="sliding_window")
    calls = [call(limit, cost) for cost in (4, 1, 3)]
    await asyncio.sleep(0)
    assert (await rejection_of(limit, 2, deadline=0.25)).retry_after == 2
    calls.append(call(limit, 4))
    await asyncio.sleep(0)
    assert (await rejection_of(limit, 1, deadline=0.25)).retry_after == 3
    calls[2].cancel()
    # What was the third is now second, and both fit into the next period.
    assert (await rejection_of(limit, 1, deadline=0.25)).retry_after == 3
    calls[1].cancel()
    assert (await rejection_of(limit, 1, deadline=0.25)).retry_after == 2
    await asyncio.gather(*calls, return_exceptions=True)


@virtual
async def test_rejections_are_new_errors_that_do_not_grow(clock):
    """Each has its own short traceback."""
    limit = limited(Starts(), 1, max_wait=0)
    await limit.execute("x", WorkflowContext())
    errors = [await rejection_of(limit) for _ in range(100)]
    assert len(set(map(id, errors))) == 100
    depths = set()
    for error in errors:
        depth, trace = 0, error.__traceback__
        while trace is not None:
            depth, trace = depth + 1, trace.tb_next
        depths.add(depth)
    assert len(depths) == 1


@virtual
async def test_a_rejection_says_who_when_and_why(clock):
    """The text names the place, the wait, the rate and what was too short."""
    limit = limited(Starts(), 1, period=60, max_wait=0)
    await limit.execute("x", WorkflowContext())
    with pytest.raises(
        RateLimitExceededError,
        match=exactly(
            RateLimitExceededError(
                "rate_limit/llm could start in 60 s at the earliest: 1 per 60 s, "
                "max_wait=0 s"
            )
        ),
    ):
        await limit.execute("x", WorkflowContext())


@virtual
async def test_a_deadline_that_the_wait_would_miss_rejects_at_once(clock):
    """Nobody waits for what will not happen; the limit's owner would be in vain."""
    starts = Starts()
    limit = limited(starts, 1)
    await call_all(limit, "a")
    error = await rejection_of(limit, deadline=0.5)
    assert (error.retry_after, clock.elapsed) == (1, 0)
    assert await limit.execute("b", WorkflowContext(deadline=1.001)) == "b"
    assert starts.times == [0, 1]


@virtual
async def test_a_start_at_the_deadline_is_too_late(clock):
    """There would be no time left for the call itself."""
    limit = limited(Starts(), 1)
    await call_all(limit, "a")
    assert (await rejection_of(limit, deadline=1)).retry_after == 1


@virtual
async def test_a_timeout_around_it_is_a_deadline(clock):
    """The error is a rejection, which says that nothing was executed, not a timeout."""
    limit = limited(Starts(), 1)
    bounded = TimeoutPrimitive(limit, timeout_seconds=2)
    await call_all(bounded, "ab")
    assert clock.elapsed == 1
    await bounded.execute("c", WorkflowContext())
    results = await call_all(bounded, "def")
    assert results[:1] == ["d"]
    assert [type(r) for r in results[1:]] == [RateLimitExceededError] * 2
    assert [r.retry_after for r in results[1:]] == [2, 2]


@virtual
async def test_the_deadline_and_max_wait_whichever_comes_first(clock):
    """Both are looked at."""
    limit = limited(Starts(), 1, max_wait=3)
    await call_all(limit, "a")
    call(limit, "b")
    call(limit, "c")
    await asyncio.sleep(0)
    assert (await rejection_of(limit, deadline=2.5)).retry_after == 3
    queued = call(limit, "d", deadline=100)
    await asyncio.sleep(0)
    assert (await rejection_of(limit, deadline=100)).retry_after == 4
    assert await queued == "d"


@virtual
async def test_a_deadline_that_has_passed_does_not_matter_where_nobody_waits(clock):
    """Whoever has set it sees to it; a limit that is free has no say."""
    limit = limited(Starts())
    await asyncio.sleep(5)
    assert await limit.execute("x", WorkflowContext(deadline=4)) == "x"


@virtual
async def test_a_leaky_bucket_that_is_full_rejects(clock):
    """Its burst is how many units may be in it, the one going out included."""
    starts = Starts()
    limit = limited(starts, 1, algorithm="leaky_bucket", burst=3)
    results = await call_all(limit, range(5))
    assert results[:3] == [0, 1, 2]
    assert [r.retry_after for r in results[3:]] == [3, 3]
    assert starts.times == [0, 1, 2]
    await asyncio.sleep(0.5)
    results = await call_all(limit, range(5))
    assert [isinstance(r, int) for r in results] == [True, True, False, False, False]


@virtual
async def test_waiting_has_one_timer_and_no_polling(clock):
    """For 100 who wait, a timer is set each time that there is another first one."""
    limit = limited(Starts(), 1)
    await call_all(limit, range(101))
    kinds = [wait.kind for wait in clock.sleeps]
    assert (len(kinds), set(kinds)) == (100, {"timer"})
    assert not any(wait.cancelled for wait in clock.sleeps)


# --- cancellation ---------------------------------------------------------------------


@every_algorithm
@virtual
async def test_case_81_a_cancelled_waiter_takes_nothing(clock, algorithm):
    """Those behind it start as if it had never come."""
    starts = Starts()
    limit = limited(starts, 1, algorithm=algorithm)
    calls = [call(limit, value) for value in "abcd"]
    await asyncio.sleep(0.5)
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen == [("a", 0), ("c", 1), ("d", 2)]
    assert isinstance(results[1], asyncio.CancelledError)
    assert limit.stats.abandoned == 1


@every_algorithm
@virtual
async def test_case_81_a_cancelled_big_one_lets_small_ones_move_up(clock, algorithm):
    """What was saved for it goes to those behind it, at that very instant."""
    starts = Starts()
    limit = limited(starts, 4, cost=by_value, algorithm=algorithm)
    calls = [call(limit, value) for value in [2, 4, 1, 1]]
    await asyncio.sleep(0)
    if algorithm == "leaky_bucket":
        await asyncio.sleep(0.5)
        assert starts.times == [0, 0.5]
        return
    assert starts.order == [2]
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen == [(2, 0), (1, 0), (1, 0)]


@pytest.mark.parametrize("position", range(3))
@every_algorithm
@virtual
async def test_case_81_a_place_in_the_queue_is_free_at_once(clock, algorithm, position):
    """A newcomer in the same tick already counts without the one that was cancelled."""
    limit = limited(Starts(), 1, algorithm=algorithm, max_wait=3)
    calls = [call(limit, value) for value in range(4)]
    await asyncio.sleep(0)
    assert (await rejection_of(limit)).retry_after == 4
    calls[1 + position].cancel()
    late = call(limit, "late")
    results = await asyncio.gather(*calls, late, return_exceptions=True)
    assert (results[-1], clock.elapsed) == ("late", 3)


@every_algorithm
@virtual
async def test_case_81_woken_and_cancelled_in_one_tick_leaks_nothing(clock, algorithm):
    """A start that came when the caller was going already is given to the next."""
    starts = Starts()
    limit = limited(starts, 1, algorithm=algorithm)
    calls = [call(limit, value) for value in "abc"]
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    # After the timer of the limit, before the task that it wakes.
    loop.call_at(1, calls[1].cancel)
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen == [("a", 0), ("c", 1)]
    assert (limit.stats.admitted, limit.stats.abandoned) == (2, 1)
    assert limit.stats.waited_seconds == 1


@virtual
async def test_case_81_a_thousand_cancelled_waiters_leave_nothing(clock):
    """The next one waits as if nobody had ever waited."""
    limit = limited(Starts(), 1)
    calls = [call(limit, value) for value in range(1000)]
    await asyncio.sleep(0.25)
    for one in calls:
        one.cancel()
    await asyncio.wait(calls)
    assert limit.stats.waiting == 0
    await limit.execute("x", WorkflowContext())
    assert clock.elapsed == 1
    assert limit._lane.queued == 0


@virtual
async def test_a_call_that_has_started_is_not_given_back(clock):
    """Whatever becomes of it, it may have reached the server."""
    limit = limited(Script("x", takes=60), 1)
    task = call(limit)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert limit.stats.available == 0


@virtual
async def test_a_waiter_whose_coroutine_is_closed_leaves(clock):
    """Also without a task, the place is free again."""
    limit = limited(Starts(), 1)
    await limit.execute("x", WorkflowContext())
    coroutine = limit.execute("y", WorkflowContext())
    coroutine.send(None)
    assert limit.stats.waiting == 1
    coroutine.close()
    assert (limit.stats.waiting, limit.stats.abandoned) == (0, 1)


# --- keys -----------------------------------------------------------------------------


@virtual
async def test_each_key_has_a_limit_of_its_own(clock):
    """One tenant's queue is nothing to another."""
    starts = Starts()
    limit = limited(starts, 1, key=tenant)
    first = [call(limit, value, session_id="ada") for value in "abc"]
    second = [call(limit, value, session_id="bob") for value in "xy"]
    await asyncio.gather(*first, *second)
    assert starts.seen == [("a", 0), ("x", 0), ("b", 1), ("y", 1), ("c", 2)]
    assert (limit.stats.keys, limit.stats.available) == (2, None)


@virtual
async def test_a_key_that_cannot_be_one_is_refused(clock):
    """The message shows what came back."""
    limit = limited(Starts(), key=lambda value, context: [value])
    with pytest.raises(
        TypeError, match=r"key\(input, context\)=\['x'\] must be hashable"
    ):
        await limit.execute("x", WorkflowContext())


@every_algorithm
@virtual
async def test_keys_that_are_idle_are_forgotten(clock, algorithm):
    """Thousands of keys leave no memory behind once they are idle."""
    limit = RateLimitPrimitive(nothing, rate=1, key=by_value, algorithm=algorithm)
    await limit.execute("warm", WorkflowContext())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for value in range(10_000):
        await limit.execute(value, WorkflowContext())
    held = tracemalloc.get_traced_memory()[0] - before
    await asyncio.sleep(1.1)
    assert limit.stats.keys == 0
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held / 10_000 <= 1024
    assert left < 10_000


@virtual
async def test_100_000_keys_leave_nothing_behind(clock):
    """All of them count while they are in use, and none afterwards."""
    limit = RateLimitPrimitive(nothing, rate=1, key=by_value)
    for value in range(100_000):
        await limit.execute(value, WorkflowContext())
    assert limit.stats.keys == 100_000
    await asyncio.sleep(1.1)
    assert (limit.stats.keys, len(limit._by_loop.here().by_key)) == (0, 0)


@virtual
async def test_keys_are_forgotten_by_calls_alone(clock):
    """Nobody has to ask: each call looks at a few keys."""
    limit = RateLimitPrimitive(nothing, rate=1, key=by_value)
    for value in range(20_000):
        await limit.execute(value, WorkflowContext())
    await asyncio.sleep(1.1)
    by_key = limit._by_loop.here().by_key
    assert len(by_key) == 20_000
    for _ in range(410):
        await limit.execute("one", WorkflowContext())
        await asyncio.sleep(1)
    assert len(by_key) == 1


@virtual
async def test_a_stream_of_new_keys_keeps_few_idle_ones(clock):
    """There are never more than twice as many as are in use."""
    limit = RateLimitPrimitive(nothing, rate=1, key=by_value)
    most = 0
    for value in range(5000):
        await limit.execute(value, WorkflowContext())
        await asyncio.sleep(0.01)
        most = max(most, len(limit._by_loop.here().by_key))
    assert 100 <= most <= 220


@virtual
async def test_a_key_in_use_is_never_forgotten(clock):
    """Who waits keeps its place while thousands of others come and go."""
    starts = Starts()
    limit = limited(starts, 1, key=tenant)
    waiting = [call(limit, value, session_id="ada") for value in range(5)]
    for other in range(1000):
        await limit.execute("x", WorkflowContext(session_id=str(other)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*waiting)
    own = [time for value, time in starts.seen if value != "x"]
    assert own == [0, 1, 2, 3, 4]


# --- penalties ------------------------------------------------------------------------


@every_algorithm
@virtual
async def test_a_429_closes_the_limit_until_its_retry_after(clock, events, algorithm):
    """Who waits and who comes start when the server has said, and not before."""
    error = Rejected(response=Response(429, retry_after="5"))
    starts = Starts(fails={"bad": error})
    limit = limited(starts, 10, algorithm=algorithm)
    with pytest.raises(Rejected, match="rejected") as caught:
        await limit.execute("bad", WorkflowContext())
    assert caught.value is error
    await asyncio.sleep(1)
    await call_all(limit, range(3))
    assert starts.times[1] == 5
    assert starts.order == ["bad", 0, 1, 2]
    assert events.detail("rate_limit.penalized") == [{"seconds": 5}]
    assert limit.stats.penalties == 1


@virtual
async def test_after_a_penalty_a_bucket_does_not_burst(clock):
    """The server has just recovered: calls come back at the rate, one by one."""
    starts = Starts(fails={"bad": Rejected(retry_after=5, status_code=429)})
    limit = limited(starts, 10)
    await call_all(limit, ["bad", *range(3)])
    assert starts.times == [0, 5, 5.1, 5.2]


@every_algorithm
@virtual
async def test_a_penalty_holds_for_those_who_wait(clock, algorithm):
    """A timer that was set before is set again."""
    starts = Starts()
    limit = limited(fails_late(starts), 1, algorithm=algorithm)
    await call_all(limit, ["bad", "a", "b"])
    assert starts.seen == [("bad", 0), ("a", 5.5), ("b", 6.5)]
    timers = [wait for wait in clock.sleeps if wait.kind == "timer"]
    assert [timer.cancelled for timer in timers] == [True, False, False]


@virtual
async def test_a_penalty_holds_for_its_key_alone(clock):
    """Another tenant is not made to wait."""
    starts = Starts(fails={"bad": Rejected(retry_after=5, status_code=429)})
    limit = limited(starts, key=tenant)
    await call_all(limit, ["bad"], session_id="ada")
    await call_all(limit, ["x"], session_id="bob")
    await call_all(limit, ["y"], session_id="ada")
    assert starts.seen == [("bad", 0), ("x", 0), ("y", 5)]


@virtual
async def test_a_penalty_reaches_a_key_that_was_forgotten_meanwhile(clock):
    """The call took so long that its key had become idle."""

    async def slow(value):
        if value == "bad":
            await asyncio.sleep(100)
            raise Rejected(retry_after=5, status_code=429)
        return asyncio.get_running_loop().time()

    limit = RateLimitPrimitive(slow, rate=10, key=tenant)
    bad = call(limit, "bad", session_id="ada")
    await asyncio.sleep(99)
    assert limit.stats.keys == 0
    with pytest.raises(Rejected, match="rejected"):
        await bad
    assert await limit.execute("x", WorkflowContext(session_id="ada")) == 105


@every_algorithm
@virtual
async def test_a_penalty_turns_away_those_for_whom_it_is_too_long(clock, algorithm):
    """They are told at once, not when their time is up; those behind them move up."""
    starts = Starts()
    limit = limited(fails_late(starts), 1, algorithm=algorithm, max_wait=10)
    bad, patient = call(limit, "bad"), call(limit, "patient")
    hurried = call(limit, "hurried", deadline=4)
    last = call(limit, "last", deadline=7)
    with pytest.raises(RateLimitExceededError, match="could start in 6 s") as caught:
        await hurried
    assert (caught.value.retry_after, clock.elapsed) == (6, 0.5)
    await asyncio.gather(bad, patient, last, return_exceptions=True)
    assert starts.seen == [("bad", 0), ("patient", 5.5), ("last", 6.5)]
    assert (limit.stats.rejected, limit.stats.abandoned) == (1, 0)


@every_algorithm
@virtual
async def test_of_several_penalties_the_longest_counts(clock, algorithm):
    """A shorter one that comes later takes nothing back."""

    async def asks_to_wait(seconds):
        await asyncio.sleep(1)
        if seconds:
            raise Rejected(retry_after=seconds, status_code=429)

    limit = limited(asks_to_wait, 1000, algorithm=algorithm)
    await call_all(limit, [3, 5, 1])
    assert limit.stats.available == 0
    ended = clock.elapsed
    await call_all(limit, [0])
    # It takes a second itself.
    assert 5 < clock.elapsed - ended <= 6


@virtual
async def test_no_answer_closes_a_limit_for_longer_than_a_day(clock):
    """A header that is out of its mind must not close it for ever."""
    error = Rejected(status_code=429, retry_after=1e300)
    starts = Starts(fails={"bad": error})
    await call_all(limited(starts), ["bad", "x"])
    assert starts.times == [0, 24 * 3600]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Rejected(status_code=429, retry_after=2), 2),
        (Rejected(response=Response(429, retry_after_ms="1500")), 1.5),
        (ExceptionGroup("both", [Boom(), Rejected(status=429, retry_after=2)]), 2),
        (Rejected(status_code=429, retry_after=0), 0),
        (Rejected(status_code=429), None),
        (Rejected(status_code=503, retry_after=2), None),
        (Rejected(retry_after=2), None),
        (Boom(), None),
        (CircuitOpenError("open", retry_after=2), None),
    ],
)
@virtual
async def test_by_default_only_a_429_that_says_when_is_a_penalty(
    clock, events, error, seconds
):
    """Every other error leaves the limit alone."""
    limit = limited(Starts(fails={"bad": error}))
    await call_all(limit, ["bad"])
    found = [detail["seconds"] for detail in events.detail("rate_limit.penalized")]
    assert found == ([] if seconds is None else [seconds])


@pytest.mark.parametrize(
    "penalize_on", [Boom, (OSError, Boom), lambda error: "boom" in str(error)]
)
@virtual
async def test_penalize_on_names_the_errors(clock, penalize_on):
    """One without a Retry-After closes the limit for as long as a unit takes."""
    starts = Starts(fails={"bad": Boom(), "else": ValueError()})
    limit = limited(starts, 2, penalize_on=penalize_on)
    await call_all(limit, ["else", "x"])
    await asyncio.sleep(10)
    await call_all(limit, ["bad"])
    await call_all(limit, ["y"])
    assert starts.times == [0, 0, 10, 10.5]


@virtual
async def test_penalize_on_nothing(clock):
    """An empty tuple switches penalties off."""
    starts = Starts(fails={"bad": Rejected(status_code=429, retry_after=9)})
    limit = limited(starts, penalize_on=())
    await call_all(limit, ["bad", "x"])
    assert limit.stats.penalties == 0


@pytest.mark.parametrize(
    ("penalize_on", "penalties"),
    [(Exception, 0), (RateLimitExceededError, 1), (lambda error: True, 1)],
)
@virtual
async def test_a_rejection_from_further_inside_must_be_named(
    clock, penalize_on, penalties
):
    """It says that nothing was executed; no server has complained."""
    error = RateLimitExceededError("inner", retry_after=30)
    limit = limited(Starts(fails={"x": error}), penalize_on=penalize_on)
    await call_all(limit, ["x"])
    assert limit.stats.penalties == penalties


@virtual
async def test_a_cancellation_is_no_penalty(clock):
    """Nor is the error that a step makes of one: nothing was said by the server."""

    async def breaks(value):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            raise Boom from error

    limit = limited(breaks, penalize_on=Exception)
    task = call(limit)
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(Boom, match="boom"):
        await task
    assert limit.stats.penalties == 0


# --- composition ----------------------------------------------------------------------


@virtual
async def test_a_retry_waits_as_long_as_a_rejection_says(clock):
    """A rejection carries the exact wait, and one attempt more is enough."""
    starts = Starts()
    limit = limited(starts, 1, period=7, max_wait=0)
    retry = RetryPrimitive(limit, jitter="none", initial_delay=0.1)
    await call_all(retry, "a")
    assert await retry.execute("b", WorkflowContext()) == "b"
    assert starts.times == [0, 7]
    assert limit.stats.rejected == 1


@virtual
async def test_rule_6_a_rejection_is_retried_although_the_step_is_not_idempotent(clock):
    """Nothing was executed."""
    starts = Starts()

    @step(idempotent=False)
    async def charge(value):
        return await starts(value)

    retry = RetryPrimitive(limited(charge, 1, max_wait=0), jitter="none")
    await retry.execute("a", WorkflowContext())
    await retry.execute("b", WorkflowContext())
    assert starts.seen == [("a", 0), ("b", 1)]


@virtual
async def test_rule_6_a_fallback_answers_for_a_rejection(clock):
    """At once."""
    limit = limited(Starts(), 1, max_wait=0)
    workflow = FallbackPrimitive(limit, ["too busy"])
    assert await workflow.execute("a", WorkflowContext()) == "a"
    assert await workflow.execute("b", WorkflowContext()) == "too busy"
    assert clock.elapsed == 0


@virtual
async def test_several_limits_hold_together(clock):
    """Requests and tokens: each call waits for both."""
    starts = Starts()
    tokens = limited(starts, 100, period=10, cost=by_value)
    both = RateLimitPrimitive(tokens, rate=2, period=1)
    await call_all(both, [10, 10, 90, 10, 10])
    assert starts.times == [0, 0, 1, 2, 3]
    assert (both.stats.waited_seconds, tokens.stats.waited_seconds) == (3, 3)


@virtual
async def test_a_retry_inside_is_limited_once_and_outside_each_time(clock):
    """The order of composition is the meaning."""

    def fails_twice():
        return Script(Boom(), Boom(), "ok")

    once = RateLimitPrimitive(
        RetryPrimitive(fails_twice(), initial_delay=0), rate=1, max_wait=0
    )
    assert await once.execute("x", WorkflowContext()) == "ok"
    each = RetryPrimitive(
        RateLimitPrimitive(fails_twice(), rate=1, burst=1), initial_delay=0
    )
    assert await each.execute("x", WorkflowContext()) == "ok"
    assert clock.elapsed == 2


@virtual
async def test_open_limits_bind_to_what_follows(clock):
    """State belongs to the bound one."""
    open_limit = RateLimitPrimitive(rate=1, max_wait=0)
    first, second = Starts(), Starts()
    one, two = open_limit >> first, open_limit >> second
    await one.execute("x", WorkflowContext())
    assert await two.execute("y", WorkflowContext()) == "y"
    assert isinstance((await call_all(one, "z"))[0], RateLimitExceededError)
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await open_limit.execute("x", WorkflowContext())
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        _ = open_limit.stats


@virtual
async def test_streams_are_limited_at_their_start(clock):
    """All chunks of a stream are one call, and the next waits for its turn."""
    chunks = Stream(["a", 0.5, "b"])
    limit = RateLimitPrimitive(step(chunks), rate=1)
    assert await chunks_of(limit, "x", WorkflowContext()) == (["a", "b"], None)
    assert await chunks_of(limit, "x", WorkflowContext()) == (["a", "b"], None)
    assert clock.elapsed == 1.5
    _, error = await chunks_of(limit, "x", WorkflowContext(deadline=1.9))
    assert isinstance(error, RateLimitExceededError)


@virtual
async def test_an_error_in_a_stream_is_a_penalty_as_well(clock):
    """It may come after the first chunks."""
    error = Rejected(status_code=429, retry_after=5)
    limit = RateLimitPrimitive(step(Stream(["a", error], ["b"])), rate=10)
    assert await chunks_of(limit, "x", WorkflowContext()) == (["a"], error)
    assert await chunks_of(limit, "x", WorkflowContext()) == (["b"], None)
    assert clock.elapsed == 5


@virtual
async def test_paths_and_keys_are_the_same_whether_somebody_listens_or_not(clock):
    """The view of what is wrapped stands below the limit."""
    seen = []

    class Asks(WorkflowPrimitive[str, str]):
        async def execute(self, input_data, context, /):
            seen.append(context.position_of(self).path)
            return input_data

    await limited(Asks()).execute("x", WorkflowContext())
    await limited(Asks(), key=tenant).execute("x", WorkflowContext())
    assert seen == ["rate_limit/asks"] * 2


@virtual
async def test_the_callers_context_is_not_changed(clock):
    """Neither its deadline nor anything else."""
    context = WorkflowContext(deadline=100)
    limit = limited(Starts(), 1)
    for _ in range(2):
        await limit.execute("x", context)
    assert context.deadline == 100


# --- events and figures ---------------------------------------------------------------


@virtual
async def test_events_tell_of_waits_and_rejections(clock, events):
    """With the seconds, known beforehand; a call that starts at once tells nothing."""
    limit = limited(Starts(), 1, max_wait=2)
    await call_all(limit, range(4))
    assert events.seen == [
        ("rate_limit.delayed", {"seconds": 1}),
        ("rate_limit.delayed", {"seconds": 2}),
        ("rate_limit.rejected", {"retry_after": 3}),
    ]


@virtual
async def test_stats_count_what_happened(clock):
    """All of it, with how the limit stands now."""
    starts = Starts(fails={"bad": Rejected(status_code=429, retry_after=1)})
    limit = limited(starts, 2, max_wait=2)
    assert limit.stats == RateLimitStats(0, 0, 0, 0, 0, 0, 0, 0, 2)
    calls = [call(limit, value) for value in range(7)]
    await asyncio.sleep(0.75)
    calls[3].cancel()
    await asyncio.sleep(0)
    assert limit.stats == RateLimitStats(
        admitted=3,
        delayed=4,
        rejected=1,
        abandoned=1,
        waiting=2,
        waited_seconds=0.5,
        penalties=0,
        keys=0,
        available=0,
    )
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0.25)
    assert limit.stats.available == 0.5
    assert limit.stats.waited_seconds == 3.0
    await call_all(limit, ["bad"])
    assert (limit.stats.penalties, limit.stats.available) == (1, 0)


@virtual
async def test_what_is_available_by_algorithm(clock):
    """Units of a bucket or a window; for a leaky bucket, whether one could start."""
    for algorithm, before, after in [
        ("token_bucket", 5, 3),
        ("sliding_window", 5, 3),
        ("leaky_bucket", 1, 0),
    ]:
        limit = limited(Starts(), 5, algorithm=algorithm)
        assert limit.stats.available == before
        await limit.execute("x", WorkflowContext())
        if algorithm != "leaky_bucket":
            await limit.execute("x", WorkflowContext())
        assert limit.stats.available == after


def test_options_and_description():
    """What differs from the usual values is shown, without addresses."""
    limit = RateLimitPrimitive(
        step(Starts()), rate=10, algorithm="sliding_window", max_wait=0.5, key=tenant
    )
    assert limit.describe()["options"] == {
        "rate": 10.0,
        "algorithm": "sliding_window",
        "max_wait": 0.5,
        "key": "tests.recovery.rate_tools.tenant",
    }
    assert repr(RateLimitPrimitive(rate=2, period=60)) == (
        "<RateLimitPrimitive open rate=2.0 period=60.0>"
    )


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"rate": 0}, ValueError, "rate=0 must be a positive number"),
        ({"rate": float("inf")}, ValueError, "rate=inf must be a positive number"),
        ({"rate": "10"}, TypeError, "rate='10' must be a positive number, not str"),
        ({"rate": True}, TypeError, "rate=True must be a positive number, not bool"),
        ({"period": 0}, ValueError, "period=0 must be a positive number of seconds"),
        ({"algorithm": "magic"}, ValueError, "algorithm='magic' must be one of 'tok"),
        ({"burst": 0}, ValueError, "burst=0 must be a positive number"),
        (
            {"burst": 5, "algorithm": "sliding_window"},
            ValueError,
            "burst=5 has no meaning for algorithm='sliding_window'",
        ),
        ({"cost": 0}, ValueError, "cost=0 must be a positive number"),
        ({"cost": "a"}, TypeError, "cost='a' must be a positive number, not str"),
        ({"cost": asyncio.sleep}, TypeError, "must not be async"),
        ({"max_wait": -1}, ValueError, "max_wait=-1 must be a non-negative number"),
        ({"key": "ada"}, TypeError, r"key='ada' must be a function, f\(input\) or"),
        ({"penalize_on": 429}, TypeError, "penalize_on=429 must be an exception type"),
        ({"storage": "redis://"}, TypeError, "storage='redis://' must be a redis.asy"),
        ({"namespace": ""}, ValueError, "namespace='' must be a non-empty text"),
        ({"namespace": 1}, TypeError, "namespace=1 must be a non-empty text"),
    ],
)
def test_arguments_are_checked_at_construction(options, kind, text):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(kind, match=text):
        RateLimitPrimitive(**{"rate": 10, **options})


def test_rate_is_required():
    """A limit without one would be none."""
    with pytest.raises(TypeError, match="rate"):
        RateLimitPrimitive()


# --- loops ----------------------------------------------------------------------------


def test_a_limit_goes_on_in_the_next_loop():
    """A program that runs one loop after the other is limited all the same."""
    clock = VirtualClock()
    starts = Starts()
    limit = limited(starts, 1)

    async def run():
        await call_all(limit, "ab")
        return asyncio.get_running_loop().time()

    assert clock.run(run()) == 1
    later = VirtualClock()

    async def run_later():
        await asyncio.sleep(1.25)
        await call_all(limit, "c")

    later.run(run_later())
    assert starts.times == [0, 1, 2]


def test_a_clock_that_shows_an_earlier_time_begins_anew():
    """The next test must not wait for what the last one has taken."""
    starts = Starts(fails={"bad": Rejected(status_code=429, retry_after=3600)})
    limit = limited(starts, 1)

    async def run():
        await asyncio.sleep(100)
        await call_all(limit, ["a", "bad"])

    async def run_anew():
        await call_all(limit, "c")

    VirtualClock().run(run())
    VirtualClock().run(run_anew())
    assert starts.times == [100, 101, 0]


@every_algorithm
def test_a_clock_that_is_set_back_on_one_loop_begins_anew(algorithm):
    """Nobody waits for a moment that was a moment ago."""

    class Loop(asyncio.SelectorEventLoop):
        offset = 10_000.0

        def time(self):
            return super().time() + self.offset

    limit = limited(nothing, 2, algorithm=algorithm, period=3600, max_wait=0)

    async def run():
        await call_all(limit, "a")
        asyncio.get_running_loop().offset = 0.0
        results = await call_all(limit, "bcd")
        return sum(result is None for result in results)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(run()) == (1 if algorithm == "leaky_bucket" else 2)


def test_who_waits_when_the_clock_is_set_back_starts_at_once():
    """What it has waited for was taken at a time that is still to come."""

    class Loop(asyncio.SelectorEventLoop):
        offset = 10_000.0

        def time(self):
            return super().time() + self.offset

    limit = limited(nothing, 1, period=3600)

    async def run():
        calls = [call(limit) for _ in range(2)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().offset = 0.0
        with pytest.raises(RateLimitExceededError, match="could start in"):
            await limit.execute("x", WorkflowContext(deadline=1.0))
        assert await asyncio.gather(*calls) == [None, None]
        assert limit.stats.waited_seconds == 0

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


def test_waiters_of_a_closed_loop_are_forgotten(recwarn):
    """They never run again, and nobody waits behind them."""
    limit = limited(Starts(), 1)

    async def leave_waiting():
        await limit.execute("a", WorkflowContext())
        return [call(limit, value) for value in "bcd"]

    clock = VirtualClock()
    with clock:
        loop = clock.new_loop()
        tasks = loop.run_until_complete(leave_waiting())
        loop.run_until_complete(asyncio.sleep(0))
        assert limit.stats.waiting == 3
        loop.close()

    async def go_on():
        await asyncio.sleep(0.5)
        await limit.execute("e", WorkflowContext())
        return asyncio.get_running_loop().time()

    assert VirtualClock().run(go_on()) == 1
    assert limit.stats.waiting == 0
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()


def test_loops_in_threads_have_limits_of_their_own():
    """No state is shared by two loops that run at the same time."""
    limit = RateLimitPrimitive(Starts(), rate=2, period=3600, max_wait=0)
    barrier = threading.Barrier(2, timeout=10)
    found = []

    async def run():
        barrier.wait()
        results = await call_all(limit, range(5))
        barrier.wait()
        found.append(sum(isinstance(r, int) for r in results))

    threads = [threading.Thread(target=asyncio.run, args=(run(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [2, 2]


# --- cost of it all -------------------------------------------------------------------


@virtual
async def test_case_06_rejections_and_penalties_leave_no_cyclic_garbage(clock):
    """After 100 of each with the collector off there is nothing to collect."""
    limit = limited(Starts(), 1, max_wait=0)
    failing = limited(Script(Boom()), 1000, penalize_on=Boom)

    async def run(times):
        for _ in range(times):
            with suppress(RateLimitExceededError):
                await limit.execute("x", WorkflowContext())
            with suppress(Boom):
                await failing.execute("x", WorkflowContext())

    await run(2)
    with only_new_garbage():
        await run(100)
        assert gc.collect() == 0


@virtual
async def test_waiting_and_being_cancelled_leaves_no_cyclic_garbage(clock):
    """The queue lets go of its places."""
    limit = limited(Starts(), 1)

    async def run(times):
        calls = [call(limit, value) for value in range(times)]
        await asyncio.sleep(2.5)
        for one in calls:
            one.cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(0)

    await run(5)
    with only_new_garbage():
        await run(50)
        assert gc.collect() == 0


@virtual
async def test_case_97_a_waiting_call_holds_little_memory(clock):
    """A place in the queue is one future and one entry of a dictionary."""
    limit = limited(Starts(), 1)
    await limit.execute("x", WorkflowContext())
    lane = limit._lane
    now = asyncio.get_running_loop().time()
    places = [lane.join(1, now, 1e9) for _ in range(10)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    places += [lane.join(1, now, 1e9) for _ in range(1000)]
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for place in places:
        place.cancel()
    assert held / 1000 <= 512


@virtual
async def test_case_92_an_outer_timeout_ends_the_waiting_of_a_bare_deadline(clock):
    """Only what is not known beforehand is cut off: here, the step itself."""
    limit = limited(Script("ok", takes=60), 1)
    with pytest.raises(TimeoutExceededError, match="took longer than 5 s"):
        await TimeoutPrimitive(limit, timeout_seconds=5).execute("x", WorkflowContext())
