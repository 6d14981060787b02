"""Circuit breakers that share a Redis: one state for all, and the local one without."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress

import pytest

from tests.recovery.circuit_tools import (
    OPEN,
    PROBED,
    begin,
    faked,
    quiet,
    shared,
    tell,
)
from tests.recovery.doubles import CANCELLED, Boom, Events, Stream, chunks_of
from tta_primitives import WorkflowContext
from tta_primitives.door import listening
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitIsolatedError,
    CircuitOpenError,
)


@shared
async def test_case_51_when_one_opens_the_other_rejects_within_one_read(world):
    """Two processes with one Redis: the first call after it is rejected by both."""
    one, other = world.breaker(), world.breaker()
    assert await tell(other, "ok") == ["ok"]
    assert await tell(one, Boom()) == [Boom]
    with pytest.raises(CircuitOpenError, match=OPEN) as caught:
        await other.execute("x", WorkflowContext())
    assert 0 < caught.value.retry_after <= world.pause
    assert (one.state, other.state) == ("open", "open")
    assert other.primitive._function.calls == 1
    await asyncio.sleep(world.pause)
    assert await tell(other, "ok") == ["ok"]
    assert await tell(one, "ok") == ["ok"]
    assert (one.state, other.state) == ("closed", "closed")


@shared
async def test_case_36_failures_in_a_row_are_those_of_all(world):
    """Whoever makes them; and a success of anybody starts the count anew."""
    one, other = (world.breaker(failure_threshold=4) for _ in range(2))
    await tell(one, Boom(), Boom())
    await tell(other, Boom(), "ok")
    await tell(one, Boom())
    await tell(other, Boom(), Boom())
    assert (one.state, other.state) == ("closed", "closed")
    await tell(one, Boom())
    assert await tell(other, "x") == [CircuitOpenError]


@shared
async def test_case_36_successes_among_failures_that_end_together_count(world):
    """A hundred calls under way at once, a tenth of which fail, are no row of ten."""
    guarded = world.breaker(failure_threshold=3)
    pace = world.pause / 100
    told = [(pace * n, Boom() if n % 10 == 0 else "ok") for n in range(1, 101)]
    await asyncio.gather(*(begin(guarded, one) for one in told), return_exceptions=True)
    assert guarded.stats.failures == 10
    assert guarded.state == "closed"


@shared
async def test_case_37_a_rate_is_that_of_all(world):
    """Half of ten calls of two processes fail."""
    options = {"failure_threshold": None, "failure_rate": 0.5, "window": 600}
    one, other = (world.breaker(**options) for _ in range(2))
    await tell(one, "ok", "ok", "ok", Boom(), Boom())
    await tell(other, "ok", "ok", Boom(), Boom())
    assert (one.state, other.state) == ("closed", "closed")
    await tell(one, Boom())
    assert await tell(other, "x") == [CircuitOpenError]


@shared
async def test_case_37_calls_leave_the_window_of_all(world):
    """What is older does not count, and is not kept."""
    window = world.pause * 4
    options = {"failure_threshold": None, "failure_rate": 0.5, "minimum_calls": 4}
    one, other = (world.breaker(window=window, **options) for _ in range(2))
    await tell(one, Boom(), Boom(), Boom())
    await asyncio.sleep(window)
    await tell(other, Boom())
    assert other.state == "closed"
    found = await world.client().hgetall(world.key)
    assert len([field for field in found if field.startswith(b"calls:")]) == 1


@faked
async def test_case_37_the_window_of_all_slides_in_steps_of_a_tenth(world):
    """A failure counts for nine tenths of it at least, and for no more than all."""
    for pause, state in ((27, "open"), (27.1, "closed")):
        guarded = world.breaker(
            failure_threshold=None, failure_rate=0.5, minimum_calls=2, window=30
        )
        await guarded.close()
        # To the end of a step of three seconds, and to the end of one later on.
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(3 - now % 3 + 2.9)
        await tell(guarded, Boom())
        await asyncio.sleep(pause)
        await tell(guarded, Boom())
        assert guarded.state == state


@shared
async def test_case_38_only_so_many_probes_execute_in_all_processes(world):
    """Of a hundred callers in two processes, the others are rejected."""
    breakers = [world.breaker(half_open_max_calls=3) for _ in range(2)]
    await tell(breakers[0], Boom())
    await asyncio.sleep(world.pause)
    tasks = [begin(breakers[n % 2], (world.pause / 2, "ok")) for n in range(100)]
    await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks]
    assert errors.count(None) == 3
    assert {type(error) for error in errors} == {type(None), CircuitOpenError}
    assert any(PROBED in str(error) for error in errors)
    assert await tell(breakers[1], "ok") == ["ok"]


@pytest.mark.parametrize("outcome", ["ok", Boom()])
@shared
async def test_case_39_a_call_from_before_the_break_has_no_vote(world, outcome):
    """Not in the process that it belongs to, and not in any other."""
    one, other = (world.breaker(half_open_max_calls=2) for _ in range(2))
    early = begin(one, (1.5 * world.pause, outcome))
    await quiet()
    await asyncio.sleep(0.1 * world.pause)
    await tell(other, Boom())
    await asyncio.sleep(world.pause)
    probe = begin(other, (world.pause, "ok"))
    await asyncio.wait([early])
    rejected = begin(one, (0.9 * world.pause, KeyError()))
    await asyncio.sleep(0.1 * world.pause)
    assert one.state == "half_open"
    rejected.cancel()
    await asyncio.wait([rejected])
    await probe
    assert other.state == "closed"


@shared
async def test_case_40_a_cancelled_probe_gives_its_place_back(world):
    """The other process's next call is a probe."""
    one, other = world.breaker(), world.breaker()
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    probe = begin(one, (world.pause, "ok"))
    await asyncio.sleep(world.pause / 5)
    assert await tell(other, "x") == [CircuitOpenError]
    probe.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await probe
    await until_probed(other)
    assert other.state == "closed"


async def until_probed(guarded):
    """Try again until a call is admitted; a place is given back in the background."""
    for _ in range(200):
        with suppress(CircuitOpenError):
            assert await guarded.execute("ok", WorkflowContext()) == "ok"
            return
        await asyncio.sleep(0.001)
    pytest.fail("no probe is admitted")


@pytest.mark.parametrize("error", [KeyError("ignored"), BulkheadFullError("full")])
@shared
async def test_case_41_an_error_that_says_nothing_gives_the_place_back(world, error):
    """Ignored errors and rejections from below."""
    one, other = (world.breaker(ignore=KeyError) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    assert await tell(one, error) == [type(error)]
    await until_probed(other)


@shared
async def test_case_42_a_hanging_probe_gives_way(world):
    """After its time the other process probes, and the old one has no vote."""
    timeout = world.pause / 2
    one, other = (world.breaker(half_open_timeout=timeout) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    hangs = begin(one, (1.2 * world.pause, Boom()))
    await asyncio.sleep(timeout / 5)
    assert await tell(other, "x") == [CircuitOpenError]
    await asyncio.sleep(timeout)
    assert await tell(other, (timeout / 2, "ok")) == ["ok"]
    assert other.state == "closed"
    await asyncio.wait([hangs])
    assert await tell(one, "ok") == ["ok"]


@shared
async def test_case_42_a_probe_that_gave_way_has_no_vote_in_the_same_period(world):
    """It fails while two others are still to succeed, and that says nothing."""
    timeout = world.pause / 2
    options = {"half_open_timeout": timeout, "success_threshold": 2}
    one, other = (world.breaker(**options) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    hangs = begin(one, (1.5 * timeout, Boom()))
    await asyncio.sleep(1.1 * timeout)
    assert await tell(other, "ok") == ["ok"]
    await asyncio.wait([hangs])
    assert (one.state, other.state) == ("half_open", "half_open")
    assert await tell(other, "ok") == ["ok"]
    assert other.state == "closed"


@shared
async def test_case_47_a_success_starts_the_breaks_anew(world):
    """The next opening is a first one, whoever has closed it."""
    pauses = [world.pause, 4 * world.pause]
    one, other = (world.breaker(recovery_timeout=lambda n: pauses[n]) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(pauses[0])
    assert await tell(other, "ok") == ["ok"]
    assert await tell(one, Boom()) == [Boom]
    assert one.stats.retry_after == pytest.approx(pauses[0], rel=0.2)


@shared
async def test_case_47_breaks_grow_whoever_opens(world):
    """The number of the opening is that of all processes."""
    pauses = [world.pause, 2 * world.pause, 4 * world.pause]
    one, other = (world.breaker(recovery_timeout=lambda n: pauses[n]) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(pauses[0])
    assert await tell(other, Boom()) == [Boom]
    assert other.stats.retry_after == pytest.approx(pauses[1], rel=0.2)
    await asyncio.sleep(pauses[1])
    assert await tell(one, Boom()) == [Boom]
    assert one.stats.retry_after == pytest.approx(pauses[2], rel=0.2)


@shared
async def test_case_48_slow_calls_are_those_of_all(world):
    """Half of four calls are slow, in two processes."""
    limit = world.pause / 5
    options = {"slow_call_duration": limit, "slow_call_rate": 0.5, "minimum_calls": 4}
    one, other = (world.breaker(**options) for _ in range(2))
    await tell(one, "ok", (1.5 * limit, "ok"))
    await tell(other, "ok")
    assert other.state == "closed"
    assert await tell(other, (1.5 * limit, "ok"), "x") == ["ok", CircuitOpenError]
    assert await tell(one, "x") == [CircuitOpenError]


@shared
async def test_case_48_a_slow_probe_opens_it_again(world):
    """Although it succeeds."""
    limit = world.pause / 5
    options = {"slow_call_duration": limit, "slow_call_rate": 1, "minimum_calls": 1}
    one, other = (world.breaker(**options) for _ in range(2))
    await tell(one, (1.5 * limit, "ok"))
    await asyncio.sleep(world.pause)
    assert await tell(other, (1.5 * limit, "ok"), "x") == ["ok", CircuitOpenError]


@shared
async def test_what_is_done_by_hand_reaches_all(world):
    """Isolated here, rejected there; and closed there, admitted here."""
    one, other = world.breaker(), world.breaker()
    await one.isolate()
    with pytest.raises(CircuitIsolatedError, match="isolated by hand"):
        await other.execute("x", WorkflowContext())
    await asyncio.sleep(2 * world.pause)
    assert await tell(other, "x") == [CircuitIsolatedError]
    await other.close()
    assert await tell(one, "ok") == ["ok"]
    assert (one.state, other.state) == ("closed", "closed")


@shared
async def test_several_probes_may_come_from_several_processes(world):
    """Together they close it."""
    one, other = (world.breaker(success_threshold=2) for _ in range(2))
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    assert await tell(one, "ok") == ["ok"]
    assert one.state == "half_open"
    assert await tell(other, "ok") == ["ok"]
    assert other.state == "closed"


@shared
async def test_case_48_where_slow_calls_open_quick_failures_count_in_a_row_alone(world):
    """Without a failure rate there is none that they could exceed."""
    options = {"slow_call_duration": 60, "slow_call_rate": 0.5, "minimum_calls": 3}
    guarded = world.breaker(failure_threshold=5, **options)
    await tell(guarded, Boom(), Boom(), Boom(), Boom())
    assert guarded.state == "closed"
    await tell(guarded, Boom())
    assert guarded.state == "open"


@shared
async def test_every_state_expires(world):
    """Nothing stays in Redis for ever, whichever state it is in."""
    client, seen = world.client(), []
    guarded = world.breaker(failure_rate=0.5, minimum_calls=1, ignore=KeyError)

    async def note(days=1):
        left = await client.pttl(world.key) / 24 / 3600 / 1000
        seen.append((guarded.state, 0.999 * days < left <= days))

    for told, wait in (("ok", 0), (Boom(), 0), (KeyError(), world.pause), ("ok", 0)):
        await asyncio.sleep(wait)
        await tell(guarded, told)
        await note()
    await guarded.isolate()
    await note(30)
    await client.pexpire(world.key, 14 * 24 * 3600 * 1000)
    await tell(guarded, "x")
    assert await client.pttl(world.key) > 29 * 24 * 3600 * 1000
    assert seen == [
        ("closed", True),
        ("open", True),
        ("half_open", True),
        ("closed", True),
        ("isolated", True),
    ]


JUNK = [
    b"",
    b"nan",
    b"inf",
    b"-1",
    b"1e300",
    b"1.5",
    b"half",
    b"\xff\xfe",
    pickle.dumps({"state": "open"}),
]
FIELDS = [
    "state",
    "episode",
    "openings",
    "failures",
    "successes",
    "permits",
    "ends",
    "pause",
]


@pytest.mark.parametrize("field", FIELDS)
@shared
async def test_a_field_that_cannot_be_read_makes_the_state_absent(world, field):
    """The call is executed, the rest is thrown away, and observers hear of it."""
    guarded, client = world.breaker(), world.client()
    for value in JUNK:
        assert await tell(guarded, Boom(), "x") == [Boom, CircuitOpenError]
        await client.hset(world.key, field, value)
        events = Events()
        with listening(observers=(events,)):
            assert await tell(guarded, "ok") == ["ok"]
        assert events.names == ["breaker.storage_malformed", "breaker.closed"]
        assert await client.exists(world.key) == 0


@pytest.mark.parametrize(
    "plant",
    [
        lambda client, key: client.set(key, pickle.dumps([1])),
        lambda client, key: client.rpush(key, "a", "b"),
        lambda client, key: client.hset(key, "version", "7"),
        lambda client, key: client.hset(key, "state", "ajar"),
        lambda client, key: client.set(key, b"x" * 1_000_000),
    ],
    ids=["pickle", "list", "other version", "other state", "long"],
)
@shared
async def test_a_key_of_somebody_else_counts_as_absent(world, plant):
    """Whatever lies there, calls are executed and a state begins anew."""
    guarded, client = world.breaker(), world.client()
    await plant(client, world.key)
    events = Events()
    with listening(observers=(events,)):
        assert await tell(guarded, "ok") == ["ok"]
    assert events.names == ["breaker.storage_malformed"]
    await plant(client, world.key)
    assert await tell(guarded, Boom(), "x") == [Boom, CircuitOpenError]


@pytest.mark.parametrize("what", ["calls", "failures", "slow"])
@shared
async def test_a_count_that_cannot_be_read_begins_anew(world, what):
    """It is neither an error nor an opening."""
    guarded = world.breaker(
        failure_threshold=None,
        failure_rate=1,
        minimum_calls=2,
        window=36000,
        slow_call_duration=0.001,
        slow_call_rate=1,
    )
    client, events = world.client(), Events()
    await tell(guarded, "ok")
    [calls] = [f for f in await client.hkeys(world.key) if f.startswith(b"calls:")]
    field = calls.replace(b"calls", what.encode())
    with listening(observers=(events,)):
        for junk in (b"many", b"nan", pickle.dumps(3)):
            await client.hset(world.key, field, junk)
            assert await tell(guarded, (0.01, Boom())) == [Boom]
            assert await client.hget(world.key, field) == b"1"
            await guarded.close()
            await tell(guarded, "ok")
    assert events.names.count("breaker.storage_malformed") == 3


@shared
async def test_a_place_whose_time_cannot_be_read_is_free(world):
    """Others may have written there; nobody waits for what they mean."""
    guarded, client = world.breaker(success_threshold=2), world.client()
    await tell(guarded, Boom())
    await asyncio.sleep(world.pause)
    await tell(guarded, "ok")
    for junk in (b"soon", b"nan", b"9e99", b"8999999999999999"):
        await client.hset(world.key, "probe:1", junk)
        assert await tell(guarded, KeyError()) == [KeyError]
        await client.hset(world.key, "state", "half_open")


@shared
async def test_a_server_clock_that_was_set_back_makes_no_break_longer(world):
    """What is left is at most the break itself."""
    guarded, client = world.breaker(), world.client()
    await tell(guarded, Boom())
    await client.hset(world.key, "ends", "8000000000000000")
    assert await tell(guarded, "x") == [CircuitOpenError]
    assert 0 < guarded.stats.retry_after <= world.pause
    await asyncio.sleep(world.pause)
    assert await tell(guarded, "ok") == ["ok"]


@shared
async def test_a_stream_is_shared_too(world):
    """Its place is held until it is closed, and it votes at its end."""
    one = world.breaker(Stream([Boom()], ["a", "b"], ["a", "b"]))
    other = world.breaker(Stream(["a"]))
    chunks, error = await chunks_of(one, "x", WorkflowContext())
    assert (chunks, type(error)) == ([], Boom)
    assert type((await chunks_of(other, "x", WorkflowContext()))[1]) is CircuitOpenError
    await asyncio.sleep(world.pause)
    stream = one.stream("x", WorkflowContext())
    assert await anext(stream) == "a"
    assert type((await chunks_of(other, "x", WorkflowContext()))[1]) is CircuitOpenError
    await stream.aclose()
    await quiet()
    await asyncio.sleep(world.pause / 10)
    assert await chunks_of(one, "x", WorkflowContext()) == (["a", "b"], None)
    assert await chunks_of(other, "x", WorkflowContext()) == (["a"], None)


@shared
async def test_observers_hear_what_a_process_learns(world):
    """Who causes a change is told why, and the others that they were told."""
    one, other, events = world.breaker(), world.breaker(), Events()
    with listening(observers=(events,)):
        await tell(one, Boom())
        await tell(other, "x")
        await asyncio.sleep(world.pause)
        await tell(other, "ok")
        await tell(one, "ok")
    told = [(name, detail.get("reason")) for name, detail in events.seen]
    assert told == [
        ("breaker.opened", "failures"),
        ("breaker.opened", "shared"),
        ("breaker.rejected", None),
        ("breaker.half_opened", "recovery_timeout"),
        ("breaker.closed", "probes_succeeded"),
        ("breaker.closed", "shared"),
    ]
