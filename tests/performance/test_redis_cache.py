"""A cache on Redis: all that a cache in memory does, and what only a shared one can."""

from __future__ import annotations

import asyncio
import json
import math
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.performance.redis_clients import fake_redis
from tests.performance.tools import Loads, hearing, now, virtual
from tta_primitives import WorkflowContext
from tta_primitives.chance import seeded
from tta_primitives.errors import CacheStorageError
from tta_primitives.performance import CachePrimitive, MsgpackSerializer, RedisStorage


def ctx(**options) -> WorkflowContext:
    return WorkflowContext(**options)


@pytest.fixture
def client():
    return fake_redis()


@pytest.fixture
def make(client):
    """Return a function that makes caches on one double, in one namespace."""

    def make_cache(load, *, ttl=10, namespace="n", **options):
        options = {"storage": client, "namespace": namespace, **options}
        return CachePrimitive(load, ttl=ttl, **options)

    return make_cache


async def only_key(client) -> str:
    [key] = [key async for key in client.scan_iter("tta:cache:*")]
    return key.decode()


async def load(question):
    return f"answer to {question}"


@virtual
async def test_a_client_is_a_storage_as_it_is(client) -> None:
    """As in the guide: no options, and a namespace derived from what is wrapped."""
    first, second = (CachePrimitive(load, ttl=3600, storage=client) for _ in range(2))
    assert await first.execute("q", ctx()) == "answer to q"
    assert await second.execute("q", ctx()) == "answer to q"
    assert (second.stats.hits, second.stats.size) == (1, None)


@pytest.mark.parametrize("count", [5, 50])
@virtual
async def test_case_59_a_load_survives_the_caller_that_began_it(make, count) -> None:
    """One load, one cancelled, the others served."""
    loads = Loads("v", seconds=1)
    cache = make(loads.load)
    tasks = [asyncio.create_task(cache.execute("k", ctx())) for _ in range(count)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(got[0], asyncio.CancelledError)
    assert (got[1:], loads.count) == (["v"] * (count - 1), 1)


@virtual
async def test_case_60_a_load_that_nobody_waits_for_is_cancelled(client, make) -> None:
    """And its lease is given back, so that nobody waits for it either."""
    loads = Loads("v", seconds=1)
    cache = make(loads.load)
    tasks = [asyncio.create_task(cache.execute("k", ctx())) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert [key async for key in client.scan_iter("*:lease")] != []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (loads.count, loads.cancelled) == (1, 1)
    assert await client.keys("*") == []


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 0.0])
@virtual
async def test_case_62_an_empty_value_is_a_hit(make, value, serializer) -> None:
    """Of whatever type."""
    cache = make(Loads(value).load, serializer=serializer)
    got = [await cache.execute("k", ctx()) for _ in range(2)]
    assert (repr(got), cache.stats.hits) == (repr([value, value]), 1)


@virtual
async def test_case_65_an_entry_is_expired_when_its_ttl_has_passed(make) -> None:
    """Not before, and not after."""
    cache = make(Loads().load, ttl=10)
    got = []
    for moment in (0, 9.999999, 10, 19.999999, 20):
        await asyncio.sleep(moment - now())
        got.append(await cache.execute("k", ctx()))
    assert got == [1, 1, 2, 2, 3]


@virtual
async def test_case_65_a_ttl_of_zero_keeps_nothing(client, make) -> None:
    """Not even for those who come in the same instant."""
    cache = make(Loads().load, ttl=0)
    assert [await cache.execute("k", ctx()) for _ in range(2)] == [1, 2]
    assert await client.keys("*") == []


@virtual
async def test_case_65_the_ttl_may_depend_on_the_value(client, make) -> None:
    """Also an infinite one, which Redis ends in a century."""
    cache = make(Loads(5, math.inf, 0).load, ttl=lambda value: value)
    for key in ("a", "b", "c"):
        await cache.execute(key, ctx())
    ends = sorted([await client.pttl(key) async for key in client.scan_iter("tta:*")])
    assert ends == [5_000, 100 * 365 * 86_400_000]


@virtual
async def test_case_66_a_value_invalidated_while_it_loads_is_not_kept(make) -> None:
    """Whether the load runs here or in another process."""
    for reader, invalidator in ((0, 0), (0, 1)):
        loads = Loads("old", "new", seconds=1)
        caches = [make(loads.load, namespace=f"n{invalidator}") for _ in range(2)]
        waiting = asyncio.create_task(caches[reader].execute("k", ctx()))
        await asyncio.sleep(0.5)
        await caches[invalidator].invalidate("k")
        assert await waiting == "old"
        assert await caches[1].execute("k", ctx()) == "new"


@pytest.mark.parametrize("how", ["tags", "clear"])
@virtual
async def test_case_66_clearing_and_tags_reach_loads_of_other_processes(
    make, how
) -> None:
    """What was begun before is not kept after."""
    loads = Loads("old", "new", seconds=1)
    here, there = (make(loads.load, tags=["t"]) for _ in range(2))
    with hearing() as ear:
        waiting = asyncio.create_task(here.execute("k", ctx()))
        await asyncio.sleep(0.5)
        await (there.invalidate_tags("t") if how == "tags" else there.clear())
        assert await waiting == "old"
    assert ear.names == ["cache.miss", "cache.lease_lost"]
    assert await there.execute("k", ctx()) == "new"


@virtual
async def test_case_68_a_stale_value_is_returned_at_once_and_refreshed(make) -> None:
    """In no time, by one refresh, however many ask in however many processes."""
    loads = Loads("old", "new", seconds=1)
    caches = [make(loads.load, ttl=10, stale_ttl=60) for _ in range(3)]
    await caches[0].execute("k", ctx())
    await asyncio.sleep(30)
    began = now()
    calls = [cache.execute("k", ctx()) for cache in caches for _ in range(5)]
    assert await asyncio.gather(*calls) == ["old"] * 15
    assert now() == began
    await asyncio.sleep(2)
    assert [await cache.execute("k", ctx()) for cache in caches] == ["new"] * 3
    assert loads.count == 2


@virtual
async def test_case_68_a_failed_refresh_keeps_the_stale_value(make, caplog) -> None:
    """It is logged, and tried again by the next who asks."""
    loads = Loads("old", ValueError("no"), "new", seconds=1)
    cache = make(loads.load, ttl=10, stale_ttl=60)
    got = []
    for moment in (0, 20, 30, 40):
        await asyncio.sleep(moment - now())
        got.append(await cache.execute("k", ctx()))
    assert got == ["old", "old", "old", "new"]
    assert "keeps a value whose refresh failed" in caplog.text


@virtual
async def test_case_68_a_stale_value_has_an_end(client, make) -> None:
    """Redis forgets it then, too."""
    cache = make(Loads().load, ttl=10, stale_ttl=5)
    await cache.execute("k", ctx())
    assert await client.pttl(await only_key(client)) == 15_000
    await asyncio.sleep(15)
    assert await cache.execute("k", ctx()) == 2


@virtual
async def test_case_69_a_stale_value_stands_in_for_a_failed_load(make) -> None:
    """The run is told so; after the window the failure is raised."""
    cache = make(Loads("old", ValueError("no")).load, ttl=10, stale_if_error=60)
    await cache.execute("k", ctx())
    await asyncio.sleep(69)
    context = ctx()
    assert await cache.execute("k", context) == "old"
    assert context.outcomes == {"cache": "stale"}
    await asyncio.sleep(1)
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())


class DownError(Exception):
    """What a failing double raises."""


def failing(client, error):
    """Make every command of a client fail."""

    async def fail(*args, **options):
        raise error

    client.execute_command = fail
    client.pipeline = lambda **options: type(
        "Pipeline", (), {"execute_command": lambda *a, **o: None, "execute": fail}
    )()


@virtual
async def test_case_71_a_redis_that_is_down_is_a_miss_with_an_event(
    client, make, caplog
) -> None:
    """Every call succeeds, by a load; the log has one line."""
    cache = make(Loads().load)
    failing(client, ConnectionError("down"))
    with hearing() as ear:
        assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 2, 3]
    assert ear.names == ["cache.error", "cache.miss", "cache.error"] * 3
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # The error itself, and that nobody asks any more.
    assert "cache goes on without its storage: the storage tta_primitives." in lines[0]


@virtual
async def test_case_71_without_fail_open_it_is_an_error(client, make) -> None:
    """Of which the client's own is the cause."""
    cache = make(Loads().load, fail_open=False)
    failing(client, ConnectionError("down"))
    with pytest.raises(
        CacheStorageError, match=r"could not read: Conn.*down"
    ) as caught:
        await cache.execute("k", ctx())
    assert isinstance(caught.value.__cause__, ConnectionError)


@virtual
async def test_case_71_a_redis_that_hangs_costs_a_call_a_moment(client, make) -> None:
    """One limit, not one for each thing that a cache asks; then nothing."""
    cache = make(Loads().load)

    async def hang(*args, **options):
        await asyncio.sleep(3600)

    client.execute_command = hang
    assert await cache.execute("k", ctx()) == 1
    assert now() == 0.2
    assert await cache.execute("k", ctx()) == 2
    assert now() == 0.2


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps("planted"),
        b'{"cut',
        b"tta0" + bytes(60),
        b"json:1",
        b"\xff" * 1000,
        "list",
    ],
    ids=["pickle", "cut", "version", "bare", "noise", "list"],
)
@virtual
async def test_case_72_foreign_bytes_are_a_miss_with_an_event(
    client, make, payload
) -> None:
    """They are told, not executed, and written over; the neighbour is a hit."""
    loads = Loads("a", "b", "new")
    cache = make(loads.load)
    await cache.execute("k", ctx())
    key = await only_key(client)
    await cache.execute("neighbour", ctx())
    await client.delete(key)
    await (client.rpush(key, "x") if payload == "list" else client.set(key, payload))
    with hearing() as ear:
        calls = (cache.execute(k, ctx()) for k in ("neighbour", "k", "neighbour"))
        assert await asyncio.gather(*calls) == ["b", "new", "b"]
    assert sorted(ear.names) == [
        "cache.corrupt",
        "cache.hit",
        "cache.hit",
        "cache.miss",
    ]
    assert await cache.execute("k", ctx()) == "new"
    assert cache.stats.errors == 1


class Bomb:
    """Would tell that it was unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a payload was executed",))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.binary(max_size=200) | st.just(pickle.dumps(Bomb())), cut=st.integers(0, 80)
)
def test_case_72_whatever_lies_there_the_answer_is_right(data, cut) -> None:
    """Any bytes, also after the beginning of a true record."""

    @virtual
    async def check() -> None:
        client = fake_redis()
        cache = CachePrimitive(Loads("v").load, ttl=9, storage=client, namespace="n")
        await cache.execute("k", ctx())
        key = await only_key(client)
        whole = await client.get(key)
        await client.set(key, whole[:cut] + data)
        assert [await cache.execute("k", ctx()) for _ in range(2)] == ["v", "v"]

    check()


@virtual
async def test_case_72_with_fail_open_switched_off_it_is_an_error(client, make) -> None:
    """Whoever asks for that wants to know."""
    cache = make(Loads().load, fail_open=False)
    await cache.execute("k", ctx())
    key = await only_key(client)
    await client.set(key, b"foreign")
    with pytest.raises(
        CacheStorageError, match="cannot be read: it has no form or ver"
    ):
        await cache.execute("k", ctx())


@virtual
async def test_case_74_a_caller_who_changes_a_value_changes_only_his_own(make) -> None:
    """Those who share a load, and those who find it later."""
    cache = make(Loads({"a": []}, seconds=1).load)
    first, second = await asyncio.gather(
        cache.execute("k", ctx()), cache.execute("k", ctx())
    )
    first["a"].append("mine")
    assert second == {"a": []}
    assert await cache.execute("k", ctx()) == {"a": []}


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("no")])
@virtual
async def test_case_75_a_load_that_does_not_succeed_leaves_nothing(
    client, make, error
) -> None:
    """No value, no lease, no flight."""
    cache = make(Loads(error, "v", seconds=1).load)
    with pytest.raises(type(error), match=r"no|^$"):
        await cache.execute("k", ctx())
    assert await client.keys("*") == []
    assert await cache.execute("k", ctx()) == "v"


@virtual
async def test_a_value_that_is_too_long_is_returned_and_not_kept(
    client, caplog
) -> None:
    """That is told once."""
    storage = RedisStorage(client, max_record_bytes=1024)
    cache = CachePrimitive(
        Loads("x" * 2000).load, ttl=10, storage=storage, namespace="n"
    )
    for _ in range(2):
        assert len(await cache.execute("k", ctx())) == 2000
    assert cache.stats.errors == 2
    [line] = [record.getMessage() for record in caplog.records]
    assert line.endswith(
        "a record of 2048 bytes is longer than max_record_bytes=1024')"
    )
    assert await client.keys("*") == []


@virtual
async def test_failures_are_remembered_here_alone(make) -> None:
    """They are exceptions, which nothing should make of bytes."""
    loads = Loads(ValueError("no"), "v")
    options = {"negative_ttl": 5, "negative_on": ValueError}
    here, there = (make(loads.load, **options) for _ in range(2))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await here.execute("k", ctx())
    assert await there.execute("k", ctx()) == "v"
    assert await here.execute("k", ctx()) == "v"


@virtual
async def test_a_hit_shortly_before_expiry_refreshes_early(make) -> None:
    """By one process; before the window nothing is loaded."""
    loads = Loads(seconds=0.5)
    caches = [make(loads.load, ttl=10, early_refresh=3) for _ in range(3)]
    got = []
    for moment in (0, 7.4, 7.6, 8.5, 17.9):
        await asyncio.sleep(moment - now())
        got.append([await cache.execute("k", ctx()) for cache in caches])
    assert got == [[1] * 3, [1] * 3, [1] * 3, [2] * 3, [2] * 3]
    await asyncio.sleep(1)
    assert loads.count == 3


@virtual
async def test_lives_are_shortened_at_random_and_repeatably(client, make) -> None:
    """By the source of chance that tests seed."""
    cache = make(load, ttl=100, ttl_jitter=0.5, lease=0)
    with seeded(7):
        for number in range(5):
            await cache.execute(f"k{number}", ctx())
    ends = {await client.pttl(key) async for key in client.scan_iter("tta:*")}
    assert len(ends) == 5
    assert all(50_000 <= end <= 100_000 for end in ends)


@virtual
async def test_tags_reach_other_processes_and_other_caches(make) -> None:
    """In one step, whatever it concerns; what is loaded anew has the tag again."""
    loads = Loads()
    here, there = (
        make(loads.load, namespace=name, tags=lambda key, value: [f"user:{key}", "all"])
        for name in ("a", "b")
    )
    for cache in (here, there):
        for key in ("ada", "bob"):
            await cache.execute(key, ctx())
    await here.invalidate_tags("user:ada")
    got = [await c.execute(k, ctx()) for c in (here, there) for k in ("ada", "bob")]
    assert got == [5, 2, 6, 4]
    await here.invalidate_tags("unknown", "all")
    got = [await c.execute(k, ctx()) for c in (here, there) for k in ("ada", "bob")]
    assert got == [7, 8, 9, 10]
    assert [await here.execute(k, ctx()) for k in ("ada", "bob")] == [7, 8]


@virtual
async def test_clearing_leaves_other_namespaces_and_versions(client, make) -> None:
    """Only this cache's entries go."""
    caches = [make(Loads().load, namespace=name) for name in ("a", "ab")]
    caches.append(make(Loads().load, namespace="a", version=2))
    for cache in caches:
        await cache.execute("k", ctx())
    await caches[0].clear()
    assert [await cache.execute("k", ctx()) for cache in caches] == [2, 1, 1]


class Decimal:
    """Writes numbers as people do."""

    def dumps(self, value):
        return str(value).encode()

    def loads(self, data):
        return int(data)


class Hexadec:
    """Writes numbers as machines do; most look like numbers of the other kind."""

    def dumps(self, value):
        return f"{value:x}".encode()

    def loads(self, data):
        return int(data, 16)


@pytest.mark.parametrize(
    ("one", "other"), [("json", "msgpack"), (Decimal(), Hexadec())], ids=["ours", "own"]
)
@virtual
async def test_two_serializers_never_read_each_other(make, one, other) -> None:
    """A digit is another number for the other one."""
    caches = [make(Loads(16, 17).load, serializer=kind) for kind in (one, other)]
    got = [await caches[n].execute("k", ctx()) for n in (0, 1, 0, 1)]
    assert got == [16, 16, 17, 17]


VALUES = [b"\0\xff", [1, b"x", {"a": None}], 2**63, -1.5, "ü"]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@virtual
async def test_msgpack_keeps_what_json_does_not(make, value) -> None:
    """Bytes, and all that JSON has."""
    cache = make(Loads(value).load, serializer="msgpack")
    got = [await cache.execute("k", ctx()) for _ in range(2)]
    assert (got, cache.stats.hits) == ([value, value], 1)


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": {2}}, object(), 2**64])
@virtual
async def test_a_value_that_msgpack_would_change_is_not_written(
    client, make, value
) -> None:
    """It is returned, and that is told."""
    cache = make(Loads(value).load, serializer="msgpack")
    assert await cache.execute("k", ctx()) is value
    assert (await client.keys("*"), cache.stats.errors) == ([], 1)


def test_msgpack_makes_no_object_of_an_extension() -> None:
    """Only what it writes itself is read."""
    import msgpack

    data = msgpack.packb(msgpack.ExtType(5, b"x"))
    with pytest.raises(
        ValueError, match="extension type 5, which this serializer does"
    ):
        MsgpackSerializer().loads(data)


def test_without_msgpack_it_is_told_what_to_install(monkeypatch) -> None:
    """In one sentence, at construction."""
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(
        ImportError, match=r"pip install 'tta-dev-primitives\[msgpack\]'"
    ):
        CachePrimitive(load, ttl=60, serializer="msgpack")


@virtual
async def test_misses_of_one_instant_share_round_trips(client, make) -> None:
    """A hundred different questions are asked in a few batches, not in hundreds."""
    batches = []
    pipeline = client.pipeline

    def counted(**options):
        batches.append(1)
        return pipeline(**options)

    client.pipeline = counted
    cache = make(Loads(seconds=1).load)
    await asyncio.gather(*(cache.execute(f"k{n}", ctx()) for n in range(100)))
    assert len(batches) <= 10


@virtual
async def test_what_lies_in_redis_is_what_the_page_says(client, make) -> None:
    """Somebody will look at it one day."""
    cache = make(Loads({"a": [1, None]}).load, tags=["t"])
    await cache.execute("k", ctx())
    data = await client.get(await only_key(client))
    assert data[:4] == b"tta1"
    assert data[4:20] == b"0946684800000000"
    assert json.loads(data[data.index(b"json:") + 5 :]) == {"a": [1, None]}
