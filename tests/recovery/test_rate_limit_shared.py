"""Rate limits that share a Redis: one limit for all, and the local one without."""

from __future__ import annotations

import asyncio
import gc
import logging
import math

import pytest
from redis import exceptions

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.circuit_tools import quiet
from tests.recovery.doubles import CANCELLED, Events, Rejected, Stream, chunks_of
from tests.recovery.rate_tools import (
    FakeWorld,
    Slow,
    Starts,
    by_value,
    call,
    call_all,
    earliest,
    every_algorithm,
    fails_late,
    faked,
    in_turn,
    shared,
    tenant,
)
from tta_primitives import WorkflowContext, step
from tta_primitives.door import listening
from tta_primitives.errors import RateLimitExceededError
from tta_primitives.recovery import RateLimitPrimitive, RetryPrimitive, TimeoutPrimitive
from tta_primitives.redis_link import COMMAND_SECONDS, COOL_DOWN_SECONDS, LinkDownError

# --- one limit for all ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "times"),
    [
        ("token_bucket", [0, 0, 0, 1 / 3, 2 / 3, 1, 4 / 3]),
        ("leaky_bucket", [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2]),
        ("sliding_window", [0, 0, 0, 1, 1, 1, 2]),
    ],
)
@faked
async def test_case_79_two_processes_share_one_limit(world, algorithm, times):
    """Their starts, taken together, are those of one limit, in the order of calls."""
    starts = Starts()
    limits = [world.limit(starts, 3, algorithm=algorithm) for _ in range(2)]
    calls = await in_turn(*((limits[n % 2], n) for n in range(7)))
    await asyncio.gather(*calls)
    assert starts.times == pytest.approx(times, abs=1e-4)
    # Of those that start in one moment, either may be the first.
    for time in set(times):
        ours = [
            value for value, at in starts.seen if at == pytest.approx(time, abs=1e-4)
        ]
        assert sorted(ours) == [n for n in range(7) if times[n] == time]


@faked
async def test_case_79_calls_of_one_moment_keep_their_order(world):
    """Also the first ones, whose script Redis does not know yet."""
    starts = Starts()
    limit = world.limit(starts, 1)
    for values in (range(5), range(5, 8)):
        await call_all(limit, values)
    assert starts.seen == [(n, n) for n in range(8)]


@every_algorithm
@shared
async def test_case_79_no_period_sees_more_than_the_limit_of_all(world, algorithm):
    """Two processes call as fast as they can."""
    starts = Starts()
    limits = [world.limit(starts, 4, algorithm=algorithm) for _ in range(2)]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(call(limits[n % 2], n) for n in range(16)))
    # A start is never early; a busy machine may make one late.
    allowed = earliest(algorithm, 16, 4, world.period)
    for time, after in zip(sorted(starts.times), allowed, strict=True):
        assert time >= began + after - 1e-3
        if isinstance(world, FakeWorld):
            assert time <= began + after + 1e-3


@faked
async def test_case_79_a_bucket_fills_up_to_its_burst_and_no_further(world):
    """Also while Redis still remembers when it was full."""
    starts = Starts()
    limit = world.limit(starts, 10)
    await call_all(limit, range(10))
    await asyncio.sleep(4)
    await call_all(limit, range(12))
    assert starts.times == [0] * 10 + [4] * 10 + [4.1, 4.2]


@faked
async def test_case_79_order_holds_for_costs_of_all(world):
    """A big one of one process is not overtaken by small ones of another."""
    starts = Starts()
    one, other = (world.limit(starts, cost=by_value) for _ in range(2))
    calls = await in_turn((one, 10), (one, 9), *[(other, 1)] * 3)
    await asyncio.gather(*calls)
    assert starts.seen == [(10, 0), (9, 0.9), (1, 1), (1, 1.1), (1, 1.2)]


@every_algorithm
@faked
async def test_starts_do_not_drift(world, algorithm):
    """After 1000 starts at 3 per second nothing has added up."""
    starts = Starts()
    limit = world.limit(starts, 3, algorithm=algorithm)
    for _ in range(10):
        await call_all(limit, range(100))
    expected = {
        "token_bucket": 997 / 3,
        "leaky_bucket": 999 / 3,
        "sliding_window": 333,
    }
    # Each start is rounded up to a whole microsecond, of server and client.
    assert starts.times[-1] == pytest.approx(expected[algorithm], abs=2e-3)


@every_algorithm
@shared
async def test_case_80_a_wait_that_is_too_long_is_rejected(world, algorithm):
    """With the exact wait, and without a reservation: the next is told the same."""
    limit = world.limit(Starts(), 1, algorithm=algorithm, max_wait=0, period=60)
    other = world.limit(Starts(), 1, algorithm=algorithm, max_wait=0, period=60)
    assert await limit.execute("x", WorkflowContext()) == "x"
    for _ in range(3):
        with pytest.raises(RateLimitExceededError, match="could start in") as caught:
            await other.execute("x", WorkflowContext())
        assert 59 < caught.value.retry_after <= 60
    assert (limit.stats.admitted, other.stats.rejected) == (1, 3)


@faked
async def test_case_80_a_deadline_counts_as_well(world):
    """A start at the deadline is too late, one before it is not."""
    starts = Starts()
    limit = world.limit(starts, 1)
    await call_all(limit, "a")
    with pytest.raises(RateLimitExceededError, match="the deadline") as caught:
        await limit.execute("b", WorkflowContext(deadline=1.0))
    assert caught.value.retry_after == 1
    assert await limit.execute("c", WorkflowContext(deadline=1.01)) == "c"
    assert starts.seen == [("a", 0), ("c", 1)]
    with pytest.raises(RateLimitExceededError, match="the deadline"):
        await limit.execute("late", WorkflowContext(deadline=0.5))


@faked
async def test_case_80_a_retry_waits_as_long_as_it_is_told(world):
    """Exactly until the start that would be admitted."""
    starts = Starts()
    limit = world.limit(starts, 1, period=7, max_wait=0)
    retry = RetryPrimitive(limit, jitter="none", initial_delay=0.1)
    await call_all(retry, "a")
    await call_all(retry, "b")
    assert starts.seen == [("a", 0), ("b", 7)]


@faked
async def test_case_80_a_leaky_bucket_that_is_full_rejects(world):
    """Whoever's calls they are that are in it."""
    starts = Starts()
    options = {"algorithm": "leaky_bucket", "burst": 3}
    one, other = (world.limit(starts, 1, **options) for _ in range(2))
    calls = await in_turn((one, "a"), (other, "b"), (one, "c"))
    with pytest.raises(RateLimitExceededError, match="could start in 3 s"):
        await other.execute("d", WorkflowContext())
    await asyncio.gather(*calls)
    assert starts.times == [0, 1, 2]


@faked
async def test_a_window_that_has_slid_for_a_rejected_call_counts_right(world):
    """What has left it while nobody was let start makes room for the next."""
    limit = world.limit(
        Starts(), 4, cost=by_value, algorithm="sliding_window", max_wait=0
    )
    await call_all(limit, [2])
    await asyncio.sleep(0.5)
    await call_all(limit, [2])
    await asyncio.sleep(0.7)
    with pytest.raises(RateLimitExceededError, match=r"could start in 0\.3 s"):
        await limit.execute(4, WorkflowContext())
    assert await limit.execute(2, WorkflowContext()) == 2


@every_algorithm
@shared
async def test_each_key_has_a_limit_of_its_own(world, algorithm):
    """The same in all processes."""
    one, other = (
        world.limit(Starts(), 1, algorithm=algorithm, key=tenant, max_wait=0, period=60)
        for _ in range(2)
    )
    assert await call_all(one, "x", session_id="ada") == ["x"]
    assert await call_all(other, "x", session_id="bob") == ["x"]
    results = await call_all(other, "x", session_id="ada")
    assert isinstance(results[0], RateLimitExceededError)


@faked
async def test_a_key_must_mean_the_same_to_other_processes(world):
    """An object does not; the message says what does."""
    limit = world.limit(Starts(), key=lambda value, context: object())
    with pytest.raises(TypeError, match="must be made of plain values, such as texts"):
        await limit.execute("x", WorkflowContext())


@every_algorithm
@shared
async def test_keys_expire_when_they_are_idle(world, algorithm):
    """Every one of them has an expiry, a little later than it is of use."""
    limit = world.limit(Starts(), 2, algorithm=algorithm, key=by_value, period=1.0)
    await call_all(limit, range(1, 4))
    keys = await world.keys()
    assert len(keys) == (6 if algorithm == "sliding_window" else 3)
    assert all(0 < seconds <= 7 for seconds in keys.values())
    if isinstance(world, FakeWorld):
        await asyncio.sleep(8)
        assert await world.keys() == {}


@faked
async def test_another_rate_is_another_limit(world):
    """Two versions of a program do not mix up what they count."""
    client = world.client()
    one = world.limit(Starts(), 1, client, max_wait=0)
    other = world.limit(Starts(), 2, client, max_wait=0)
    window = world.limit(Starts(), 1, client, max_wait=0, algorithm="sliding_window")
    for limit in (one, other, window):
        assert await call_all(limit, "x") == ["x"]


@step
async def ask(question):
    """Answer."""
    return question


@faked
async def test_a_namespace_is_derived_from_what_is_wrapped(world):
    """The same function has the same limit; one without a name needs a namespace."""
    one, other = (
        RateLimitPrimitive(ask, rate=1, max_wait=0, storage=world.client())
        for _ in range(2)
    )
    assert await call_all(one, "x") == ["x"]
    assert isinstance((await call_all(other, "x"))[0], RateLimitExceededError)
    with pytest.raises(ValueError, match=r"holds a lambda.* namespace="):
        RateLimitPrimitive(lambda value: value, rate=1, storage=world.client())


@faked
async def test_streams_are_limited_at_their_start(world):
    """As calls are."""
    limit = world.limit(step(Stream(["a", "b"])), 1)
    loop = asyncio.get_running_loop()
    for expected in (0, 1):
        assert await chunks_of(limit, "x", WorkflowContext()) == (["a", "b"], None)
        assert loop.time() == expected


@faked
async def test_events_and_figures_are_those_of_this_process(world):
    """What waits, waited and was turned away here."""
    starts, events = Starts(), Events()
    limit = world.limit(starts, 1, max_wait=2)
    with listening(observers=(events,)):
        calls = await in_turn(*((limit, value) for value in range(4)))
        assert limit.stats.waiting == 2
        calls[2].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert events.seen == [
        ("rate_limit.delayed", {"seconds": 1}),
        ("rate_limit.delayed", {"seconds": 2}),
        ("rate_limit.rejected", {"retry_after": 3}),
    ]
    stats = limit.stats
    assert (stats.admitted, stats.delayed, stats.rejected) == (2, 2, 1)
    assert (stats.abandoned, stats.waiting, stats.available) == (1, 0, None)
    assert stats.waited_seconds == pytest.approx(1)


# --- cancellation ---------------------------------------------------------------------


@every_algorithm
@shared
async def test_case_81_the_last_one_gives_its_start_back(world, algorithm):
    """Whoever comes after it starts as if it had never come."""
    starts = Starts()
    one, other = (
        world.limit(starts, 1, algorithm=algorithm, period=4 * world.period)
        for _ in range(2)
    )
    await one.execute("a", WorkflowContext())
    task = call(one, "b")
    await asyncio.sleep(world.period)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    await asyncio.sleep(world.period / 4)
    await other.execute("c", WorkflowContext())
    first, second = starts.times
    # Two units would take twice as long.
    assert 3.95 * world.period <= second - first <= 7 * world.period


@pytest.mark.parametrize("direction", [1, -1], ids=["first", "last"])
@every_algorithm
@faked
async def test_case_81_when_all_are_cancelled_nothing_is_left(
    world, algorithm, direction
):
    """In whatever order they go."""
    starts = Starts()
    one, other = (world.limit(starts, 1, algorithm=algorithm) for _ in range(2))
    await one.execute("a", WorkflowContext())
    calls = [call((one, other)[n % 2], n) for n in range(20)]
    await quiet()
    for task in calls[::direction]:
        task.cancel()
        await quiet()
    await other.execute("b", WorkflowContext())
    assert starts.seen == [("a", 0), ("b", 1)]


@every_algorithm
@faked
async def test_case_81_one_in_the_middle_leaves_the_others_where_they_are(
    world, algorithm
):
    """Starts that were promised are kept, and no more of them are given out."""
    starts = Starts()
    limit = world.limit(starts, 1, algorithm=algorithm)
    calls = await in_turn(*((limit, value) for value in "abcd"))
    calls[2].cancel()
    await quiet()
    await limit.execute("e", WorkflowContext())
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen == [("a", 0), ("b", 1), ("d", 3), ("e", 4)]


@faked
async def test_case_81_tokens_go_back_into_a_bucket_that_has_room(world):
    """With a burst of 5 the last one does not wait for what was not taken."""
    starts = Starts()
    limit = world.limit(starts, 5)
    calls = await in_turn(*((limit, value) for value in range(10)))
    for task in calls[6:8]:
        task.cancel()
    await quiet()
    late = [call(limit, "late") for _ in range(3)]
    await asyncio.gather(*calls, *late, return_exceptions=True)
    assert starts.times[:5] == [0] * 5
    # A number is before "late", where they start in one moment.
    assert sorted(starts.seen[5:], key=lambda one: (one[1], str(one[0]))) == [
        (5, 0.2),
        (8, 0.8),
        (9, 1.0),
        ("late", 1.0),
        ("late", 1.0),
        ("late", 1.2),
    ]


@faked
async def test_case_81_tokens_go_back_once(world):
    """Those that went back out of turn do not go back again with the last one."""
    starts = Starts()
    limit = world.limit(starts, 5)
    calls = await in_turn(*((limit, value) for value in range(10)))
    for task in calls[5:]:
        task.cancel()
        await quiet()
    await call_all(limit, "abc")
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.times == [0] * 5 + [0.2, 0.4, 0.6]


@faked
async def test_case_81_what_is_given_back_late_is_not_taken_from_others(world):
    """The bucket was full meanwhile, and what went since is not what comes back."""
    starts, client = Starts(), world.client(Slow)
    slow = world.limit(starts, 5, client, period=0.05)
    other = world.limit(starts, 5, period=0.05, max_wait=0)
    calls = await in_turn(*((slow, value) for value in range(6)))
    # The last one wakes after a unit, and is still asking when all have come back.
    client.before = [0.15]
    await asyncio.sleep(0.1)
    assert await call_all(other, "abcde") == [*"abcde"]
    calls[-1].cancel()
    await quiet()
    assert isinstance((await call_all(other, "f"))[0], RateLimitExceededError)
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.order == [0, 1, 2, 3, 4, *"abcde"]


@faked
async def test_case_81_nobody_overtakes_after_tokens_went_back_and_a_penalty(world):
    """A newcomer stands behind the last one, where a penalty has put it."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 5)
    calls = await in_turn(*((limit, value) for value in ["bad", *range(1, 13)]))
    await asyncio.sleep(0.45)
    assert starts.order == ["bad", *range(1, 7)]
    # Two in the middle, and after the penalty the last one.
    calls[8].cancel()
    calls[9].cancel()
    await asyncio.sleep(0.1)
    calls[12].cancel()
    await quiet()
    await limit.execute("late", WorkflowContext())
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen[7:-2] == [(7, 5.6), (10, 6.2)]
    assert sorted(starts.seen[-2:], key=str) == [("late", 6.4), (11, 6.4)]


@pytest.mark.parametrize("where", ["before", "after"])
@every_algorithm
@faked
async def test_case_81_who_is_cancelled_while_redis_is_asked_takes_nothing(
    world, algorithm, where
):
    """The answer comes too late, and is given back."""
    starts, client = Starts(), world.client(Slow)
    limit = world.limit(starts, 1, client, algorithm=algorithm)
    other = world.limit(starts, 1, algorithm=algorithm, max_wait=0)
    await limit.execute("a", WorkflowContext())
    await asyncio.sleep(10)
    setattr(client, where, [0.1])
    task = call(limit, "b")
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert asyncio.get_running_loop().time() == 10.05
    await asyncio.sleep(0.1)
    assert await other.execute("c", WorkflowContext()) == "c"
    assert starts.order == ["a", "c"]


@pytest.mark.parametrize("turns", range(14))
@every_algorithm
@faked
async def test_case_81_whenever_a_call_is_cancelled_it_takes_nothing(
    world, algorithm, turns
):
    """At whichever turn of the loop it comes."""
    starts = Starts()
    limit = world.limit(starts, 1, algorithm=algorithm, period=10)
    await limit.execute("a", WorkflowContext())
    task = call(limit, "b")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    await quiet()
    await limit.execute("c", WorkflowContext())
    assert starts.seen == [("a", 0), ("c", 10)]


@faked
async def test_case_81_a_reservation_of_an_earlier_server_is_none_of_a_later(world):
    """A server that has forgotten everything is not told to give back."""
    starts = Starts()
    limit = world.limit(starts, 1, period=10)
    await limit.execute("a", WorkflowContext())
    task = call(limit, "b")
    await asyncio.sleep(1)
    await world.client().flushall()
    await limit.execute("c", WorkflowContext())
    reserved = call(limit, "d")
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    await quiet()
    await asyncio.gather(reserved, call(limit, "e"))
    assert starts.seen == [("a", 0), ("c", 1), ("d", 11), ("e", 21)]


# --- penalties ------------------------------------------------------------------------


@every_algorithm
@faked
async def test_a_penalty_holds_in_all_processes(world, algorithm):
    """Who waits goes on waiting for so much longer, in order; who comes, behind."""
    starts, events = Starts(), Events()
    one, other = (
        world.limit(fails_late(starts), 1, algorithm=algorithm) for _ in range(2)
    )
    with listening(observers=(events,)):
        calls = await in_turn((one, "bad"), (other, "a"), (other, "b"))
        await asyncio.sleep(0.75)
        calls.append(call(other, "c"))
        await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen == [("bad", 0), ("a", 6), ("b", 7), ("c", 8)]
    assert events.detail("rate_limit.penalized") == [{"seconds": 5}]
    assert (one.stats.penalties, other.stats.penalties) == (1, 0)


@every_algorithm
@faked
async def test_after_a_penalty_the_next_starts_when_it_is_over(world, algorithm):
    """Where nobody waits, exactly then; and a bucket does not burst."""
    starts = Starts()
    one, other = (
        world.limit(fails_late(starts), 10, algorithm=algorithm) for _ in range(2)
    )
    await call_all(one, ["bad"])
    await call_all(other, ["a", "b", "c"])
    rest = [5.5, 5.5] if algorithm == "sliding_window" else [5.6, 5.7]
    assert starts.times == [0, 5.5, *rest]


@every_algorithm
@faked
async def test_nobody_starts_during_a_penalty_however_cheap(world, algorithm):
    """A part of a unit is there before a whole one is."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 1, algorithm=algorithm, cost=0.25)
    await call_all(limit, ["bad"])
    await call_all(limit, ["a"])
    assert starts.seen == [("bad", 0), ("a", 5.5)]


@faked
async def test_after_a_penalty_a_newcomer_does_not_overtake_in_a_window(world):
    """What had left the window by then makes no room before who was put off."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 3, algorithm="sliding_window")
    calls = await in_turn(*((limit, value) for value in ["bad", "x", "y", "a"]))
    await asyncio.sleep(2)
    calls.append(call(limit, "b"))
    await asyncio.gather(*calls, return_exceptions=True)
    assert starts.seen[3:] == [("a", 6), ("b", 6)]


@faked
async def test_a_penalty_is_for_its_key_alone(world):
    """Another tenant is not made to wait."""
    starts = Starts()
    limit = world.limit(fails_late(starts), key=tenant)
    await call_all(limit, ["bad"], session_id="ada")
    await call_all(limit, ["x"], session_id="bob")
    await call_all(limit, ["y"], session_id="ada")
    assert starts.seen == [("bad", 0), ("x", 0.5), ("y", 5.5)]


@every_algorithm
@faked
async def test_penalties_that_overlap_are_not_added_up(world, algorithm):
    """Ten calls that get the same answer wait once."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 20, algorithm=algorithm, period=0.1)
    await call_all(limit, ["bad"] * 10)
    late = call(limit, "x")
    await late
    # One after the other is told by the server, and the last one last.
    assert starts.times[-1] == pytest.approx(5.5, abs=0.06)


@every_algorithm
@faked
async def test_a_penalty_that_is_too_long_turns_away_who_waits(world, algorithm):
    """When it would have started, it learns that it is too late; nothing is taken."""
    starts = Starts()
    one, other = (
        world.limit(fails_late(starts), 1, algorithm=algorithm) for _ in range(2)
    )
    bad = call(one, "bad")
    await quiet()
    with pytest.raises(RateLimitExceededError, match="could start in 5 s") as caught:
        await other.execute("hurried", WorkflowContext(deadline=4))
    assert caught.value.retry_after == 5
    assert asyncio.get_running_loop().time() == 1
    await asyncio.gather(bad, return_exceptions=True)
    await quiet()
    await other.execute("patient", WorkflowContext())
    assert starts.order == ["bad", "patient"]
    # Not before, and at most one unit later: the time of the one that was put off.
    assert 5.5 <= starts.times[1] <= 6
    assert (other.stats.rejected, other.stats.abandoned) == (1, 0)


@every_algorithm
@faked
async def test_who_is_cancelled_after_a_penalty_gives_back_as_well(world, algorithm):
    """Its start has moved, and is found all the same."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 1, algorithm=algorithm)
    calls = await in_turn((limit, "bad"), (limit, "a"), (limit, "b"))
    await asyncio.sleep(0.75)
    calls[2].cancel()
    await quiet()
    await limit.execute("c", WorkflowContext())
    assert starts.seen == [("bad", 0), ("a", 6), ("c", 7)]


# --- Redis is away, slow or confused --------------------------------------------------


@faked
async def test_while_redis_is_away_each_process_limits_itself(world):
    """Calls are made, in order, at the rate; and it is told."""
    starts, events = Starts(), Events()
    limit = world.limit(starts, 2)
    world.server.connected = False
    with listening(observers=(events,)):
        await asyncio.gather(*await in_turn(*((limit, n) for n in range(4))))
    assert starts.seen == [(0, 0), (1, 0), (2, 0.5), (3, 1)]
    errors = [d["error"] for d in events.detail("rate_limit.storage_failed")]
    assert len(errors) == 4
    assert isinstance(errors[0], exceptions.ConnectionError)


@every_algorithm
@faked
async def test_what_was_taken_from_redis_counts_when_it_goes_away(world, algorithm):
    """An outage is no second burst."""
    starts = Starts()
    limit = world.limit(starts, 2, algorithm=algorithm)
    await call_all(limit, "ab")
    began = asyncio.get_running_loop().time()
    world.server.connected = False
    await call_all(limit, "cd")
    after = {
        "token_bucket": [0.5, 1.0],
        "leaky_bucket": [0.5, 1.0],
        "sliding_window": [1.0, 1.0],
    }
    assert starts.times[2:] == pytest.approx(
        [began + seconds for seconds in after[algorithm]]
    )


@faked
async def test_when_redis_is_back_the_limit_is_shared_again(world):
    """After a moment, in which it is not asked."""
    starts = Starts()
    one, other = (world.limit(starts, 1, period=10, max_wait=0) for _ in range(2))
    world.server.connected = False
    assert await call_all(one, "a") == ["a"]
    assert await call_all(other, "b") == ["b"]
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    assert await call_all(one, "c") == ["c"]
    assert isinstance((await call_all(other, "d"))[0], RateLimitExceededError)


@faked
async def test_an_outage_is_logged_once(world, caplog):
    """Each call that meets it is an event; the log has one line for each outage."""
    limit, events = world.limit(Starts()), Events()
    with listening(observers=(events,)):
        for _ in range(2):
            world.server.connected = False
            await call_all(limit, range(3))
            world.server.connected = True
            await asyncio.sleep(COOL_DOWN_SECONDS)
            await call_all(limit, "x")
    assert events.names == ["rate_limit.storage_failed"] * 6
    assert isinstance(
        events.seen[-1][1]["error"], (LinkDownError, exceptions.RedisError)
    )
    told = [r.levelno for r in caplog.records if r.levelno >= logging.WARNING]
    assert told == [logging.WARNING] * 2
    assert "the rate limit tta:rate:test:" in caplog.text
    assert "goes on without its storage" in caplog.text


@faked
async def test_redis_goes_away_while_a_call_waits(world):
    """Its start is reserved, and it starts; a penalty it cannot hear of."""
    starts = Starts()
    limit = world.limit(starts, 1)
    calls = await in_turn((limit, "a"), (limit, "b"))
    await asyncio.sleep(0.5)
    world.server.connected = False
    await asyncio.gather(*calls)
    assert starts.seen == [("a", 0), ("b", 1)]
    doomed = call(limit, "c", deadline=10)
    await asyncio.sleep(0.5)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await doomed


@faked
async def test_a_penalty_that_redis_does_not_hear_holds_here(world):
    """The error comes through unchanged."""
    starts = Starts()
    limit = world.limit(fails_late(starts), 10)
    bad = call(limit, "bad")
    await asyncio.sleep(0.25)
    world.server.connected = False
    with pytest.raises(Rejected, match="rejected"):
        await bad
    await limit.execute("x", WorkflowContext())
    assert starts.seen == [("bad", 0), ("x", 5.5)]


@faked
async def test_a_redis_that_hangs_costs_one_call_a_moment(world):
    """After that it is left alone for a while."""
    client = world.client(Slow)
    limit = world.limit(Starts(), 100, client)
    client.before = [3600] * 10
    loop = asyncio.get_running_loop()
    await call_all(limit, "a")
    assert loop.time() == pytest.approx(COMMAND_SECONDS)
    await call_all(limit, "bcd")
    assert loop.time() == pytest.approx(COMMAND_SECONDS)


@faked
async def test_rule_05_nobody_waits_for_redis_beyond_a_deadline(world, caplog):
    """A call with little time left is decided here; that is no fault of Redis."""
    client, events = world.client(Slow), Events()
    limit = world.limit(Starts(), 1, client)
    client.before = [0.15] * 9
    loop = asyncio.get_running_loop()
    with listening(observers=(events,)):
        context = WorkflowContext(deadline=0.05)
        assert await limit.execute("x", context) == "x"
    assert loop.time() == pytest.approx(0.05)
    assert events.seen == caplog.records == []
    outer = TimeoutPrimitive(limit, timeout_seconds=0.05)
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        await outer.execute("x", WorkflowContext())
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    "answer", [b"OK", [], [1] * 5, [1] * 7, [b"x"] * 6, [None] * 6, [1, [], 0, 0, 0, 0]]
)
@faked
async def test_an_answer_that_means_nothing_is_an_outage(world, answer):
    """The local limit decides, and the caller notices nothing."""
    client, events = world.client(Slow), Events()
    client.answer = answer
    limit = world.limit(Starts(), 1, client, max_wait=0)
    with listening(observers=(events,)):
        results = await call_all(limit, "a") + await call_all(limit, "b")
    assert results[0] == "a"
    assert isinstance(results[1], RateLimitExceededError)
    details = events.detail("rate_limit.storage_failed")
    assert "what no rate limit asks for" in str(details[0]["error"])


FAR = str(9e14)
STATE = {
    "since": "0",
    "spent": "0",
    "last": "0",
    "gate": "0",
    "shift": "0",
    "number": "0",
    "floor": "0",
    "back": "0",
    "top": "0",
}

PLANTED = {
    "text": lambda client, key: client.set(key, "x"),
    "huge text": lambda client, key: client.set(key, "x" * 1_000_000),
    "list": lambda client, key: client.rpush(key, "x"),
    "pickle": lambda client, key: client.set(key, b"\x80\x04K\x01."),
    "foreign hash": lambda client, key: client.hset(key, "state", "open"),
    "half a state": lambda client, key: client.hset(key, "since", "1"),
    "no number": lambda client, key: client.hset(key, mapping={**STATE, "last": "x"}),
    "nan": lambda client, key: client.hset(key, mapping={**STATE, "spent": "nan"}),
    "inf": lambda client, key: client.hset(key, mapping={**STATE, "gate": "inf"}),
    "negative": lambda client, key: client.hset(key, mapping={**STATE, "spent": "-5"}),
    "far ahead": lambda client, key: client.hset(
        key, mapping={**STATE, "gate": "8999999999999999"}
    ),
    "full in 2100": lambda client, key: client.hset(
        key, mapping={**STATE, "since": "4102444800000000", "last": "4102444800000000"}
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
@every_algorithm
@shared
async def test_what_cannot_be_read_counts_as_absent(world, planted, algorithm):
    """It is thrown away, with an event; the call starts at once."""
    client, events = world.client(), Events()
    limit = world.limit(Starts(), 2, algorithm=algorithm, max_wait=0, period=60)
    await PLANTED[planted](client, limit._shared._keys(None)[0])
    with listening(observers=(events,)):
        assert await call_all(limit, "x") == ["x"]
    assert events.names == ["rate_limit.storage_malformed"]
    results = await call_all(limit, "xx")
    rejected = [r for r in results if isinstance(r, RateLimitExceededError)]
    assert len(rejected) == (2 if algorithm == "leaky_bucket" else 1)
    assert all(seconds > 0 for seconds in (await world.keys()).values())


LOGS = {
    "text": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "no units": lambda client, key: client.zadd(key, {"x": 1, "y:z": 1}),
    "negative units": lambda client, key: client.zadd(key, {"1:-5": 1}),
    "far ahead": lambda client, key: client.zadd(key, {"1:1": 8e15}),
    "for ever": lambda client, key: client.zadd(key, {"1:1": math.inf}),
}


@pytest.mark.parametrize("planted", LOGS)
@shared
async def test_a_log_that_cannot_be_read_counts_as_absent(world, planted):
    """So does the state that belongs to it."""
    client, events = world.client(), Events()
    limit = world.limit(Starts(), 2, algorithm="sliding_window", max_wait=0, period=60)
    assert await call_all(limit, "x") == ["x"]
    log = limit._shared._keys(None)[1]
    if planted in {"text", "list"}:
        await client.delete(log)
    await LOGS[planted](client, log)
    with listening(observers=(events,)):
        assert await call_all(limit, "xx") == ["x", "x"]
    assert events.names == ["rate_limit.storage_malformed"]
    assert isinstance((await call_all(limit, "x"))[0], RateLimitExceededError)


@pytest.mark.parametrize("planted", ["x", "nan", "-5", "1e300", "8999999999999999"])
@faked
async def test_a_shift_that_means_nothing_is_none(world, planted):
    """A call that has waited starts."""
    starts = Starts()
    limit = world.limit(starts, 1)
    calls = [call(limit, value) for value in "ab"]
    await quiet()
    client = world.client()
    await client.hset(limit._shared._keys(None)[0], "shift", planted)
    await asyncio.gather(*calls)
    assert starts.times == [0, 1]


@faked
async def test_a_state_that_became_something_else_holds_nobody_up(world):
    """Who waits starts when it was promised to; it is no outage."""
    starts, events = Starts(), Events()
    limit = world.limit(starts, 1)
    client, [key] = world.client(), limit._shared._keys(None)
    with listening(observers=(events,)):
        calls = [call(limit, value) for value in "abc"]
        await quiet()
        await client.delete(key)
        await client.rpush(key, "x")
        await asyncio.gather(*calls)
    assert starts.times == [0, 1, 2]
    assert set(events.names) == {"rate_limit.delayed"}


@every_algorithm
@faked
async def test_several_long_penalties_put_off_who_waits(world, algorithm):
    """Each time that it wakes it learns of the next one."""
    starts = Starts()
    one, other = (
        world.limit(fails_late(starts, 60), 1, algorithm=algorithm) for _ in range(2)
    )
    await asyncio.gather(call(one, "bad"), return_exceptions=True)
    calls = await in_turn((one, "bad"), (other, "a"))
    await asyncio.gather(*calls, return_exceptions=True)
    # The second one began when the first penalty was over, and failed half a second
    # later.
    assert starts.seen == [("bad", 0), ("bad", 60.5), ("a", 121.5)]


@faked
async def test_who_was_put_off_is_put_off_again(world):
    """The second penalty comes while it waits for the end of the first."""
    starts = Starts()

    async def llm(value):
        await starts(value)
        if value != "a":
            await asyncio.sleep(value)
            raise Rejected(retry_after=60, status_code=429)

    limit = world.limit(llm, 1, burst=2)
    calls = await in_turn((limit, 0.5), (limit, 40), (limit, "a"))
    await asyncio.gather(*calls, return_exceptions=True)
    # It was due at 1; then nobody started until 60.5, and then until 100.
    assert starts.seen == [(0.5, 0), (40, 0), ("a", 100.5)]


@faked
async def test_holes_in_the_past_are_forgotten(world):
    """A limit that is always busy does not fill Redis with what was given back."""
    limit = world.limit(Starts(), 10, algorithm="leaky_bucket")
    for _ in range(50):
        calls = [call(limit, value) for value in range(10)]
        await quiet()
        for task in calls[1:-1:2]:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        sizes = await world.client().hlen(limit._shared._keys(None)[0])
        assert sizes <= 9 + 60


@faked
async def test_max_wait_is_counted_from_the_answer(world):
    """What Redis has agreed to is not refused because its answer took a moment."""
    client = world.client(Slow)
    limit = world.limit(Starts(), 1, client, max_wait=1)
    client.after = [0.01] * 9
    results = await asyncio.gather(*await in_turn((limit, "a"), (limit, "b")))
    assert results == ["a", "b"]
    client.after = [0.01] * 9
    hurried = WorkflowContext(deadline=asyncio.get_running_loop().time() + 0.985)
    with pytest.raises(RateLimitExceededError, match="the deadline"):
        await limit.execute("c", hurried)


@faked
async def test_errands_leave_no_cyclic_garbage(world):
    """Outages, rejections, penalties and cancellations."""
    client = world.client(Slow)
    client.answer = b"OK"
    confused = world.limit(Starts(), 1, client, max_wait=0)
    limit = world.limit(Starts(fails={"x": Rejected(status_code=429)}), 1, max_wait=0)

    async def run(times):
        for _ in range(times):
            await call_all(confused, "x")
            await call_all(limit, "x")
            await asyncio.sleep(0.5)
        await quiet()

    async def garbage():
        with only_new_garbage():
            await run(20)
            return gc.collect()

    await run(3)
    assert await garbage() == 0


def test_a_waiter_that_is_closed_after_its_loop_raises_nothing():
    """There is nobody left to give its start back; that is over by itself."""
    world = FakeWorld()
    limit = world.limit(Starts(), 1)

    async def waiting():
        await limit.execute("a", WorkflowContext())
        task = call(limit, "b")
        await quiet()
        await world.finish()
        return task

    with VirtualClock() as clock:
        loop = clock.new_loop()
        task = loop.run_until_complete(waiting())
        assert limit.stats.waiting == 1
        loop.close()
        task._log_destroy_pending = False
        task.get_coro().close()
    assert limit.stats.waiting == 0
