"""All storages do what a cache relies on: memory, a dict, a double, a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from tests.performance.redis_clients import fake_redis, own_namespace, real_redis
from tests.performance.tools import SlowStorage, virtual
from tta_primitives.chance import rng, using
from tta_primitives.performance import (
    LeaseStorage,
    MemoryStorage,
    Record,
    RedisStorage,
    Storage,
)
from tta_primitives.performance.conformance import LEASE_CHECKS, STORAGE_CHECKS

EVERY_CHECK = [*STORAGE_CHECKS, *LEASE_CHECKS]


def name_of(check):
    return check.__name__


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=name_of)
@virtual
async def test_memory_conforms(check) -> None:
    """What a cache has of its own is a storage like others."""
    await check(MemoryStorage(max_size=2000))


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=name_of)
@virtual
async def test_a_plain_dictionary_conforms(check) -> None:
    """The smallest storage that somebody could write."""
    await check(SlowStorage(seconds=0.001))


@pytest.mark.parametrize("check", EVERY_CHECK, ids=name_of)
@virtual
async def test_redis_conforms_on_a_double(check) -> None:
    """In virtual time, without a server."""
    await check(RedisStorage(fake_redis()))


@pytest.mark.parametrize("check", EVERY_CHECK, ids=name_of)
@virtual
async def test_redis_conforms_on_a_double_that_decodes(check) -> None:
    """However the client gives texts to others, records are bytes."""
    await check(RedisStorage(fake_redis(decode_responses=True)))


@pytest.mark.parametrize("check", EVERY_CHECK, ids=name_of)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_conforms_on_a_server(check, protocol) -> None:
    """In both protocols that servers speak."""
    options = {"protocol": protocol, "decode_responses": protocol == 2}
    async with real_redis(**options) as client, own_namespace(client) as namespace:
        # Checks begin their keys with a new id.
        with using(rng(), lambda: namespace):
            await check(RedisStorage(client))


def test_storages_say_whether_they_have_leases() -> None:
    """A cache asks by the methods, not by the class."""
    assert isinstance(RedisStorage(fake_redis()), Storage)
    assert isinstance(RedisStorage(fake_redis()), LeaseStorage)
    assert not isinstance(MemoryStorage(), LeaseStorage)


class Forgetful(SlowStorage):
    async def set_many(self, records):
        await super().set_many(dict(list(records.items())[:1]))


class Timeless(SlowStorage):
    def _aged(self, key):
        return self.records[key][0] if key in self.records else None


class Clamped(SlowStorage):
    def _aged(self, key):
        record = super()._aged(key)
        return record and Record(record.value, max(0.0, record.fresh_for), 60)


class Swapped(SlowStorage):
    async def get_many(self, keys):
        return (await super().get_many(keys))[::-1]


class Grasping(SlowStorage):
    async def clear(self, prefix):
        self.records.clear()


class Tagless(SlowStorage):
    async def delete_tagged(self, tags):
        pass


class Sticky(SlowStorage):
    async def delete(self, keys):
        pass


class Shared(SlowStorage):
    """One read for all, which the first of them takes along when he leaves."""

    reading = None

    async def get_many(self, keys):
        if self.reading is None or self.reading.done():
            self.reading = asyncio.ensure_future(super().get_many(keys))
        return await self.reading


BROKEN = [
    (Forgetful, "gives_back_what_it_was_given", "5 records were kept, and these given"),
    (
        Timeless,
        "tells_how_long_a_record_has_been_stale",
        "fresh_for after its end: got",
    ),
    (
        Clamped,
        "tells_how_long_a_record_has_been_stale",
        "fresh_for after its end: got",
    ),
    (Timeless, "forgets_when_the_time_is_over", "records whose time is over: got"),
    (Swapped, "answers_in_the_order_of_the_keys", "answers to b, unknown, a, b: got"),
    (Grasping, "forgets_what_begins_alike", "the keys after clearing what begins"),
    (Tagless, "forgets_tags", "the keys after deleting tag x: got"),
    (Tagless, "does_many_at_once", "what is left of a thousand keys: got"),
    (Sticky, "forgets_keys", "the keys after deleting a: got"),
    (Shared, "answers_the_others_if_one_leaves", "what those got who stayed: got"),
]


@pytest.mark.parametrize(("kind", "name", "message"), BROKEN)
@virtual
async def test_a_broken_storage_is_told_what_is_wrong(kind, name, message) -> None:
    """Each check fails where it should, with a sentence that says what it saw."""
    [check] = [check for check in STORAGE_CHECKS if check.__name__ == name]
    with pytest.raises(AssertionError, match=message):
        await check(kind(seconds=0.001))
