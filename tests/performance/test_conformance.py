"""All storages do what a cache relies on: memory, toys, a double, a real Redis."""

from __future__ import annotations

import pytest

from tests.performance.redis_clients import fake_redis, own_namespace, real_redis
from tests.performance.tools import SlowStorage, virtual
from tests.performance.toy_storages import ToyLeases, ToyStorage
from tta_primitives.chance import rng, using
from tta_primitives.performance import (
    LeaseStorage,
    MemoryStorage,
    RedisStorage,
    Storage,
)
from tta_primitives.performance.conformance import LEASE_CHECKS, STORAGE_CHECKS
from tta_primitives.redis_link import batches

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
async def test_redis_conforms_on_a_server(check, protocol, monkeypatch) -> None:
    """In both protocols that servers speak, however busy the machine is."""
    monkeypatch.setattr(batches, "COMMAND_SECONDS", 30.0)
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


# Odd, and yet sound.

TEN_YEARS = 10 * 365 * 86400


class OddlyShaped(ToyStorage):
    """Answers are tuples, and tags come back in another order and some twice."""

    def __init__(self):
        super().__init__(lambda record: record._replace(tags=record.tags[::-1] * 2))

    async def get_many(self, keys):
        return tuple(await super().get_many(keys))


class Numbers(ToyLeases):
    """Says 1 and 0, as many a client does."""

    async def acquire(self, *args):
        return int(await super().acquire(*args))

    async def renew(self, *args):
        return int(await super().renew(*args))

    async def set_leased(self, *args):
        return int(await super().set_leased(*args))


def late(record):
    """Age a record a little late, as by a clock that ticks only now and then."""
    return record._replace(
        fresh_for=record.fresh_for + 0.04, kept_for=record.kept_for + 0.04
    )


def bounded(record):
    """Keep nothing for more than ten years."""
    return record._replace(
        fresh_for=min(record.fresh_for, TEN_YEARS),
        kept_for=min(record.kept_for, TEN_YEARS),
    )


SOUND = {
    "slow": lambda: ToyStorage(seconds=4.9),
    "coarse": lambda: ToyStorage(late),
    "oddly shaped": OddlyShaped,
    "ten years at most": lambda: ToyStorage(bounded),
    "a thousand at most": lambda: MemoryStorage(max_size=1000),
}


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=name_of)
@pytest.mark.parametrize("kind", SOUND)
@virtual
async def test_an_odd_storage_conforms(check, kind) -> None:
    """What no cache would mind is no fault."""
    await check(SOUND[kind]())


@pytest.mark.parametrize("check", EVERY_CHECK, ids=name_of)
@pytest.mark.parametrize("seconds", [0, 0.001, 0.05])
@virtual
async def test_a_toy_with_leases_conforms(check, seconds) -> None:
    """Also one that takes a moment for each operation."""
    await check(ToyLeases(seconds=seconds))


@pytest.mark.parametrize("check", LEASE_CHECKS, ids=name_of)
@virtual
async def test_yes_and_no_may_be_numbers(check) -> None:
    """One and nought are as good as true and false."""
    await check(Numbers())


@virtual
async def test_one_storage_can_take_all_checks() -> None:
    """Each has keys and tags of its own, so none finds what another has left."""
    storage = ToyLeases()
    for check in EVERY_CHECK * 2:
        await check(storage)
