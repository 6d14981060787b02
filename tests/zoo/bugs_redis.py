"""Clients of Redis, with fakeredis."""

from __future__ import annotations

import asyncio

import fakeredis

from pytest_tta import op
from tests.zoo.bug import Bug

__all__ = ["BUGS"]


def client():
    """Return a client of an empty server of its own."""
    return fakeredis.FakeAsyncRedis(
        server=fakeredis.FakeServer(), decode_responses=True, socket_timeout=5
    )


# Read, modify, write: both read 0, both write 1.


async def count_by_reading(redis):
    """Read the counter, and write the next number."""
    number = int(await redis.get("visits") or 0)
    await redis.set("visits", number + 1)


async def count_by_adding(redis):
    """Let the server count."""
    await redis.incr("visits")


def lost_count(tta, build):
    """Two visits are counted."""

    async def later(redis):
        await op("session.read")
        await op("session.touch")
        await build(redis)

    async def serve(_):
        async with client() as redis, asyncio.timeout(30):
            await redis.ping()
            async with asyncio.TaskGroup() as group:
                group.create_task(build(redis))
                group.create_task(later(redis))
            return await redis.get("visits")

    assert tta.run(serve, None) == "2"


# Stale write: what was read before an invalidation is stored after it.


class Site:
    """A page in a database, with a cache before it."""

    def __init__(self, redis):
        self.redis = redis
        self.text = "old"
        self.version = 1

    async def select(self):
        await op("db.select")
        return self.text

    async def update(self, text):
        async with op("db.update"):
            self.text = text
            self.version += 1


class DeletingSite(Site):
    """A cache whose entries are deleted when the page changes."""

    async def show(self):
        text = await self.redis.get("page")
        if text is None:
            text = await self.select()
            await self.redis.set("page", text)
        return text

    async def change(self, text):
        await self.update(text)
        await self.redis.delete("page")


class VersionedSite(Site):
    """A cache whose entries belong to a version of the page."""

    async def show(self):
        key = f"page:{self.version}"
        text = await self.redis.get(key)
        if text is None:
            text = await self.select()
            if key == f"page:{self.version}":
                await self.redis.set(key, text)
        return text

    async def change(self, text):
        await self.update(text)


def stale_write(tta, build):
    """A page is shown while it is changed; afterwards all see the new text."""

    async def editor(site):
        await op("login.read")
        await op("form.read")
        await site.change("new")

    async def serve(_):
        async with client() as redis, asyncio.timeout(30):
            site = build(redis)
            await redis.ping()
            async with asyncio.TaskGroup() as group:
                group.create_task(site.show())
                group.create_task(editor(site))
            return await site.show()

    assert tta.run(serve, None) == "new"


# A counter that never expires: the process dies between INCR and EXPIRE.


async def hit_and_expire(redis, keys):
    """Count, then set when the window ends."""
    hits = await redis.incr("hits:ann")
    keys.add("hits:ann")
    if hits == 1:
        await redis.expire("hits:ann", 60)
    return hits


async def hit_in_window(redis, keys):
    """Begin the window with its end, then count."""
    await redis.set("hits:ann", 0, ex=60, nx=True)
    hits = await redis.incr("hits:ann")
    keys.add("hits:ann")
    return hits


def immortal_counter(tta, build):
    """Requests are counted per minute; the count ends with the minute."""
    immortal = []
    tta.always(lambda: not immortal, "each counter ends with its window")

    async def serve(_):
        keys = set()
        async with client() as redis:
            try:
                return await build(redis, keys)
            finally:
                server = redis.connection_pool.connection_kwargs["server"]
                entries = server.dbs[0]
                immortal[:] = [
                    key
                    for key in keys
                    if (item := entries.get(key.encode())) and item.expireat is None
                ]

    assert tta.run(serve, None) == 1


BUGS = (
    Bug(
        "lost-count",
        "two visits are counted as one",
        ("assertion",),
        lost_count,
        count_by_reading,
        count_by_adding,
    ),
    Bug(
        "stale-write",
        "an old text is stored after the entry was deleted",
        ("assertion",),
        stale_write,
        DeletingSite,
        VersionedSite,
        issue_url="https://github.com/Suor/django-cacheops/pull/302",
    ),
    Bug(
        "immortal-counter",
        "a rate limit that never ends",
        ("invariant",),
        immortal_counter,
        hit_and_expire,
        hit_in_window,
        issue_url="https://github.com/alisaifee/limits/issues/14",
    ),
)
