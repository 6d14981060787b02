"""One load for a fleet: who holds the lease of a key loads, the others wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import fakeredis
import pytest

from tests.garbage import only_new_garbage
from tests.performance.redis_clients import fake_redis, own_namespace, real_redis
from tests.performance.tools import Loads, SlowStorage, hearing, now, virtual
from tests.services import require_service
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive, MemoryStorage, RedisStorage
from tta_primitives.performance.leases import LONGEST_PAUSE, PATIENCE, Lease


def ctx(deadline: float | None = None) -> WorkflowContext:
    return WorkflowContext(deadline=deadline)


@pytest.fixture
def client():
    return fake_redis()


@pytest.fixture
def fleet(client):
    """Return a function that makes caches as processes of a fleet have them."""

    def make(load, count=3, **options):
        options = {"ttl": 3600, "storage": client, "namespace": "n", **options}
        return [CachePrimitive(load, **options) for _ in range(count)]

    return make


async def leases(client) -> list:
    return [key async for key in client.scan_iter("*:lease")]


@virtual
async def test_a_fleet_loads_once(client, fleet) -> None:
    """All get the value, soon after it is there, and no lease is left."""
    loads = Loads("v", seconds=3)
    caches = fleet(loads.load, 10)
    with hearing() as ear:
        calls = [cache.execute("k", ctx()) for cache in caches for _ in range(5)]
        assert await asyncio.gather(*calls) == ["v"] * 50
    assert loads.count == 1
    assert 3 <= now() <= 3 + 1.1 * LONGEST_PAUSE
    assert sum(cache.stats.loads for cache in caches) == 1
    assert sum(cache.stats.lease_waits for cache in caches) == 9
    waits = [detail for name, detail in ear.heard if name == "cache.lease_waited"]
    assert len(waits) == 9
    assert all(not wait["loads"] and wait["seconds"] >= 3 for wait in waits)
    assert await leases(client) == []


@virtual
async def test_a_lease_is_for_five_seconds_unless_told_otherwise(client, fleet) -> None:
    """So long others wait for a process that has died."""
    [cache] = fleet(Loads(seconds=1).load, 1)
    loading = asyncio.create_task(cache.execute("k", ctx()))
    await asyncio.sleep(0.5)
    [key] = await leases(client)
    assert await client.pttl(key) == 4500
    await loading


@virtual
async def test_who_cannot_ask_does_not_hold_a_lease() -> None:
    """Somebody else may have it by now."""
    server = fakeredis.FakeServer()
    lease = Lease(RedisStorage(fake_redis(server)), "k", 60)
    assert await lease.acquire()
    assert await lease.is_held()
    server.connected = False
    assert not await lease.is_held()
    await lease.end()


@virtual
async def test_other_keys_do_not_wait(fleet) -> None:
    """A lease is one key's."""
    loads = Loads(seconds=3)
    caches = fleet(loads.load)
    calls = [cache.execute(f"k{n}", ctx()) for n, cache in enumerate(caches)]
    await asyncio.gather(*calls)
    assert (loads.count, now()) == (3, 3.0)


@virtual
async def test_a_long_load_keeps_its_lease(fleet) -> None:
    """It is renewed for as long as it takes."""
    loads = Loads("v", seconds=50)
    caches = fleet(loads.load, lease=5)
    got = await asyncio.gather(*(cache.execute("k", ctx()) for cache in caches))
    assert (got, loads.count) == (["v"] * 3, 1)


@virtual
async def test_the_lease_of_who_has_died_is_taken_over(client, fleet) -> None:
    """By one, when its time is over."""
    loads = Loads("v", seconds=1)
    caches = fleet(loads.load)
    key = caches[0]._shelf.key("k")
    await client.set(f"{key}:lease", "0" * 16 + "dead", px=5_000)
    got = await asyncio.gather(*(cache.execute("k", ctx()) for cache in caches))
    assert (got, loads.count) == (["v"] * 3, 1)
    assert 6 <= now() <= 6 + 2.2 * LONGEST_PAUSE


@virtual
async def test_a_failed_load_is_repeated_by_one_after_the_other(fleet) -> None:
    """Not by all at once: what is down is not trampled on."""
    running = most = count = 0

    async def load(key):
        nonlocal running, most, count
        running += 1
        count += 1
        number, most = count, max(most, running)
        await asyncio.sleep(1)
        running -= 1
        if number < 4:
            msg = f"failure {number}"
            raise ValueError(msg)
        return "v"

    caches = fleet(load, 6)
    calls = (cache.execute("k", ctx()) for cache in caches)
    got = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(map(str, got)) == ["failure 1", "failure 2", "failure 3", *"vvv"]
    assert (most, count) == (1, 4)


@virtual
async def test_a_cancelled_load_gives_its_lease_back(client, fleet) -> None:
    """The next one loads at once, not when the lease has ended by itself."""
    loads = Loads("v", seconds=2)
    first, second, _ = fleet(loads.load)
    leaving = asyncio.create_task(first.execute("k", ctx()))
    await asyncio.sleep(1)
    waiting = asyncio.create_task(second.execute("k", ctx()))
    await asyncio.sleep(0.5)
    leaving.cancel()
    assert await waiting == "v"
    assert now() <= 3.5 + LONGEST_PAUSE
    assert (loads.count, loads.cancelled) == (2, 1)
    assert await leases(client) == []


@virtual
async def test_who_waits_may_be_cancelled(client, fleet) -> None:
    """The load goes on for the others."""
    loads = Loads("v", seconds=2)
    caches = fleet(loads.load)
    tasks = [asyncio.create_task(cache.execute("k", ctx())) for cache in caches]
    await asyncio.sleep(1)
    tasks[1].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert (got[0], type(got[1]), got[2]) == ("v", asyncio.CancelledError, "v")


@virtual
async def test_who_has_little_time_waits_for_half_of_it(fleet) -> None:
    """And then loads without the lease, for himself and nobody else."""
    loads = Loads("slow", "quick", seconds=100)
    first, second, _ = fleet(loads.load)
    slow = asyncio.create_task(first.execute("k", ctx()))
    await asyncio.sleep(10)
    loads.seconds = 1
    with hearing() as ear:
        assert await second.execute("k", ctx(deadline=20)) == "quick"
    assert now() == 16.0
    [detail] = [detail for name, detail in ear.heard if name == "cache.lease_waited"]
    assert detail == {"seconds": 5.0, "loads": True}
    slow.cancel()


@virtual
async def test_nobody_waits_for_ever_for_a_load_that_hangs(fleet) -> None:
    """After twelve lengths of a lease he takes it away, and loads himself."""
    loads = Loads("never", "v", seconds=100_000)
    first, second, _ = fleet(loads.load, lease=5)
    hanging = asyncio.create_task(first.execute("k", ctx()))
    await asyncio.sleep(1)
    loads.seconds = 1
    assert await second.execute("k", ctx()) == "v"
    assert now() == 1 + PATIENCE * 5 + 1
    assert await second.execute("k", ctx()) == "v"
    hanging.cancel()


@virtual
async def test_a_value_written_between_two_looks_is_used(client, fleet) -> None:
    """Who gets the lease looks once more before he loads."""
    loads = Loads("mine")
    cache, other, _ = fleet(loads.load)
    storage = cache._leases
    acquire = storage.acquire

    async def acquire_late(key, token, seconds):
        storage.acquire = acquire
        await other.execute("k", ctx())
        return await acquire(key, token, seconds)

    storage.acquire = acquire_late
    assert await cache.execute("k", ctx()) == "mine"
    assert loads.count == 1
    assert await leases(client) == []


@virtual
async def test_one_process_refreshes_what_is_stale(client, fleet) -> None:
    """The others find that it has been refreshed."""
    loads = Loads(seconds=1)
    caches = fleet(loads.load, ttl=10, stale_ttl=60)
    await caches[0].execute("k", ctx())
    await asyncio.sleep(20)
    for cache in caches:
        assert await cache.execute("k", ctx()) == 1
    await asyncio.sleep(5)
    assert loads.count == 2
    assert sum(cache.stats.loads for cache in caches) == 2
    assert await leases(client) == []


@pytest.mark.parametrize("options", [{"lease": 0}, {"single_flight": False}])
@virtual
async def test_without_a_lease_each_process_loads(client, fleet, options) -> None:
    """If it is switched off, or if callers do not even share loads here."""
    loads = Loads(seconds=1)
    caches = fleet(loads.load, **options)
    await asyncio.gather(*(cache.execute("k", ctx()) for cache in caches))
    assert (loads.count, now()) == (3, 1.0)
    assert await leases(client) == []


@pytest.mark.parametrize("options", [{"lease": 0}, {"single_flight": False}])
@virtual
async def test_without_a_lease_each_process_refreshes(fleet, options) -> None:
    """As each of them loads."""
    loads = Loads(seconds=1)
    caches = fleet(loads.load, ttl=10, stale_ttl=60, **options)
    await caches[0].execute("k", ctx())
    await asyncio.sleep(20)
    await asyncio.gather(*(cache.execute("k", ctx()) for cache in caches))
    await asyncio.sleep(5)
    assert loads.count == 4


@virtual
async def test_storages_without_leases_work_as_before() -> None:
    """A cache asks for what is there."""
    for storage in (MemoryStorage(), SlowStorage()):
        loads = Loads("v")
        cache = CachePrimitive(
            loads.load,
            ttl=60,
            storage=storage,
            namespace="n",
            lease=timedelta(seconds=5),
        )
        assert [await cache.execute("k", ctx()) for _ in range(2)] == ["v", "v"]
        assert loads.count == 1


@virtual
async def test_a_redis_that_fails_while_others_wait_stops_nobody(client, fleet) -> None:
    """They load themselves, as if there were no lease."""
    loads = Loads(seconds=10)
    caches = fleet(loads.load)
    tasks = [asyncio.create_task(cache.execute("k", ctx())) for cache in caches]
    await asyncio.sleep(5)

    async def fail(*args, **options):
        raise ConnectionError("down")

    client.execute_command = client.pipeline = fail
    assert sorted(await asyncio.gather(*tasks)) == [1, 2, 3]
    assert now() <= 15 + LONGEST_PAUSE


@virtual
async def test_a_lease_that_was_lost_keeps_nothing(client, fleet) -> None:
    """A process that was held up for long does not overwrite what came after it."""
    loads = Loads("old", "new", seconds=4)
    first, second, _ = fleet(loads.load, lease=3)
    with hearing() as ear:
        late = asyncio.create_task(first.execute("k", ctx()))
        await asyncio.sleep(0.5)
        [lease] = await leases(client)
        await client.delete(lease)  # As if it had ended.
        loads.seconds = 1
        assert await second.execute("k", ctx()) == "new"
        assert await late == "old"
    assert "cache.lease_lost" in ear.names
    assert await first.execute("k", ctx()) == "new"


@pytest.mark.parametrize("keeps", [True, False])
@virtual
async def test_case_66_who_came_after_an_invalidation_elsewhere_gets_no_older_value(
    fleet, keeps
) -> None:
    """Though a load that began before it is under way here, and is joined."""
    loads = Loads("old", "new", seconds=4)
    here, there, _ = fleet(loads.load, cache_if=lambda value: keeps)
    before = [asyncio.create_task(here.execute("k", ctx())) for _ in range(2)]
    await asyncio.sleep(1)
    middle = asyncio.create_task(here.execute("k", ctx()))
    await asyncio.sleep(0.5)
    await there.invalidate("k")
    after = [asyncio.create_task(here.execute("k", ctx())) for _ in range(3)]
    assert await asyncio.gather(*before) == ["old", "old"]
    # Who joined it in the middle cannot tell on which side of that he was.
    assert await asyncio.gather(middle, *after) == ["new"] * 4
    assert loads.count == 2


@virtual
async def test_nobody_joins_a_load_that_is_known_to_be_outdated(fleet) -> None:
    """When its lease is to be renewed, it is seen to be lost; others load at once."""
    loads = Loads("old", "new", seconds=50)
    here, there, _ = fleet(loads.load, lease=6)
    slow = asyncio.create_task(here.execute("k", ctx()))
    await asyncio.sleep(1)
    await there.invalidate("k")
    await asyncio.sleep(2)
    loads.seconds = 1
    assert await here.execute("k", ctx()) == "new"
    assert now() == 4.0
    assert await slow == "old"
    assert await here.execute("k", ctx()) == "new"


@virtual
async def test_nobody_joins_a_load_whose_value_is_being_written(fleet) -> None:
    """It may be outdated before its writer hears that it was written."""
    loads = Loads("old", "new", seconds=1)
    here, there, _ = fleet(loads.load)
    storage = here._leases
    set_leased, late = storage.set_leased, []

    async def set_leased_late(key, record, token):
        storage.set_leased = set_leased
        written = await set_leased(key, record, token)
        await there.invalidate("k")
        late.append(asyncio.create_task(here.execute("k", ctx())))
        await asyncio.sleep(0.5)
        return written

    storage.set_leased = set_leased_late
    assert await here.execute("k", ctx()) == "old"
    assert await late[0] == "new"


@virtual
async def test_in_an_outage_a_load_is_shared_as_ever(client, fleet) -> None:
    """Where nobody can invalidate anything, nothing is outdated."""
    loads = Loads(seconds=4)
    cache, *_ = fleet(loads.load)

    async def fail(*args, **options):
        raise ConnectionError("down")

    client.execute_command = client.pipeline = fail
    tasks = []
    for _ in range(4):
        tasks.append(asyncio.create_task(cache.execute("k", ctx())))
        await asyncio.sleep(0.9)
    assert await asyncio.gather(*tasks) == [1] * 4
    assert loads.count == 1


@virtual
async def test_a_load_that_was_invalidated_again_and_again_answers_at_last(
    fleet,
) -> None:
    """Nobody waits for more than the load under way and the one after it."""
    loads = Loads(seconds=4)
    here, there, _ = fleet(loads.load)
    tasks = []
    for _ in range(20):
        tasks.append(asyncio.create_task(here.execute("k", ctx())))
        await asyncio.sleep(1)
        await there.invalidate("k")
    await asyncio.gather(*tasks)
    assert now() <= 20 + 2 * 4 + 1


@pytest.mark.parametrize("seconds", [0, 5])
@virtual
async def test_a_failed_load_under_a_lease_leaves_no_cyclic_garbage(
    fleet, seconds
) -> None:
    """Neither here nor for those who waited."""
    loads = Loads(ValueError("no"), seconds=seconds)
    caches = fleet(loads.load, 1)

    async def fail() -> None:
        for _ in range(3):
            with contextlib.suppress(ValueError):
                await caches[0].execute("k", ctx())

    garbage = []
    with only_new_garbage():
        for _ in range(4):
            await fail()
            garbage.append(gc.collect())
    assert garbage[1:] == [0, 0, 0]  # The first makes what stays.


@virtual
async def test_no_task_is_left_behind(fleet) -> None:
    """Renewals end with what they renew."""
    caches = fleet(Loads(ValueError("no"), "v", seconds=20).load)
    calls = (cache.execute("k", ctx()) for cache in caches)
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


PROCESS = """
import asyncio, json, sys
from redis.asyncio import Redis
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive

host, port, namespace, name = sys.argv[1:]

async def main():
    async with Redis(host=host, port=int(port)) as client:
        async def load(key):
            number = await client.incr(f"tta:{namespace}:loads")
            await asyncio.sleep(0.5)
            return f"{key} loaded {number} times"

        cache = CachePrimitive(load, ttl=60, storage=client, namespace=namespace)
        await client.incr(f"tta:{namespace}:ready")
        while int(await client.get(f"tta:{namespace}:ready")) < 3:
            await asyncio.sleep(0.005)
        calls = (cache.execute("k", WorkflowContext()) for _ in range(20))
        values = sorted(set(await asyncio.gather(*calls)))
        print(json.dumps([values, cache.stats.loads]))

asyncio.run(main())
"""


async def test_processes_that_share_a_redis_share_one_load() -> None:
    """For real: three of them, with twenty callers each."""
    host, port = require_service("redis")
    root = Path(__file__).parents[2]
    async with real_redis() as client, own_namespace(client) as namespace:
        command = [sys.executable, "-c", PROCESS, host, str(port), namespace]
        processes = [
            subprocess.Popen(
                [*command, str(number)], cwd=root, stdout=subprocess.PIPE, text=True
            )
            for number in range(3)
        ]
        outputs = [
            (await asyncio.to_thread(process.communicate, timeout=60))[0]
            for process in processes
        ]
    got = [json.loads(output) for output in outputs]
    assert [values for values, _ in got] == [["k loaded 1 times"]] * 3
    assert sorted(loads for _, loads in got) == [0, 0, 1]
