"""A cache has the types of what it wraps; an open one those of what follows it."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive
from tta_primitives.performance import (
    CachePrimitive,
    CacheStats,
    JsonSerializer,
    MemoryStorage,
    Storage,
)
from tta_primitives.primitive import Open


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


async def use() -> None:
    assert_type(await cache.execute("a", WorkflowContext()), list[str])
    await cache.invalidate("a")
    await cache.invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


CachePrimitive(length)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
CachePrimitive(length, ttl="60")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
CachePrimitive(length, ttl=60, copy="some")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
