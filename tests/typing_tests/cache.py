"""A cache has the types of what it wraps; an open one those of what follows it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from redis.asyncio import Redis

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive
from tta_primitives.performance import (
    CachePrimitive,
    CacheStats,
    JsonSerializer,
    LeaseStorage,
    MemoryStorage,
    Record,
    RedisStorage,
    Storage,
    UnreadableRecord,
)
from tta_primitives.performance.conformance import LEASE_CHECKS, STORAGE_CHECKS
from tta_primitives.primitive import Open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


async def length(text: str) -> int:
    return len(text)


async def traced(text: str, context: WorkflowContext) -> bytes:
    return f"{context.correlation_id} {text}".encode()


def double(number: int) -> int:
    return 2 * number


class Ask(WorkflowPrimitive[str, list[str]]):
    async def execute(self, input_data: str, context: WorkflowContext, /) -> list[str]:
        return [input_data, context.correlation_id]


assert_type(CachePrimitive(ttl=60), CachePrimitive[Open, Open])
assert_type(CachePrimitive(Ask(), ttl=60), CachePrimitive[str, list[str]])
assert_type(CachePrimitive(primitive=Ask(), ttl=60), CachePrimitive[str, list[str]])
assert_type(CachePrimitive(length, ttl=60), CachePrimitive[str, int])
assert_type(CachePrimitive(traced, ttl=60), CachePrimitive[str, bytes])
assert_type(CachePrimitive(double, ttl=timedelta(hours=1)), CachePrimitive[int, int])
assert_type(CachePrimitive(ttl=60) >> Ask(), SequentialPrimitive[str, list[str]])
assert_type(CachePrimitive(length, ttl=60) >> double, SequentialPrimitive[str, int])

cache = CachePrimitive(
    Ask(),
    ttl=len,
    storage=MemoryStorage(max_size=10),
    key_fn=lambda text, context: (text, context),
    namespace="answers",
    negative_ttl=5,
    negative_on=(LookupError, OSError),
    cache_if=bool,
    serializer=JsonSerializer(),
    tags=lambda text, value: [text],
)
assert_type(cache.stats, CacheStats)
storage: Storage = MemoryStorage()

redis = Redis()
shared: LeaseStorage = RedisStorage(redis, max_record_bytes=10_000)
on_redis = CachePrimitive(Ask(), ttl=3600, storage=redis, lease=timedelta(seconds=5))
assert_type(on_redis, CachePrimitive[str, list[str]])
assert_type(on_redis.stats.lease_waits, int)
assert_type(
    CachePrimitive(length, ttl=60, storage=shared, serializer="msgpack"),
    CachePrimitive[str, int],
)
assert_type(
    CachePrimitive(ttl=300, max_size=1000)
    >> Ask()
    >> CachePrimitive(ttl=3600, storage=redis),
    SequentialPrimitive[str, list[str]],
)


class MyStorage:
    """A storage of a user's own: five methods, and no base class."""

    async def get_many(self, keys: Sequence[str], /) -> list[Record | None]:
        return [None for _ in keys]

    async def set_many(self, records: Mapping[str, Record], /) -> None: ...
    async def delete(self, keys: Sequence[str], /) -> None: ...
    async def delete_tagged(self, tags: Sequence[str], /) -> None: ...
    async def clear(self, prefix: str, /) -> None: ...


CachePrimitive(length, ttl=60, storage=MyStorage())


async def use() -> None:
    for check in (*STORAGE_CHECKS, *LEASE_CHECKS):
        await check(shared)
    [record] = await shared.get_many(["k"])
    assert_type(record, Record | UnreadableRecord | None)
    assert_type(await shared.acquire("k", "token", 5), bool)
    assert_type(await cache.execute("a", WorkflowContext()), list[str])
    await cache.invalidate("a")
    await cache.invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


CachePrimitive(length)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
CachePrimitive(length, ttl="60")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
CachePrimitive(length, ttl=60, copy="some")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
CachePrimitive(length, ttl=60, storage="redis://localhost")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
RedisStorage("redis://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
