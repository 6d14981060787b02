"""A Redis that is restarted, hung, killed and emptied while callers use the cache."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.performance.tools import now
from tta_primitives import WorkflowContext
from tta_primitives.errors import CacheStorageError
from tta_primitives.performance import CachePrimitive

CALLERS = 20
KEYS = 10
LOAD_SECONDS = 0.005

BOUND_SECONDS = 1.0
"""200 ms for Redis, a load, and what a busy machine adds."""


@dataclass
class Traffic:
    """Callers who ask on and on, and what they got.

    The truth about a key is a number that only grows; it is raised before the key is
    invalidated. Whoever asks after an invalidation that succeeded must not get less.
    """

    client: Redis
    truth: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    calls: int = 0
    wrong: list[str] = field(default_factory=list)
    is_over: bool = False

    def __post_init__(self) -> None:
        self.caches = [
            CachePrimitive(
                self.load,
                ttl=60,
                storage=self.client,
                namespace="chaos",
                tags=lambda key, value: [f"tag:{key}"],
                lease=1.0,
            )
            for _ in range(2)
        ]

    async def load(self, key: str) -> list:
        number = self.truth.get(key, 0)
        await asyncio.sleep(LOAD_SECONDS)
        return [key, number]

    async def ask(self, caller: int) -> None:
        cache = self.caches[caller % 2]
        for turn in itertools.count():
            if self.is_over:
                return
            key = f"k{(caller + turn) % KEYS}"
            least, began = self.known.get(key, 0), now()
            name, number = await cache.execute(key, WorkflowContext())
            self.slowest = max(self.slowest, now() - began)
            self.calls += 1
            if name != key or number < least:
                self.wrong.append(f"{key} at least {least}: {name} {number}")
            await asyncio.sleep(0.002)

    async def change(self) -> None:
        for turn in itertools.count():
            if self.is_over:
                return
            key = f"k{turn % KEYS}"
            number = self.truth[key] = self.truth.get(key, 0) + 1
            cache = self.caches[turn % 2]
            try:
                if turn % 3:
                    await cache.invalidate(key)
                else:
                    await cache.invalidate_tags(f"tag:{key}")
            except CacheStorageError:
                continue  # It was not promised that the old value is gone.
            finally:
                await asyncio.sleep(0.01)
            self.known[key] = number


@pytest.fixture
async def traffic(redis_server):
    """Callers on a server of the test's own; at the end all must have been served."""
    async with Redis(host=redis_server.host, port=redis_server.port) as client:
        traffic = Traffic(client)
        tasks = [asyncio.create_task(traffic.ask(n)) for n in range(CALLERS)]
        tasks.append(asyncio.create_task(traffic.change()))
        await asyncio.sleep(0.3)
        yield traffic
        traffic.is_over = True
        await asyncio.gather(*tasks)
        assert traffic.wrong == []
        assert traffic.slowest < BOUND_SECONDS
        assert len(asyncio.all_tasks()) == 1


async def hits_again(traffic: Traffic) -> None:
    """Wait until entries are found again, which must be soon."""
    before = sum(cache.stats.hits for cache in traffic.caches)
    for _ in range(500):
        await asyncio.sleep(0.01)
        if sum(cache.stats.hits for cache in traffic.caches) > before + CALLERS:
            return
    pytest.fail("nothing is found in Redis again")


async def test_calls_go_on_while_redis_is_restarted(traffic, redis_server) -> None:
    """Several times; it comes back empty, and is filled again."""
    for _ in range(3):
        await asyncio.to_thread(redis_server.restart)
        await hits_again(traffic)


async def test_calls_go_on_while_redis_hangs(traffic, redis_server) -> None:
    """It accepts and does not answer; awake, it is used again, old values and all."""
    for seconds in (0.5, 1.5):
        redis_server.hang()
        before = traffic.calls
        await asyncio.sleep(seconds)
        assert traffic.calls > before + CALLERS
        redis_server.wake()
        await hits_again(traffic)


async def test_calls_go_on_while_redis_is_killed(traffic, redis_server) -> None:
    """And is away for a while, in which a call costs hardly more than its load."""
    redis_server.kill()
    await asyncio.sleep(0.5)
    before, began = traffic.calls, now()
    await asyncio.sleep(1)
    assert traffic.calls - before > CALLERS * (now() - began)
    await asyncio.to_thread(redis_server.start)
    await hits_again(traffic)


async def test_calls_go_on_while_redis_is_emptied_and_refilled(
    traffic, redis_server
) -> None:
    """With nothing, and with what is not ours."""
    for round_ in range(5):
        redis_server.ask("FLUSHALL")
        keys = [cache._shelf.key(f"k{round_}") for cache in traffic.caches]
        for key in keys:
            redis_server.ask("RPUSH", key, "planted")
        await hits_again(traffic)


async def test_calls_go_on_while_redis_refuses_writes(traffic, redis_server) -> None:
    """Out of memory it still answers what it has, and errors for the rest."""
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    before = traffic.calls
    await asyncio.sleep(1.5)
    assert traffic.calls > before + CALLERS
    redis_server.ask("CONFIG", "SET", "maxmemory", "0")
    await hits_again(traffic)


async def test_calls_go_on_while_redis_evicts_what_it_likes(
    traffic, redis_server
) -> None:
    """Records, tags, leases: nothing that is missing makes an old value good."""
    for _ in range(30):
        key = redis_server.ask("RANDOMKEY").split(b"\r\n")[1].decode()
        redis_server.ask("DEL", key)
        await asyncio.sleep(0.02)
    await hits_again(traffic)


HOLDER = """
import asyncio, sys
from redis.asyncio import Redis
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive

async def load(key):
    print("loading", flush=True)
    await asyncio.Event().wait()

async def main():
    async with Redis(port=int(sys.argv[1])) as client:
        cache = CachePrimitive(
            load, ttl=60, storage=client, namespace="chaos", lease=1.0
        )
        await cache.execute("k", WorkflowContext())

asyncio.run(main())
"""


async def test_the_load_of_a_process_that_was_killed_is_taken_over(
    redis_server,
) -> None:
    """Within the time of its lease; before that nobody else loads."""

    async def load(key):
        return "taken over"

    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLDER, str(redis_server.port)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as holder:
        try:
            await asyncio.to_thread(holder.stdout.readline)
            async with Redis(port=redis_server.port) as client:
                cache = CachePrimitive(
                    load, ttl=60, storage=client, namespace="chaos", lease=1.0
                )
                waiting = asyncio.create_task(cache.execute("k", WorkflowContext()))
                await asyncio.sleep(1.5)
                assert not waiting.done()
                holder.kill()
                began = now()
                assert await waiting == "taken over"
                assert now() - began < 1.0 + BOUND_SECONDS
        finally:
            holder.kill()
