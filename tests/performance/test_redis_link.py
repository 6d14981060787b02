"""The use of one Redis by all primitives: in one go, bounded, and quick to give up."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import wraps

import fakeredis
import pytest
import redis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.exceptions import ResponseError

from tests.garbage import only_new_garbage
from tests.performance.redis_clients import fake_redis, real_redis
from tests.performance.tools import now, virtual
from tests.services import require_service
from tta_primitives.redis_link import LinkDownError, Lookup, Script, link_to

LENGTHS = Script(
    """
local lengths = {}
for i = 1, #KEYS do lengths[i] = redis.call('STRLEN', KEYS[i]) + tonumber(ARGV[1]) end
return lengths
"""
)
LOOKUP = Lookup(LENGTHS, (0,), lambda key: ("STRLEN", key))


class Wiretap(fakeredis.FakeAsyncRedis):
    """A double that tells what it was asked, and takes its time or fails."""

    def __init__(self, **options) -> None:
        super().__init__(server=fakeredis.FakeServer(), **options)
        self.asked: list[tuple] = []
        self.seconds = 0.0
        self.failure: Exception | None = None

    async def _hear(self, *asked):
        self.asked.append(asked)
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure

    async def execute_command(self, *args, **options):
        await self._hear(args)
        return await super().execute_command(*args, **options)

    def pipeline(self, **options):
        pipeline = super().pipeline(**options)
        execute = pipeline.execute

        async def heard(**how):
            await self._hear(*(args for args, _ in pipeline.command_stack))
            return await execute(**how)

        pipeline.execute = heard
        return pipeline


@pytest.fixture
def client():
    return Wiretap()


@pytest.fixture
def link(client):
    return link_to("storage", client)


def names(client) -> list[list[str]]:
    return [[parts[0] for parts in asked] for asked in client.asked]


@virtual
async def test_one_command_alone_is_sent_as_it_is(client, link) -> None:
    """Answers are bytes, and no batch is made of it."""
    await link.command("SET", "k", b"v")
    assert await link.command("GET", "k") == b"v"
    assert names(client) == [["SET"], ["GET"]]


@virtual
async def test_all_commands_of_one_iteration_travel_together(client, link) -> None:
    """In the order in which they were asked, each with its own answer."""
    commands = [("SET", "a", "1"), ("INCR", "a"), ("GET", "a"), ("GET", "b")]
    got = await asyncio.gather(*(link.command(*parts) for parts in commands))
    assert (got[1:], len(client.asked)) == ([2, b"2", None], 1)


@virtual
async def test_all_keys_of_one_iteration_are_one_question(client, link) -> None:
    """Whoever asks, and also beside other commands."""
    await link.command("MSET", "a", "1", "b", "22")
    client.asked.clear()
    other = link_to("limiter", client)
    got = await asyncio.gather(
        link.look_up(LOOKUP, "a"),
        other.look_up(LOOKUP, "b"),
        link.look_up(LOOKUP, "c"),
        link.command("GET", "a"),
        link.look_up(Lookup(LENGTHS, (5,)), "b"),
    )
    assert got == [1, 2, 0, b"1", 7]
    scripts = [parts for asked in client.asked for parts in asked if "EVAL" in parts[0]]
    assert [parts[2] for parts in scripts if parts[0] == "EVALSHA"] == [3, 1]


@virtual
async def test_one_key_alone_is_one_command(client, link) -> None:
    """Where the look-up has one; a script else, whose text is sent when needed."""
    assert await link.look_up(LOOKUP, "a") == 0
    assert await link.look_up(Lookup(LENGTHS, (5,)), "a") == 5
    assert names(client) == [["STRLEN"], ["EVALSHA"], ["EVAL"]]
    client.asked.clear()
    await link.look_up(Lookup(LENGTHS, (5,)), "a")
    assert names(client) == [["EVALSHA"]]


@virtual
async def test_one_key_beside_a_command_is_a_command(client, link) -> None:
    """Both travel in one go."""
    got = await asyncio.gather(link.look_up(LOOKUP, "a"), link.command("GET", "a"))
    assert (got, len(client.asked)) == ([0, None], 1)


@virtual
async def test_a_wrong_command_harms_no_other(link) -> None:
    """Each gets the answer to its own."""
    commands = [("SET", "a", "x"), ("LPUSH", "a", "y"), ("GET", "a")]
    got = await asyncio.gather(
        *(link.command(*parts) for parts in commands), return_exceptions=True
    )
    assert isinstance(got[1], ResponseError)
    assert got[2] == b"x"
    assert not link.is_away


@pytest.mark.parametrize("leaving", [[0], [1], [0, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@virtual
async def test_who_leaves_takes_nobody_along(client, link, leaving, turns) -> None:
    """Neither the first of a batch nor another, before it leaves or after."""
    client.seconds = 0.01
    await link.command("SET", "a", "1")
    tasks = [asyncio.create_task(link.look_up(LOOKUP, "a")) for _ in range(2)]
    tasks += [asyncio.create_task(link.command("GET", "a")) for _ in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for number in leaving:
        tasks[number].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    for number, (answer, wanted) in enumerate(
        zip(got, [1, 1, b"1", b"1", b"1"], strict=True)
    ):
        if number in leaving:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == wanted


@virtual
async def test_a_hanging_server_costs_each_call_a_moment(client, link) -> None:
    """200 ms for those who wait, nothing for those who come in the second after."""
    client.seconds = 3600
    got = await asyncio.gather(
        *(link.command("GET", "a") for _ in range(3)), return_exceptions=True
    )
    assert now() == 0.2
    assert {type(error) for error in got} == {LinkDownError}
    assert str(got[0]) == "a batch of 3 failed: TimeoutError('no answer within 0.2 s')"
    with pytest.raises(LinkDownError, match="could not be reached a moment ago: Timeo"):
        await link.command("GET", "a")
    assert now() == 0.2
    with pytest.raises(LinkDownError, match="could not be reached a moment ago: Timeo"):
        await link.look_up(LOOKUP, "a")
    assert (now(), link.is_away) == (0.2, True)


@virtual
async def test_one_call_alone_is_told_what_happened(client, link) -> None:
    """The error is the client's own."""
    client.seconds = 3600
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        await link.command("GET", "a")
    client.seconds, client.failure = 0, ConnectionError("refused")
    await asyncio.sleep(2)
    with pytest.raises(ConnectionError, match="refused"):
        await link.command("GET", "a")


@virtual
async def test_one_of_many_finds_out_that_the_server_is_back(client, link) -> None:
    """After a second one asks; while it fails, the others are spared for another."""
    client.failure = ConnectionError("refused")
    for moment in (0.0, 0.5, 1.0, 1.5, 2.0):
        await asyncio.sleep(moment - now())
        got = await asyncio.gather(
            *(link.command("GET", "a") for _ in range(3)), return_exceptions=True
        )
        assert {type(error) for error in got} == {LinkDownError}
    assert len(client.asked) == 3
    client.failure = None
    await asyncio.sleep(3.0 - now())
    assert await link.command("GET", "a") is None
    assert not link.is_away


@virtual
async def test_while_one_finds_out_the_others_are_spared(client, link) -> None:
    """A probe that hangs holds up whoever sent it, and nobody else."""
    client.failure = ConnectionError("refused")
    with pytest.raises(ConnectionError, match="refused"):
        await link.command("PING")
    await asyncio.sleep(1)
    client.failure, client.seconds = None, 3600
    probe = asyncio.create_task(link.command("PING"))
    for _ in range(3):
        await asyncio.sleep(0.05)
        with pytest.raises(LinkDownError, match="could not be reached a moment ago"):
            await link.command("PING")
    assert (now(), len(client.asked)) == (1.15, 2)
    with pytest.raises(TimeoutError, match="no answer within"):
        await probe


@virtual
async def test_a_later_chunk_does_not_wait_for_a_server_that_hangs(
    client, link
) -> None:
    """A batch of many costs no more than one."""
    client.seconds = 3600
    commands = [link.command("GET", f"k{number}") for number in range(1000)]
    commands += [link.look_up(LOOKUP, f"k{number}") for number in range(1000)]
    got = await asyncio.gather(*commands, return_exceptions=True)
    assert {type(error) for error in got} == {LinkDownError}
    assert now() == 0.2


@virtual
async def test_many_commands_are_sent_in_trains(client, link) -> None:
    """Neither too many nor too large, so that each has a moment of its own."""
    await asyncio.gather(*(link.command("GET", f"k{n}") for n in range(300)))
    await asyncio.gather(*(link.command("SET", "k", b"x" * 600_000) for _ in range(3)))
    await asyncio.gather(*(link.look_up(LOOKUP, f"k{n}") for n in range(300)))
    assert [len(asked) for asked in client.asked[:6]] == [128, 128, 44, 1, 1, 1]
    sizes = [parts[2] for asked in client.asked[6:] for parts in asked]
    assert [size for size in sizes if type(size) is int][-3:] == [128, 128, 44]


@virtual
async def test_only_so_many_batches_are_under_way(client, link) -> None:
    """Who comes then waits with the others for the next that comes back."""
    client.seconds = 0.1
    await link.command("SET", "a", "1")
    client.asked.clear()
    tasks = []
    for _ in range(20):
        tasks.append(asyncio.create_task(link.command("GET", "a")))
        await asyncio.sleep(0.001)
    assert len(client.asked) == 8
    assert await asyncio.gather(*tasks) == [b"1"] * 20
    assert [len(asked) for asked in client.asked] == [*[1] * 8, 12]


@virtual
async def test_a_small_pool_is_not_used_up() -> None:
    """Half of it is left to the client's owner."""
    client = Wiretap(max_connections=4)
    link = link_to("storage", client)
    client.seconds = 0.1
    tasks = []
    for _ in range(6):
        tasks.append(asyncio.create_task(link.command("PING")))
        await asyncio.sleep(0.001)
    assert len(client.asked) == 2
    assert await asyncio.gather(*tasks) == [True] * 6


@virtual
async def test_the_last_who_waited_for_a_free_place_may_leave(client, link) -> None:
    """The batch that he was to begin is no trap for those who come next."""
    client.seconds = 0.1
    tasks = []
    for _ in range(10):
        tasks.append(asyncio.create_task(link.command("PING")))
        await asyncio.sleep(0.001)
    for task in tasks[8:]:
        task.cancel()
    await asyncio.sleep(1)
    assert await link.command("PING") is True
    assert [task.cancelled() for task in tasks] == [*[False] * 8, True, True]


def test_loops_one_after_the_other_share_a_link() -> None:
    """What was under way on the one that is gone holds nobody up."""
    client = Wiretap()
    link = link_to("storage", client)
    client.seconds = 0.05
    behind = []

    async def leave_some_behind() -> None:
        for _ in range(9):
            behind.append(asyncio.create_task(link.command("PING")))
            await asyncio.sleep(0.001)

    async def ask() -> None:
        client.seconds = 0
        assert await link.command("PING") is True

    virtual(leave_some_behind)()
    virtual(ask)()


def test_a_moment_on_another_clock_wedges_nothing() -> None:
    """An outage noted on a loop whose time was far ahead is over."""
    client = Wiretap()
    link = link_to("storage", client)

    async def fail_late() -> None:
        await asyncio.sleep(1_000_000)
        client.failure = ConnectionError("refused")
        with pytest.raises(ConnectionError, match="refused"):
            await link.command("PING")
        client.failure = None

    async def ask() -> None:
        assert await link.command("PING") is True

    virtual(fail_late)()
    virtual(ask)()


@virtual
async def test_a_loop_that_was_held_up_loses_no_answer() -> None:
    """An answer that has come in is seen, however late the loop looks."""
    from tta_primitives.redis_link.watch import Watch

    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    async def wait() -> str:
        return await answer

    async def wait_on_the_watch() -> str:
        return await Watch(loop).within(wait(), 0.2)

    task = asyncio.create_task(wait_on_the_watch())
    await asyncio.sleep(0.1)
    # Both are due when the loop next looks, the answer's own callback first.
    loop.call_at(loop.time() + 0.1, answer.set_result, "here")
    assert await task == "here"


@virtual
async def test_a_limit_leaves_the_task_as_it_was() -> None:
    """No cancellation stays behind, and one from outside wins."""
    from tta_primitives.redis_link.watch import Watch

    watch = Watch(asyncio.get_running_loop())
    task = asyncio.current_task()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        await watch.within(asyncio.sleep(60), 0.2)
    assert (task.cancelling(), now()) == (0, 0.2)

    async def wait() -> None:
        await watch.within(asyncio.sleep(60), 0.2)

    inner = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    inner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await inner
    assert now() == 0.3
    await asyncio.sleep(10)


@virtual
async def test_shorter_limits_are_kept_beside_longer_ones() -> None:
    """One timer serves all, whichever was first."""
    from tta_primitives.redis_link.watch import Watch

    watch = Watch(asyncio.get_running_loop())

    async def ends(seconds: float) -> float:
        with pytest.raises(TimeoutError, match="no answer within"):
            await watch.within(asyncio.sleep(60), seconds)
        return now()

    limits = [0.5, 0.1, 0.3, 0.1, 0.9]
    assert await asyncio.gather(*map(ends, limits)) == limits


@virtual
async def test_who_cleans_up_for_long_is_interrupted_once() -> None:
    """The timers of others do not cancel it again: at the end it is a timeout."""
    from tta_primitives.redis_link.watch import Watch

    watch = Watch(asyncio.get_running_loop())
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)
            cleaned.append(now())

    async def others() -> None:
        for _ in range(20):
            with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
                await watch.within(asyncio.sleep(10), 0.05)

    beside = asyncio.create_task(others())
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        await watch.within(slow(), 0.2)
    assert cleaned == [pytest.approx(1.2, abs=0.01)]
    assert asyncio.current_task().cancelling() == 0
    await beside


@virtual
async def test_a_limit_that_ends_between_two_ticks_of_the_clock_is_kept() -> None:
    """Rounding makes a timer early; it is not set again and again for nothing."""
    from tta_primitives.redis_link.watch import Watch

    watch = Watch(asyncio.get_running_loop())
    for number in range(1, 200):
        await asyncio.sleep(number / 7e8)
        began = now()
        with pytest.raises(TimeoutError, match="no answer within"):
            await watch.within(asyncio.sleep(60), 0.1 + number / 3e7)
        assert abs(now() - began - 0.1) < 0.002


@virtual
async def test_failed_calls_leave_no_cyclic_garbage(client, link) -> None:
    """Neither alone nor in a batch."""
    client.failure = ConnectionError("refused")

    async def fail(count: int) -> None:
        await asyncio.sleep(5)
        await asyncio.gather(
            *(link.command("PING") for _ in range(count)), return_exceptions=True
        )

    garbage = []
    with only_new_garbage():
        for count in (1, 5, 1, 5, 5):
            await fail(count)
            garbage.append(gc.collect())
    assert garbage[2:] == [0, 0, 0]  # The first of each count makes what stays.


def test_a_link_goes_with_its_client() -> None:
    """Who used it last lets go of both."""
    client = fake_redis()
    link = link_to("storage", client)
    assert link_to("limiter", client) is link
    gone = weakref.ref(client)
    del client, link
    gc.collect()
    assert gone() is None


class Cluster(RedisCluster):
    def __init__(self) -> None:
        pass

    def __del__(self) -> None:
        pass


REFUSED = [
    (
        redis.Redis(),
        r"^storage= is a redis\.client\.Redis, which would block the event",
    ),
    (
        fakeredis.FakeRedis(),
        r"^storage= is a fakeredis\..*, which would block the event",
    ),
    (Cluster(), r"^storage= is a .*Cluster; only a client of one server"),
    (Redis, r"^storage=<class 'redis.* must be a redis\.asyncio\.Redis"),
    ("redis://localhost", r"^storage='redis://localhost' must be a redis\.asyncio\.Re"),
]


@pytest.mark.parametrize(("client", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_client_of_one_server_is_refused(client, message) -> None:
    """With a sentence that says what is wanted."""
    with pytest.raises(TypeError, match=message):
        link_to("storage", client)


async def test_a_client_that_was_closed_is_opened_again() -> None:
    """As its own methods do; nothing stays open when its owner closes it once more."""
    async with real_redis() as client:
        link = link_to("storage", client)
        assert await link.command("PING") == b"PONG"
        await client.aclose()
        assert await asyncio.gather(*(link.command("PING") for _ in range(3)))


OPTIONS = [
    {},
    {"single_connection_client": True},
    {"protocol": 2},
    {"decode_responses": True},
    {"socket_timeout": None, "health_check_interval": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["-".join(o) for o in OPTIONS])
async def test_every_kind_of_client_works(options) -> None:
    """One connection for all, protocol 2, one that makes texts of all answers."""
    async with real_redis(**options) as client:
        link = link_to("storage", client)
        for count in (1, 20):
            got = await asyncio.gather(
                *(link.command("ECHO", b"\xff%d" % n) for n in range(count)),
                client.echo("mine"),
            )
            assert got[:-1] == [b"\xff%d" % n for n in range(count)]
            assert got[-1] in (b"mine", "mine")


async def test_a_pool_that_makes_callers_wait_is_waited_for() -> None:
    """Its only connection goes from one to the other."""
    host, port = require_service("redis")
    pool = BlockingConnectionPool(max_connections=1, timeout=1, host=host, port=port)
    async with Redis(connection_pool=pool) as client:
        link = link_to("storage", client)
        for _ in range(3):
            got = await asyncio.gather(client.echo("a"), link.command("ECHO", "b"))
            assert got == [b"a", b"b"]
    await pool.aclose()


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    """It is looked at before it is used, so nobody is told."""
    async with real_redis() as client, real_redis() as other:
        link = link_to("storage", client)
        for _ in range(3):
            number = int(await link.command("CLIENT", "ID"))
            assert await other.client_kill_filter(_id=str(number)) == 1
            await asyncio.sleep(0.01)
        assert not link.is_away


async def test_who_leaves_in_the_middle_of_an_answer_spoils_no_connection() -> None:
    """Answers never get into wrong hands."""
    async with real_redis() as client:
        link = link_to("storage", client)
        for turns in range(12):
            task = asyncio.create_task(link.command("ECHO", "old"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await link.command("ECHO", f"new {turns}") == b"new %d" % turns


def counting(method, counts):
    @wraps(method)
    async def counted(self, *args, **options):
        counts.append(args[0])
        return await method(self, *args, **options)

    return counted


async def test_what_is_put_around_the_client_is_not_passed_by(monkeypatch) -> None:
    """Tracing and doubles see what is sent, also if they come later than the link."""
    counts = []
    async with real_redis() as client:
        link = link_to("storage", client)
        assert await link.command("PING") == b"PONG"
        traced = counting(Redis.execute_command, counts)
        monkeypatch.setattr(Redis, "execute_command", traced)
        assert await link.command("PING") in (b"PONG", True)
    assert counts == ["PING"]
