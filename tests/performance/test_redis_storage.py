"""A storage on Redis: what it writes, what it refuses, what it makes of the rest."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.performance.redis_clients import fake_redis, own_namespace, real_redis
from tests.performance.tools import virtual
from tta_primitives.performance import Record, RedisStorage, UnreadableRecord
from tta_primitives.performance.redis_storage import MAX_RECORD_BYTES


@pytest.fixture
def client():
    return fake_redis()


@pytest.fixture
def storage(client):
    return RedisStorage(client)


@virtual
async def test_every_key_has_a_name_of_ours_and_an_end(client, storage) -> None:
    """Records, leases, tags and the clock of tags."""
    await storage.set_many({"tta:cache:n:1:a": Record(b"x", 10, 60, ("t",))})
    await storage.set_many({"tta:cache:n:1:b": Record(b"x", 10, 60)})
    await storage.acquire("tta:cache:n:1:c", "token", 5)
    await storage.delete_tagged(["u"])
    ends = {key.decode(): await client.pttl(key) for key in await client.keys("*")}
    assert ends == {
        "tta:cache:n:1:a": 60_000,
        "tta:cache:n:1:b": 60_000,
        "tta:cache:n:1:c:lease": 5_000,
        "tta:cache-tag:t": 61_000,
        "tta:cache-tag:u": 3_600_000,
        "tta:cache-clock": 86_400_000,
    }


async def plant_list(client, key):
    await client.rpush(key, "a", "b")


async def plant_hash(client, key):
    await client.hset(key, "a", "b")


async def plant_pickle(client, key):
    await client.set(key, pickle.dumps({"a": 1}))


async def plant_number(client, key):
    await client.incr(key)


async def plant_giant(client, key):
    # A gibibyte that takes no memory to write, and would take it all to read.
    await client.setrange(key, MAX_RECORD_BYTES + 1, "x")


PLANTS = [
    (plant_list, "it is no text"),
    (plant_hash, "it is no text"),
    (plant_pickle, "it has no form or version that is known here"),
    (plant_number, "it has no form or version that is known here"),
    (plant_giant, "it is longer than 1048576 bytes"),
]


@pytest.mark.parametrize(
    ("plant", "reason"), PLANTS, ids=[p.__name__ for p, _ in PLANTS]
)
@pytest.mark.parametrize("tagged", [False, True])
@virtual
async def test_case_72_a_poisoned_key_is_told_and_harms_no_other(
    client, storage, plant, reason, tagged
) -> None:
    """Alone and among others, and it can be written over."""
    record = Record(b"x", 10, 60, ("t",) if tagged else ())
    await storage.set_many({"good": record})
    await plant(client, "bad")
    assert await storage.get_many(["bad"]) == [UnreadableRecord(reason)]
    got = await storage.get_many(["good", "bad", "none", "good"])
    assert got == [record, UnreadableRecord(reason), None, record]
    await storage.set_many({"bad": record})
    assert await storage.get_many(["bad"]) == [record]


async def test_a_text_of_512_mib_is_refused_and_not_read(redis_server) -> None:
    """On a real server, which it keeps busy for a while; nothing long is ever sent."""
    async with Redis(port=redis_server.port) as client:
        storage = RedisStorage(client)
        await storage.set_many({"good": Record(b"x", 10, 60)})
        await client.setrange("bad", 512 * 1024 * 1024 - 1, "x")
        before = await sent_by_server(client)
        told = UnreadableRecord("it is longer than 1048576 bytes")
        assert await storage.get_many(["bad"]) == [told]
        got = await storage.get_many(["good", "bad", "good"])
        assert [record[0] for record in got] == [b"x", told.reason, b"x"]
        assert await sent_by_server(client) - before < 2 * MAX_RECORD_BYTES


async def sent_by_server(client) -> int:
    return int((await client.info("stats"))["total_net_output_bytes"])


@virtual
async def test_a_record_that_is_too_long_is_not_written(client) -> None:
    """Nor is any other that was to be written with it."""
    storage = RedisStorage(client, max_record_bytes=2000)
    longest = Record(b"x" * (2000 - 41), 10, 60)
    await storage.set_many({"a": longest})
    assert await storage.get_many(["a"]) == [longest]
    with pytest.raises(
        ValueError, match="2001 bytes is longer than max_record_bytes=2"
    ):
        await storage.set_many(
            {"b": Record(b"x", 10, 60), "c": Record(b"x" * (2001 - 41), 10, 60)}
        )
    assert await client.keys("*") == [b"a"]


@virtual
async def test_storages_with_other_limits_share_a_server(client) -> None:
    """What one may write, another may be too small to read."""
    large, small = RedisStorage(client), RedisStorage(client, max_record_bytes=1024)
    await large.set_many({"a": Record(b"x" * 2000, 10, 60)})
    got = await asyncio.gather(*(one.get_many(["a"]) for one in (large, small)))
    assert got[0][0].value == b"x" * 2000
    assert got[1] == [UnreadableRecord("it is longer than 1024 bytes")]


@pytest.mark.parametrize("size", [0, 1023, True, 1.5, "1"])
def test_a_limit_that_is_none_is_refused(size) -> None:
    """It must leave room for a record's head."""
    with pytest.raises(ValueError, match=r"max_record_bytes=.* must be a whole number"):
        RedisStorage(fake_redis(), max_record_bytes=size)


@virtual
async def test_tags_are_looked_at_by_who_did_not_expect_any(client) -> None:
    """Another process may have written them."""
    writer, reader = RedisStorage(client), RedisStorage(client)
    record = Record(b"x", 10, 60, ("t",))
    await writer.set_many({"a": record})
    assert await reader.get_many(["a"]) == [record]
    await writer.delete_tagged(["t"])
    other = RedisStorage(client)
    assert await other.get_many(["a"]) == [None]


@virtual
async def test_a_tag_that_redis_has_evicted_takes_its_records_along(client) -> None:
    """Else what was invalidated would come back."""
    storage = RedisStorage(client)
    await storage.set_many({"a": Record(b"old", 10, 60, ("t",))})
    await client.delete("tta:cache-tag:t")
    assert await storage.get_many(["a"]) == [None]
    await asyncio.sleep(1)
    await storage.set_many({"b": Record(b"new", 10, 60, ("t",))})
    got = await storage.get_many(["a", "b"])
    assert [record and record.value for record in got] == [None, b"new"]


@virtual
async def test_a_record_is_older_than_an_invalidation_in_the_same_instant(
    client, storage
) -> None:
    """A clock that stands still tells them apart as well."""
    for number in range(3):
        record = Record(b"%d" % number, 10, 60, ("t",))
        await storage.set_many({"a": record})
        assert await storage.get_many(["a"]) == [record]
        await storage.delete_tagged(["t"])
        assert await storage.get_many(["a"]) == [None]


@virtual
async def test_a_tag_that_is_made_is_noted_on_the_clock(client, storage) -> None:
    """So that stamps go on from there if the server's own clock goes back."""
    await storage.set_many({"a": Record(b"x", 10, 60, ("t",))})
    stamps = await client.mget("tta:cache-tag:t", "tta:cache-clock")
    assert stamps == [b"0946684800000000"] * 2


@virtual
async def test_a_tag_lives_as_long_as_its_longest_record(client, storage) -> None:
    """A short one written later takes nothing from it."""
    await storage.set_many({"a": Record(b"x", 10, 6000, ("t",))})
    await storage.set_many({"b": Record(b"x", 10, 60, ("t",))})
    await storage.delete_tagged(["t"])
    await storage.set_many({"c": Record(b"x", 10, 90, ("t",))})
    assert await client.pttl("tta:cache-tag:t") == 6_001_000
    await asyncio.sleep(5999)
    await storage.set_many({"d": Record(b"x", 10, 9000, ("t",))})
    assert await client.pttl("tta:cache-tag:t") == 9_001_000


@pytest.mark.parametrize("what", ["list", "no number", "from the future"])
@virtual
async def test_foreign_values_at_tags_and_clock_do_no_harm(
    client, storage, what
) -> None:
    """The worst is that what has the tag is not kept."""
    plant = {
        "list": lambda key: client.rpush(key, "x"),
        "no number": lambda key: client.set(key, "abc"),
        "from the future": lambda key: client.set(key, "9999999999999999"),
    }[what]
    record = Record(b"x", 10, 60, ("t",))
    await plant("tta:cache-tag:t")
    await plant("tta:cache-clock")
    await storage.set_many({"a": record})
    assert await storage.get_many(["a"]) in ([record], [None])
    await storage.delete_tagged(["t"])
    assert await storage.get_many(["a"]) == [None]
    await storage.set_many({"b": Record(b"x", 10, 60)})
    assert await storage.get_many(["b"]) == [Record(b"x", 10, 60)]


@pytest.mark.parametrize("plant", [plant_list, plant_number])
@virtual
async def test_what_is_no_lease_is_in_nobodys_way(client, storage, plant) -> None:
    """Ours always end, so what does not is somebody else's."""
    await plant(client, "a:lease")
    assert await storage.acquire("a", "token", 5)
    assert await storage.set_leased("a", Record(b"x", 10, 60), "token")


@virtual
async def test_a_token_is_not_taken_for_a_longer_one(storage) -> None:
    """Only the whole of it counts."""
    await storage.acquire("a", "token of a", 5)
    assert not await storage.renew("a", "token", 5)
    await storage.release("a", "token")
    assert not await storage.set_leased("a", Record(b"x", 10, 60), "token")
    assert await storage.renew("a", "token of a", 5)


@virtual
async def test_clearing_takes_chunks_and_all_of_them(client, storage) -> None:
    """Thousands of keys, and none of others; leases go as well."""
    await storage.set_many({f"mine:{n}": Record(b"x", 10, 60) for n in range(3000)})
    await storage.set_many({f"other:{n}": Record(b"x", 10, 60) for n in range(10)})
    await storage.acquire("mine:x", "token", 5)
    await storage.clear("mine:")
    left = sorted(key.decode() for key in await client.keys("*"))
    assert left == [f"other:{n}" for n in range(10)]


@virtual
async def test_what_was_being_loaded_is_not_kept_behind_the_back_of_clear(
    client, storage
) -> None:
    """However far it has come when the keys are walked through."""
    for step in range(8):
        await storage.acquire("mine:a", "token", 5)
        clearing = asyncio.create_task(storage.clear("mine:"))
        for _ in range(step):
            await asyncio.sleep(0)
        await storage.set_leased("mine:a", Record(b"old", 10, 60), "token")
        await clearing
        assert await storage.get_many(["mine:a"]) == [None]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=300), tagged=st.booleans())
@example(data=b"tta1", tagged=True)
@example(data=b"tta1" + b"9" * 16 + bytes(20) + b"\xff\xff", tagged=True)
@example(data=b"tta1" + b"x" * 16 + bytes(20) + b"\x02\x01a\x01", tagged=True)
def test_whatever_lies_at_a_key_is_no_error(data, tagged) -> None:
    """Neither for it nor for its neighbours, with the script and without."""

    @virtual
    async def check() -> None:
        client = fake_redis()
        storage = RedisStorage(client)
        good = Record(b"x", 10, 60, ("t",) if tagged else ())
        await storage.set_many({"good": good})
        await client.set("bad", data)
        alone, both = (
            await storage.get_many(["bad"]),
            await storage.get_many(["good", "bad"]),
        )
        for got in (alone[0], both[1]):
            assert got is None or isinstance(got, UnreadableRecord)
        assert both[0] == good

    check()


async def test_no_answer_of_a_real_script_is_misread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packed lists: empty, short and long texts, none, and what is no text."""
    # Megabytes, which take a busy machine longer than an answer may.
    monkeypatch.setattr("tta_primitives.redis_link.batches.COMMAND_SECONDS", 30.0)
    async with real_redis() as client, own_namespace(client) as namespace:
        storage = RedisStorage(client)
        lengths = (0, 1, 30, 31, 32, 200, 255, 256, 65_000, 65_535, 65_536, 200_000)
        records = {f"{namespace}:{n}": Record(b"x" * n, 10, 60) for n in lengths}
        await storage.set_many(records)
        await client.rpush(f"{namespace}:bad", "x")
        keys = [*records, f"{namespace}:none", f"{namespace}:bad"]
        for count in (2, 5, len(keys)):
            some = keys[-count:]
            got = await storage.get_many(some)
            shown = [len(r.value) if type(r) is Record else r for r in got]
            wanted = [
                *lengths[len(lengths) + 2 - count :],
                None,
                UnreadableRecord("it is no text"),
            ]
            assert shown == wanted
        # Together too long for one answer: the rest is asked for again.
        many = [f"{namespace}:200000", f"{namespace}:1"] * 60
        got = await storage.get_many(many)
        assert [len(record.value) for record in got] == [200_000, 1] * 60
