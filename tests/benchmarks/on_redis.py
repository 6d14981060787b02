"""What a cache costs whose entries lie in Redis, beside the bare commands.

Here the time on the wall counts: what the server takes is part of the answer.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from tests.benchmarks.measure import race
from tests.benchmarks.table import Figures, NoReferenceError, Rows
from tests.services import address_of, listens
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis as AsyncRedis

    from tests.benchmarks.measure import Block, Pace

    Get: TypeAlias = Callable[[str], Awaitable[object]]

__all__ = ["ROWS"]

ROWS = Rows("Cache on Redis, a value of 1 KB")

_VALUE = "x" * 1000
_MANY = [f"key-{number}" for number in range(100)]


async def load(_key: str) -> str:
    """Return what is kept."""
    return _VALUE


class _Place:
    """A part of a server that nobody else uses, and all that talks to it."""

    def __init__(self) -> None:
        from redis import Redis
        from redis.asyncio import Redis as AsyncRedis

        self.host, self.port = address_of("redis")
        if not listens(self.host, self.port):
            msg = f"no Redis server at {self.host}:{self.port}"
            raise NoReferenceError(msg)
        self.url = f"redis://{self.host}:{self.port}"
        self.name = f"tta-bench-{uuid4().hex}"
        self._clerk = Redis.from_url(self.url)
        self._raw = AsyncRedis.from_url(self.url)
        self._ours = AsyncRedis.from_url(self.url, client_name=self.name)
        self._closers = [self._raw.aclose, self._ours.aclose]

    def raw(self) -> Get:
        """Return the bare command, whose keys are there already."""
        for key in _MANY:
            self._clerk.set(f"{self.name}:{key}", _VALUE, ex=600)
        client, name = self._raw, self.name
        return lambda key: client.get(f"{name}:{key}")

    def ours(self, client: AsyncRedis | None = None) -> Get:
        """Return our cache, with our client unless another is given."""
        storage = self._ours if client is None else client
        cache = CachePrimitive(load, ttl=600, storage=storage, namespace=self.name)
        context = WorkflowContext()
        return lambda key: cache.execute(key, context)

    async def fill(self) -> None:
        """Load all keys of our cache by another client."""
        await asyncio.gather(*map(self.ours(self._raw), _MANY))

    def peers(self) -> dict[str, Get | None]:
        """Return the caches of others; None for one that is not installed."""
        found: dict[str, Get | None] = {}
        for name, make in {
            "cashews": self._cashews,
            "aiocache": self._aiocache,
        }.items():
            try:
                found[name] = make()
            except ImportError:
                found[name] = None
        return found

    def _cashews(self) -> Get:
        from cashews import Cache

        cache = Cache()
        cache.setup(self.url)
        self._closers.append(cache.close)
        return cache(ttl=600, prefix=self.name)(load)

    def _aiocache(self) -> Get:
        from aiocache import Cache, cached

        where = {"endpoint": self.host, "port": self.port, "namespace": self.name}
        one = cached(ttl=600, cache=Cache.REDIS, **where)(load)
        self._closers.append(one.cache.close)
        return one

    def connections(self) -> int:
        """Return how many connections our cache has opened."""
        return sum(one["name"] == self.name for one in self._clerk.client_list())

    async def leave(self) -> None:
        """Remove the keys, and close the connections."""
        for key in self._clerk.scan_iter(f"*{self.name}*", count=1000):
            self._clerk.delete(key)
        self._clerk.close()
        for close in self._closers:
            await close()


def _one(get: Get) -> Block:
    async def block(count: int) -> float:
        begin = perf_counter()
        for _ in range(count):
            await get(_MANY[0])
        return perf_counter() - begin

    return block


def _all(get: Get) -> Block:
    async def block(count: int) -> float:
        begin = perf_counter()
        for _ in range(count):
            await asyncio.gather(*map(get, _MANY))
        return perf_counter() - begin

    return block


def _beside_raw(block: Callable[[Get], Block], pace: Pace) -> Figures:
    place = _Place()
    peers = place.peers()
    blocks = {"raw": block(place.raw()), "ours": block(place.ours())}
    theirs = {name: block(get) for name, get in peers.items() if get is not None}
    times = race({**blocks, **theirs}, pace, afterwards=place.leave)
    ratios = {n: times.ratio(n, "raw") if n in times else None for n in peers}
    micros = times.seconds("raw") * 1e6
    return Figures(
        times.ratio("ours", "raw"), ratios, f"the reference: {micros:.0f} us"
    )


@ROWS.row("redis-hit", "Redis cache hit", "x raw GET", 1.2)
def redis_hit(pace: Pace) -> Figures:
    """Race hits with the bare command."""
    return _beside_raw(_one, pace)


@ROWS.row(
    "redis-hits",
    "100 concurrent Redis hits",
    "x gather of GETs",
    0.2,
    because=(
        "12 us are there for a hit where a GET of gather takes 60. Six of them are "
        "the task and the future that gather makes of anything that waits once; a hit "
        "is some hundred Python calls besides: its key, its place in a batch, and its "
        "record, which is decoded and checked before it is believed."
    ),
)
def redis_hits(pace: Pace) -> Figures:
    """Race hits of a hundred keys at once with a hundred bare commands."""
    return _beside_raw(_all, pace)


@ROWS.row("redis-connections", "100 concurrent Redis hits", "connections", 1)
def redis_connections(_pace: Pace) -> Figures:
    """Ask the server how many connections they came by."""
    place = _Place()

    async def count() -> int:
        try:
            await place.fill()
            await asyncio.gather(*map(place.ours(), _MANY))
            return place.connections()
        finally:
            await place.leave()

    return Figures(asyncio.run(count()))
