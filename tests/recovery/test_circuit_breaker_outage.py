"""Shared circuit breakers whose Redis is away, slow or confused; and cancellation."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import weakref

import pytest
from fakeredis import FakeAsyncRedis
from redis import exceptions

from pytest_tta.clock.clock import VirtualClock
from tests.garbage import only_new_garbage
from tests.recovery.circuit_tools import (
    OPEN,
    FakeWorld,
    RealWorld,
    Service,
    begin,
    faked,
    quiet,
    tell,
)
from tests.recovery.doubles import CANCELLED, Boom, Events
from tests.redis_server import private_redis
from tests.repository.source import ROOT
from tta_primitives import WorkflowContext, step
from tta_primitives.door import Observer, listening
from tta_primitives.errors import CircuitIsolatedError, CircuitOpenError
from tta_primitives.recovery import CircuitBreakerPrimitive, TimeoutPrimitive
from tta_primitives.redis_link import COMMAND_SECONDS, COOL_DOWN_SECONDS, LinkDownError


class Slow(FakeAsyncRedis):
    """A client that counts commands, and waits before or after each as it is told.

    Attributes:
        before: Seconds to wait before each command, in the order of the commands.
        after: Seconds to wait after each.
        sent: How many commands there were.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.before, self.after = [], []
        self.sent = 0

    async def execute_command(self, *parts, **options):
        self.sent += 1
        before = self.before.pop(0) if self.before else 0
        after = self.after.pop(0) if self.after else 0
        await asyncio.sleep(before)
        answer = await super().execute_command(*parts, **options)
        await asyncio.sleep(after)
        return answer


class Confused(FakeAsyncRedis):
    """A client that answers scripts with something else."""

    answer = None

    async def execute_command(self, *parts, **options):
        if parts[0] == "EVALSHA":
            return self.answer
        return await super().execute_command(*parts, **options)


@faked
async def test_case_51_while_redis_is_away_each_process_decides_by_itself(world):
    """Calls are made, own failures open the breaker here, and only here."""
    one, other = world.breaker(failure_threshold=2), world.breaker(failure_threshold=2)
    await tell(one, "ok")
    world.server.connected = False
    assert await tell(one, "ok", Boom(), Boom(), "x") == [
        "ok",
        Boom,
        Boom,
        CircuitOpenError,
    ]
    assert await tell(other, "ok") == ["ok"]
    assert (one.state, other.state) == ("open", "closed")
    await asyncio.sleep(world.pause)
    assert await tell(one, "ok") == ["ok"]
    assert one.state == "closed"


@faked
async def test_case_51_the_local_breaker_has_seen_its_own_failures(world):
    """What went wrong before Redis went away is counted on."""
    guarded = world.breaker(failure_threshold=4)
    await tell(guarded, Boom())
    world.server.connected = False
    await tell(guarded, Boom())
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    await tell(guarded, Boom())
    world.server.connected = False
    assert await tell(guarded, Boom(), "x") == [Boom, CircuitOpenError]
    rate = world.breaker(failure_threshold=None, failure_rate=0.5, minimum_calls=4)
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    await rate.close()
    await tell(rate, "ok", "ok", Boom())
    world.server.connected = False
    assert await tell(rate, Boom(), "x") == [Boom, CircuitOpenError]


@faked
async def test_case_51_the_local_breaker_stands_as_the_shared_one_was_last_heard(
    world,
):
    """Open for the rest of the break, half-open with its probes, or isolated."""
    one, other = world.breaker(), world.breaker()
    await tell(one, Boom())
    await asyncio.sleep(10)
    await tell(other, "x")
    world.server.connected = False
    await asyncio.sleep(15)
    with pytest.raises(CircuitOpenError, match=OPEN) as caught:
        await other.execute("x", WorkflowContext())
    assert caught.value.retry_after == 5
    await asyncio.sleep(5)
    assert await tell(other, "ok") == ["ok"]
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    await other.isolate()
    world.server.connected = False
    assert await tell(other, "x") == [CircuitIsolatedError]


@faked
async def test_case_51_when_redis_is_back_the_shared_state_decides_again(world):
    """Open here, closed there: closed; and the other way round."""
    one, other = world.breaker(), world.breaker()
    await tell(one, "ok")
    world.server.connected = False
    assert await tell(one, Boom(), "x") == [Boom, CircuitOpenError]
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    assert await tell(one, "ok") == ["ok"]
    assert one.state == "closed"
    world.server.connected = False
    await tell(one, "ok")
    world.server.connected = True
    await tell(other, Boom())
    await asyncio.sleep(COOL_DOWN_SECONDS)
    assert await tell(one, "x") == [CircuitOpenError]
    assert one.stats.retry_after == world.pause - COOL_DOWN_SECONDS


@faked
async def test_a_probe_whose_end_redis_does_not_hear_decides_here(world):
    """It was admitted by Redis, which is away when it ends."""
    for outcome, state in (("ok", "closed"), (Boom(), "open")):
        guarded = world.breaker()
        await guarded.close()
        await tell(guarded, Boom())
        await asyncio.sleep(world.pause)
        probe = begin(guarded, (5, outcome))
        await asyncio.sleep(1)
        world.server.connected = False
        await asyncio.wait([probe])
        assert guarded.state == state
        world.server.connected = True
        await asyncio.sleep(COOL_DOWN_SECONDS)


@faked
async def test_an_outage_is_told_to_observers_and_logged_once(world, caplog):
    """Each call that meets it is an event; the log has one line for each outage."""
    guarded, events = world.breaker(), Events()
    with listening(observers=(events,)):
        for _ in range(2):
            world.server.connected = False
            await tell(guarded, "ok", "ok", "ok")
            world.server.connected = True
            await asyncio.sleep(COOL_DOWN_SECONDS)
            await tell(guarded, "ok")
    assert events.names == ["breaker.storage_failed"] * 6
    first, second, *_ = events.detail("breaker.storage_failed")
    assert isinstance(first["error"], exceptions.ConnectionError)
    assert isinstance(second["error"], LinkDownError)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "tta:breaker:test goes on without its storage" in caplog.text


@faked
async def test_a_redis_that_hangs_costs_one_call_a_moment(world):
    """After that it is left alone for a while, and probed then."""
    client = world.client(Slow)
    guarded = world.breaker(client=client)
    client.before = [3600] * 10
    loop = asyncio.get_running_loop()
    assert await tell(guarded, "ok") == ["ok"]
    # The end of the call needs no report: nothing has failed.
    assert loop.time() == pytest.approx(COMMAND_SECONDS)
    assert await tell(guarded, *["ok"] * 5) == ["ok"] * 5
    assert loop.time() == pytest.approx(COMMAND_SECONDS)
    await asyncio.sleep(COOL_DOWN_SECONDS)
    await tell(guarded, "ok", "ok")
    assert loop.time() == pytest.approx(2 * COMMAND_SECONDS + COOL_DOWN_SECONDS)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"OK",
        [],
        [1] * 11,
        [1, b"ajar", 0, 0, 0, 0, 0, 0, b"", 1, 0],
        [1, b"closed", b"x", 0, 0, 0, 0, 0, b"", 1, 0],
        [1, b"closed", 0, 0, 0, 0, 0, 0, b"\xff", 1, 0],
        [1, None, 0, 0, 0, 0, 0, 0, b"", 1, 0],
        [1, b"closed", 0, 0, 0, 0, 0, 0, b"", 1, 0, 0],
    ],
)
@faked
async def test_an_answer_that_means_nothing_is_an_outage(world, answer):
    """The local breaker decides, and the caller notices nothing."""
    client, events = world.client(Confused), Events()
    client.answer = answer
    guarded = world.breaker(client=client)
    with listening(observers=(events,)):
        assert await tell(guarded, "ok", Boom(), "x") == [
            "ok",
            Boom,
            CircuitOpenError,
        ]
    assert set(events.names) == {
        "breaker.storage_failed",
        "breaker.opened",
        "breaker.rejected",
    }
    details = events.detail("breaker.storage_failed")
    assert "what no circuit breaker asks for" in str(details[0]["error"])


@pytest.mark.parametrize("where", ["before", "after"])
@faked
async def test_who_is_cancelled_while_redis_is_asked_leaks_no_permit(world, where):
    """The place of a probe that never began is free for the next."""
    client = world.client(Slow)
    guarded, other = world.breaker(client=client), world.breaker()
    await tell(guarded, Boom())
    await asyncio.sleep(world.pause)
    setattr(client, where, [0.1])
    task = begin(guarded, "ok")
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    assert asyncio.get_running_loop().time() == world.pause + 0.05
    await asyncio.sleep(0.1)
    assert guarded.primitive._function.calls == 1
    assert await tell(other, "ok") == ["ok"]
    assert other.state == "closed"


@pytest.mark.parametrize("turns", range(12))
@faked
async def test_whenever_a_probe_is_cancelled_no_permit_leaks(world, turns):
    """At whichever turn of the loop it comes."""
    one, other = world.breaker(), world.breaker()
    await tell(one, Boom())
    await asyncio.sleep(world.pause)
    task = begin(one, (1, "ok"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    await quiet()
    assert await tell(other, "ok") == ["ok"]


@pytest.mark.parametrize("where", ["before", "after"])
@faked
async def test_who_is_cancelled_while_redis_is_told_has_been_counted(world, where):
    """The call had ended; what it has to say is said."""
    client = world.client(Slow)
    guarded, other = world.breaker(client=client), world.breaker()
    # So that Redis knows the scripts.
    await tell(guarded, Boom())
    await guarded.close()
    # The first is for admission.
    setattr(client, where, [0, 0.1])
    task = begin(guarded, Boom())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=CANCELLED):
        await task
    await asyncio.sleep(0.1)
    assert await tell(other, "x") == [CircuitOpenError]


@faked
async def test_rule_05_nobody_waits_for_redis_beyond_a_deadline(world, caplog):
    """A call with little time left is decided here."""
    client = world.client(Slow)
    guarded = world.breaker(client=client)
    client.before = [0.15] * 9
    loop, events = asyncio.get_running_loop(), Events()
    with listening(observers=(events,)):
        context = WorkflowContext(deadline=0.05)
        assert await guarded.execute("ok", context) == "ok"
    assert loop.time() == pytest.approx(0.05)
    # That is no fault of Redis.
    assert events.seen == caplog.records == []
    outer = TimeoutPrimitive(guarded, timeout_seconds=0.05)
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        await outer.execute("ok", WorkflowContext())
    assert loop.time() == pytest.approx(0.1)
    await asyncio.sleep(1)


@faked
async def test_an_answer_that_was_overtaken_changes_nothing(world):
    """It is from before the breaker opened, and must not close it here."""
    client, seen = world.client(Slow), []
    guarded = world.breaker(client=client, on_state_change=seen.append)
    await tell(guarded, "ok")
    client.after = [0.1]
    early = begin(guarded, "ok")
    await asyncio.sleep(0.01)
    await tell(guarded, Boom())
    assert guarded.state == "open"
    assert await early == "ok"
    assert guarded.state == "open"
    assert [change.after for change in seen] == ["open"]


@faked
async def test_a_success_costs_one_command_while_there_is_nothing_to_reset(world):
    """And one more while there is, or where successes are counted."""
    client = world.client(Slow)
    guarded = world.breaker(client=client, failure_threshold=5)
    await tell(guarded, "ok")
    client.sent = 0
    await tell(guarded, *["ok"] * 5)
    assert client.sent == 5
    await tell(guarded, Boom())
    client.sent = 0
    await tell(guarded, "ok", "ok")
    assert client.sent == 3
    rate = world.breaker(client=client, failure_threshold=None, failure_rate=0.5)
    await tell(rate, "ok")
    client.sent = 0
    await tell(rate, "ok")
    assert client.sent == 2


@faked
async def test_what_is_done_by_hand_and_does_not_arrive_is_an_error(world):
    """It is done here while Redis is away; whoever asked for it must know."""
    one, other = world.breaker(), world.breaker()
    await tell(one, "ok")
    world.server.connected = False
    with pytest.raises(exceptions.ConnectionError, match="a connection error"):
        await one.isolate()
    assert await tell(one, "x") == [CircuitIsolatedError]
    with pytest.raises(OSError, match="could not be reached"):
        await one.close()
    assert await tell(one, "ok") == ["ok"]
    with pytest.raises(OSError, match="could not be reached"):
        await one.isolate()
    world.server.connected = True
    await asyncio.sleep(COOL_DOWN_SECONDS)
    assert await tell(one, "ok") == ["ok"]
    assert await tell(other, "ok") == ["ok"]


@faked
async def test_breakers_of_one_client_and_name_are_one(world):
    """Within a process too; another namespace is another breaker."""
    client = world.client()
    one, twin = world.breaker(client=client), world.breaker(client=client)
    apart = CircuitBreakerPrimitive(Service(), storage=client, namespace="other")
    await tell(one, Boom())
    assert await tell(twin, "x") == [CircuitOpenError]
    assert await tell(apart, "ok") == ["ok"]


@step
async def ask(question):
    """Answer, or raise what is asked for."""
    if isinstance(question, Exception):
        raise question
    return question


@faked
async def test_a_namespace_is_derived_from_what_is_wrapped(world):
    """The same function is the same breaker; one without a name needs a namespace."""
    one, other = (
        CircuitBreakerPrimitive(ask, storage=world.client(), failure_threshold=1)
        for _ in range(2)
    )
    await tell(one, Boom())
    assert await tell(other, "x") == [CircuitOpenError]
    with pytest.raises(ValueError, match=r"holds a lambda.* namespace="):
        CircuitBreakerPrimitive(lambda value: value, storage=world.client())


@faked
async def test_whoever_is_told_of_an_error_in_an_outage_lets_it_go(world):
    """No frame is left that holds its own error, with the collector off."""
    seen = []

    def tracked(error):
        seen.append(weakref.ref(error))
        return error

    class Ear(Observer):
        def event(self, call, name, detail):
            if name == "breaker.storage_failed":
                tracked(detail["error"])

    async def fails(value):
        raise tracked(Boom())

    guarded = world.breaker(fails, failure_threshold=9)
    world.server.connected = False
    # What the client itself raises first may be in a cycle of its own.
    await tell(guarded, "x")
    seen.clear()
    with only_new_garbage():
        with listening(observers=(Ear(),)):
            await tell(guarded, "x", "x", "x")
        await quiet()
        assert len(seen) == 6
        assert [one() for one in seen] == [None] * 6


def test_a_probe_that_is_closed_after_its_loop_raises_nothing():
    """There is nobody left to give its permit back; that expires by itself."""
    world = FakeWorld()
    guarded = world.breaker()

    async def probing():
        await tell(guarded, Boom())
        await asyncio.sleep(world.pause)
        task = begin(guarded, (60, "ok"))
        await asyncio.sleep(1)
        await world.finish()
        return task

    with VirtualClock() as clock:
        loop = clock.new_loop()
        task = loop.run_until_complete(probing())
        loop.close()
        task._log_destroy_pending = False
        task.get_coro().close()
    assert guarded.state == "half_open"
    assert not guarded._circuit.episode.probes


SCRIPT = """
import asyncio, json, sys
from redis.asyncio import Redis
from tta_primitives import WorkflowContext
from tta_primitives.errors import CircuitOpenError
from tta_primitives.recovery import CircuitBreakerPrimitive

async def service(told):
    if told == "fail":
        raise ConnectionError("down")
    return told

async def main(host, port, namespace):
    client = Redis(host=host, port=int(port))
    breaker = CircuitBreakerPrimitive(
        service, failure_threshold=3, recovery_timeout=0.3, storage=client,
        namespace=namespace,
    )
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            told = await breaker.execute(line.strip(), WorkflowContext())
        except Exception as error:
            told = type(error).__name__
        print(json.dumps([told, breaker.state]), flush=True)
    await client.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Process:
    """Another process with a breaker of its own, that is told what to do by lines."""

    def __init__(self, world):
        host, port = world.address
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, host, str(port), world.namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    async def tell(self, told):
        return json.loads(await asyncio.to_thread(self._ask, told))

    def _ask(self, told):
        self._process.stdin.write(f"{told}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def end(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


def test_case_51_two_processes_share_one_breaker():
    """Failures of both are counted, and what one opens the other finds open."""

    async def run():
        world = RealWorld()
        ours = world.breaker(failure_threshold=3, recovery_timeout=0.3)
        theirs = Process(world)
        try:
            assert await theirs.tell("ok") == ["ok", "closed"]
            await tell(ours, Boom(), Boom())
            assert await theirs.tell("fail") == ["ConnectionError", "open"]
            assert await tell(ours, "x") == [CircuitOpenError]
            await asyncio.sleep(0.3)
            assert await tell(ours, Boom()) == [Boom]
            assert await theirs.tell("x") == ["CircuitOpenError", "open"]
            await asyncio.sleep(0.3)
            assert await theirs.tell("ok") == ["ok", "closed"]
            assert await tell(ours, "ok") == ["ok"]
            await ours.isolate()
            assert await theirs.tell("x") == ["CircuitIsolatedError", "isolated"]
        finally:
            theirs.end()
            await world.finish()

    asyncio.run(run())


@pytest.fixture
def hurt(tmp_path):
    """A Redis of the test's own, as a world that may be hurt."""
    with private_redis(tmp_path) as server:
        world = RealWorld((server.host, server.port))
        world.process = server
        yield world


def test_case_51_a_redis_that_is_restarted_hung_and_killed_loses_no_call(hurt):
    """Under load, every call is executed or rejected by a breaker that was open."""
    server = hurt.process

    async def load(guarded, until):
        seen = []
        while not until.is_set():
            seen += await tell(guarded, "ok")
            await asyncio.sleep(0.001)
        return seen

    async def run():
        breakers = [hurt.breaker(), hurt.breaker()]
        until = asyncio.Event()
        tasks = [asyncio.create_task(load(one, until)) for one in breakers * 4]
        for harm in (
            server.restart,
            server.hang,
            server.wake,
            server.kill,
            server.start,
        ):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(harm)
        await asyncio.sleep(0.1)
        until.set()
        seen = {outcome for task in tasks for outcome in await task}
        assert seen == {"ok"}
        assert [one.stats.failures for one in breakers] == [0, 0]
        await shares_again(*breakers)
        await hurt.finish()

    asyncio.run(run())


async def shares_again(one, other):
    """Wait until Redis decides again: what one opens the other finds open."""
    for _ in range(300):
        with_redis = await tell(one, Boom()) == [Boom]
        if with_redis and await tell(other, "x") == [CircuitOpenError]:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the breakers do not share a state again")
