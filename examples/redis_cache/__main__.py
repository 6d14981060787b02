"""The command: `python -m examples.redis_cache`."""

from __future__ import annotations

import asyncio
import os

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from examples.redis_cache.translator import Request, translator
from tta_primitives import WorkflowContext
from tta_primitives.stats import stats_of


def _clients(count: int) -> list[Redis]:
    """Return as many clients of one Redis as there are workers."""
    url = os.environ.get("REDIS_URL")
    if url:
        return [Redis.from_url(url) for _ in range(count)]
    server = FakeServer()
    return [FakeAsyncRedis(server=server) for _ in range(count)]


async def main() -> None:
    """Translate the same text in two workers, twice in each."""
    clients = _clients(2)
    request = Request(tenant="acme", text="hello world")
    try:
        for name, redis in zip(("first", "second"), clients, strict=True):
            worker = translator(redis)
            for _ in range(2):
                context = WorkflowContext()
                answer = await worker.execute(request, context)
                print(f"{name} worker: {answer!r} in {context.elapsed_ms():.0f} ms")
            memory, shared = stats_of(worker)["cache"], stats_of(worker)["cache/cache"]
            print(f"  hits in memory: {memory['hits']}, in Redis: {shared['hits']}")
    finally:
        for redis in clients:
            await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
