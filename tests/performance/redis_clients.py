"""Clients of Redis for the tests: of a double, and of a real server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from uuid import uuid4

import fakeredis
from redis.asyncio import Redis

from tests.services import require_service


def fake_redis(server: fakeredis.FakeServer | None = None, **options):
    """Return a client of a double that is empty, unless a server is given."""
    server = fakeredis.FakeServer() if server is None else server
    return fakeredis.FakeAsyncRedis(server=server, **options)


@asynccontextmanager
async def real_redis(**options):
    """Yield a client of the real server, and close it."""
    host, port = require_service("redis")
    async with Redis(host=host, port=port, **options) as client:
        yield client


@asynccontextmanager
async def own_namespace(client):
    """Yield a namespace that nobody else uses, and leave nothing of it behind."""
    namespace = f"test-{uuid4().hex}"
    try:
        yield namespace
    finally:
        async for key in client.scan_iter(match=f"*{namespace}*", count=1000):
            await client.unlink(key)
