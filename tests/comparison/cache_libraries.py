"""How each library caches, as its own documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.comparison.cases import OURS, LacksError, Library
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.comparison.cases import Function

__all__ = ["LIBRARIES", "Cache"]


class Cache(Library):
    """What a cache may be asked for; values are kept for a minute."""

    @classmethod
    def cached(cls, load: Function) -> Function:
        """Cache a function as simply as can be."""
        raise LacksError

    @classmethod
    def together(cls, load: Function, *, expected: float = 2.0) -> Function:
        """Let calls that want the same at the same time share a load.

        A load is expected to take so many seconds.
        """
        return cls.cached(load)

    @classmethod
    def apart(cls, load: Function) -> Function:
        """Hand out values that callers may change."""
        return cls.cached(load)

    @classmethod
    def typed(cls, load: Function) -> Function:
        """Tell inputs apart by type as well."""
        return cls.cached(load)

    @classmethod
    def of_objects(cls) -> Function:
        """Return what makes an object with a number, and asks its method for it."""

        class Service:
            def __init__(self, number: int) -> None:
                self.number = number

            async def get(self, key: str) -> int:
                return self.number

        Service.get = cls.cached(Service.get)  # As a decorator does.

        async def ask(number):
            return await Service(number).get("key")

        return ask

    @classmethod
    def forgetting(
        cls, load: Function
    ) -> tuple[Function, Callable[[str], Awaitable[object]]]:
        """Return the function, and what forgets the value for a key."""
        raise LacksError

    @classmethod
    def held(cls, load: Function) -> tuple[Function, Callable[[], int]]:
        """Return the function, and what counts the entries it holds."""
        raise LacksError

    @classmethod
    def stale(cls, load: Function, fresh: float) -> Function:
        """Return old values at once, and load new ones in the background."""
        raise LacksError

    @classmethod
    def stale_if_error(cls, load: Function, fresh: float) -> Function:
        """Return old values where loading fails."""
        raise LacksError

    @classmethod
    def on_redis(cls, load: Function, host: str, port: int, name: str) -> Function:
        """Keep the values in Redis."""
        raise LacksError


class Ours(Cache):
    """CachePrimitive."""

    name = OURS

    @classmethod
    def _made(cls, load: Any, **options: Any) -> Function:
        made = CachePrimitive(load, **{"ttl": 60, **options})
        return lambda value: made.execute(value, WorkflowContext())

    @classmethod
    def cached(cls, load):
        return cls._made(load)

    @classmethod
    def of_objects(cls):
        class Service:
            def __init__(self, number: int) -> None:
                self.number = number

            async def get(self, key: str) -> int:
                return self.number

        async def ask(number):
            return await cls.cached(Service(number).get)("key")

        return ask

    @classmethod
    def forgetting(cls, load):
        made = CachePrimitive(load, ttl=60)
        return lambda value: made.execute(value, WorkflowContext()), made.invalidate

    @classmethod
    def held(cls, load):
        made = CachePrimitive(load, ttl=60)
        return (
            lambda value: made.execute(value, WorkflowContext()),
            lambda: made.stats.size or 0,
        )

    @classmethod
    def stale(cls, load, fresh):
        return cls._made(load, ttl=fresh, stale_ttl=60)

    @classmethod
    def stale_if_error(cls, load, fresh):
        return cls._made(load, ttl=fresh, stale_if_error=60)

    @classmethod
    def on_redis(cls, load, host, port, name):
        from redis.asyncio import Redis

        return cls._made(load, storage=Redis(host=host, port=port), namespace=name)


class Cashews(Cache):
    """`@cache`."""

    name = distribution = "cashews"

    @classmethod
    def _cache(cls, url: str = "mem://") -> Any:
        from cashews import Cache as CashewsCache

        cache = CashewsCache()
        cache.setup(url)
        return cache

    @classmethod
    def cached(cls, load):
        return cls._cache()(ttl=60)(load)

    @classmethod
    def forgetting(cls, load):
        cache = cls._cache()
        return cache(ttl=60, key="key:{value}")(load), lambda key: cache.delete(
            f"key:{key}"
        )

    @classmethod
    def held(cls, load):
        cache = cls._cache()
        # The only place where they are counted.
        store = cache._get_backend("")
        return cache(ttl=60)(load), lambda: len(store.store)

    @classmethod
    def stale(cls, load, fresh):
        return cls._cache().early(ttl=60, early_ttl=fresh)(load)

    @classmethod
    def stale_if_error(cls, load, fresh):
        return cls._cache().soft(ttl=60, soft_ttl=fresh)(load)

    @classmethod
    def on_redis(cls, load, host, port, name):
        cache = cls._cache(f"redis://{host}:{port}")
        return cache(ttl=60, key=name + ":{value}")(load)


class Aiocache(Cache):
    """`@cached`, or `@cached_stampede` where many ask at once."""

    name = distribution = "aiocache"

    @classmethod
    def cached(cls, load):
        from aiocache import cached

        return cached(ttl=60, namespace=uuid4().hex)(load)

    @classmethod
    def together(cls, load, *, expected=2.0):
        from aiocache import cached_stampede

        return cached_stampede(lease=expected, ttl=60, namespace=uuid4().hex)(load)

    @classmethod
    def forgetting(cls, load):
        from aiocache import cached_stampede

        made = cached_stampede(
            ttl=60, namespace=uuid4().hex, key_builder=lambda f, value: str(value)
        )(load)
        return made, made.cache.delete

    @classmethod
    def held(cls, load):
        made = cls.cached(load)
        return made, lambda: len(made.cache._cache)

    @classmethod
    def on_redis(cls, load, host, port, name):
        from aiocache import Cache as AiocacheCache
        from aiocache import cached

        return cached(
            ttl=60,
            cache=AiocacheCache.REDIS,
            endpoint=host,
            port=port,
            namespace=name,
            key_builder=lambda f, value: f":{value}",
        )(load)


class AsyncLru(Cache):
    """`@alru_cache`."""

    name = distribution = "async-lru"

    @classmethod
    def _made(cls, load: Any, **options: Any) -> Any:
        from async_lru import alru_cache

        return alru_cache(**{"ttl": 60, **options})(load)

    @classmethod
    def cached(cls, load):
        return cls._made(load)

    @classmethod
    def typed(cls, load):
        return cls._made(load, typed=True)

    @classmethod
    def forgetting(cls, load):
        made = cls._made(load)

        async def forget(key):
            made.cache_invalidate(key)

        return made, forget

    @classmethod
    def held(cls, load):
        made = cls._made(load)
        return made, lambda: made.cache_info().currsize


LIBRARIES = (Ours, Cashews, Aiocache, AsyncLru)
