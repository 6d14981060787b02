"""A cache in memory around one on Redis: what is old below begins no new life above."""

from __future__ import annotations

import asyncio

import pytest

from tests.performance.redis_clients import fake_redis
from tests.performance.tools import Loads, SlowStorage, now, virtual
from tta_primitives import WorkflowContext, step
from tta_primitives.errors import CacheStorageError
from tta_primitives.performance import CachePrimitive, MemoryStorage
from tta_primitives.primitive import Wrapper
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive


def ctx() -> WorkflowContext:
    return WorkflowContext()


@pytest.fixture(params=[fake_redis, MemoryStorage], ids=["redis", "memory"])
def storage(request):
    return request.param()


def lower(load, storage, *, ttl=3600, **options):
    return CachePrimitive(load, ttl=ttl, storage=storage, namespace="n", **options)


def keep(primitive):
    return primitive


def retried(primitive):
    return RetryPrimitive(primitive, max_retries=2)


def limited(primitive):
    return TimeoutPrimitive(primitive, timeout_seconds=60)


def all_of_them(primitive):
    return limited(retried(limited(primitive)))


@pytest.mark.parametrize("between", [keep, retried, limited, all_of_them])
@virtual
async def test_a_value_lives_above_no_longer_than_below(storage, between) -> None:
    """What has ten seconds left below is kept for ten seconds above."""
    loads = Loads("old", "new")
    below = lower(loads.load, storage, ttl=3600)
    await below.execute("k", ctx())
    await asyncio.sleep(3590)
    above = CachePrimitive(between(lower(loads.load, storage, ttl=3600)), ttl=300)
    got = []
    for moment in (3590, 3599.999, 3600):
        await asyncio.sleep(moment - now())
        got.append(await above.execute("k", ctx()))
    assert (got, above.stats.hits, above.stats.misses) == (["old", "old", "new"], 1, 2)


@virtual
async def test_its_own_ttl_is_the_most_that_a_value_lives_above(storage) -> None:
    """However long it is fresh below."""
    above = CachePrimitive(lower(Loads().load, storage), ttl=300)
    for moment in (0, 299, 300, 599, 600):
        await asyncio.sleep(moment - now())
        await above.execute("k", ctx())
    assert (above.stats.misses, above.stats.hits) == (3, 2)


@virtual
async def test_a_value_that_was_just_loaded_lives_as_long_as_below(storage) -> None:
    """Also for those who waited for the load of another."""
    below = lower(Loads(seconds=1).load, storage, ttl=10)
    upper = [CachePrimitive(below, ttl=300) for _ in range(2)]
    await asyncio.gather(*(cache.execute("k", ctx()) for cache in upper))
    await asyncio.sleep(9.5)
    assert [await cache.execute("k", ctx()) for cache in upper] == [1, 1]
    await asyncio.sleep(0.5)
    assert [await cache.execute("k", ctx()) for cache in upper] == [2, 2]


@pytest.mark.parametrize("option", ["stale_ttl", "stale_if_error"])
@virtual
async def test_a_stale_answer_from_below_is_not_kept_above(storage, option) -> None:
    """Each call asks again, until there is a fresh one."""
    loads = Loads("old", ValueError("no"), ValueError("no"), "new")
    above = CachePrimitive(lower(loads.load, storage, ttl=10, **{option: 60}), ttl=300)
    got = []
    for moment in (0, 20, 30, 40, 50):
        await asyncio.sleep(moment - now())
        got.append(await above.execute("k", ctx()))
        await asyncio.sleep(1)
    fresh = "old" if option == "stale_ttl" else "new"
    assert got == ["old", "old", "old", fresh, "new"]
    assert above.stats.hits == 0


class Doubling(Wrapper):
    """A wrapper that makes something else of the answer."""

    def __init__(self, primitive) -> None:
        self._wrap(primitive)

    async def execute(self, input_data, context):
        return 2 * await self.primitive.execute(input_data, context)


@virtual
async def test_what_makes_something_else_of_an_answer_has_its_own_life(storage) -> None:
    """The cache above keeps what no cache below has kept."""
    above = CachePrimitive(Doubling(lower(Loads("ab").load, storage, ttl=10)), ttl=300)
    for moment in (0, 200):
        await asyncio.sleep(moment - now())
        assert await above.execute("k", ctx()) == "abab"
    assert above.stats.hits == 1


@virtual
async def test_a_cache_deeper_in_a_chain_shortens_nothing(storage) -> None:
    """It keeps a part of what is kept above, if that."""
    chain = lower(Loads("a").load, storage, ttl=10) >> step(str.upper)
    above = CachePrimitive(chain, ttl=300)
    for moment in (0, 200):
        await asyncio.sleep(moment - now())
        assert await above.execute("k", ctx()) == "A"
    assert above.stats.hits == 1


@pytest.mark.parametrize("instead", ["instead", None])
@virtual
async def test_the_answer_of_a_fallback_has_its_own_life(storage, instead) -> None:
    """It does not come from below, though a cache was asked there."""
    loads = Loads("old", ValueError("no"))
    below = lower(loads.load, storage, ttl=10)
    above = CachePrimitive(FallbackPrimitive(below, [lambda _: instead]), ttl=300)
    await below.execute("k", ctx())
    await asyncio.sleep(15)
    assert await above.execute("k", ctx()) == instead
    await asyncio.sleep(200)
    assert await above.execute("k", ctx()) == instead
    assert above.stats.hits == 1


@virtual
async def test_three_levels_pass_on_what_is_left() -> None:
    """The shortest of them counts for those above it."""
    client = fake_redis()
    lowest = lower(Loads().load, client, ttl=10)
    middle = CachePrimitive(lowest, ttl=100)
    top = CachePrimitive(retried(middle), ttl=300)
    await lowest.execute("k", ctx())
    await asyncio.sleep(4)
    await middle.execute("k", ctx())
    await asyncio.sleep(4)
    assert await top.execute("k", ctx()) == 1
    await asyncio.sleep(1.9)
    assert await top.execute("k", ctx()) == 1
    await asyncio.sleep(0.1)
    assert await top.execute("k", ctx()) == 2
    assert top.stats.hits == 1


@virtual
async def test_without_single_flight_freshness_is_passed_on_as_well(storage) -> None:
    """Loads run in their callers' tasks, which ask for nothing afterwards."""
    below = lower(Loads().load, storage, ttl=10, single_flight=False)
    above = CachePrimitive(below, ttl=300, single_flight=False)
    assert await above.execute("k", ctx()) == 1
    await asyncio.sleep(9)
    assert await above.execute("k", ctx()) == 1
    await asyncio.sleep(1)
    assert await above.execute("k", ctx()) == 2
    assert (above.stats.hits, await below.execute("k", ctx())) == (1, 2)


@virtual
async def test_a_value_that_is_not_kept_below_is_kept_above_as_it_says(storage) -> None:
    """The cache below has no opinion then."""
    below = lower(Loads("v").load, storage, cache_if=lambda value: False)
    above = CachePrimitive(below, ttl=300)
    for moment in (0, 299):
        await asyncio.sleep(moment - now())
        assert await above.execute("k", ctx()) == "v"
    assert above.stats.hits == 1


@virtual
async def test_invalidating_above_reaches_below(storage) -> None:
    """A key, by its input; the next call loads."""
    loads = Loads()
    below = lower(loads.load, storage)
    above = CachePrimitive(retried(below), ttl=300)
    await above.execute("k", ctx())
    await above.invalidate("k")
    assert await above.execute("k", ctx()) == 2


@virtual
async def test_clearing_above_reaches_below(storage) -> None:
    """All of it."""
    above = CachePrimitive(lower(Loads().load, storage), ttl=300)
    for key in ("a", "b"):
        await above.execute(key, ctx())
    await above.clear()
    assert [await above.execute(key, ctx()) for key in ("a", "b")] == [3, 4]


@virtual
async def test_tags_from_below_count_above(storage) -> None:
    """A value that was found below is invalidated by its tags above as well."""
    loads = Loads()
    below = lower(loads.load, storage, tags=lambda key, value: [f"user:{key}"])
    for key in ("ada", "bob"):
        await below.execute(key, ctx())
    above = CachePrimitive(below, ttl=300, tags=["mine"])
    for key in ("ada", "bob"):
        await above.execute(key, ctx())
    await above.invalidate_tags("user:ada")
    assert [await above.execute(key, ctx()) for key in ("ada", "bob")] == [3, 2]
    await above.invalidate_tags("mine")
    assert [await above.execute(key, ctx()) for key in ("ada", "bob")] == [3, 2]
    assert above.stats.misses == 5


@virtual
async def test_what_is_read_below_while_that_is_invalidated_is_not_kept() -> None:
    """However far the reader has come when the value below goes."""
    for turns in range(12):
        client = fake_redis()
        loads = Loads("old", "new")
        below = lower(loads.load, client)
        above = CachePrimitive(below, ttl=300)
        await below.execute("k", ctx())
        invalidating = asyncio.create_task(above.invalidate("k"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reader = asyncio.create_task(above.execute("k", ctx()))
        await asyncio.gather(invalidating, reader)
        assert await above.execute("k", ctx()) == "new"


class Lagging(SlowStorage):
    """What it gives back was there when it was asked, and takes its time."""

    async def get_many(self, keys):
        found = [self._aged(key) for key in keys]
        await self._work()
        return found


@virtual
async def test_what_was_read_below_just_before_is_not_kept_after_it() -> None:
    """A value that is on its way when the one below is forgotten comes too late."""
    loads = Loads("old", "new")
    below = lower(loads.load, Lagging(seconds=1))
    above = CachePrimitive(below, ttl=300)
    await below.execute("k", ctx())
    began = now()
    invalidating = asyncio.create_task(above.invalidate("k"))
    await asyncio.sleep(0.5)
    assert await above.execute("k", ctx()) == "old"
    await invalidating
    assert now() == began + 1.5
    assert await above.execute("k", ctx()) == "new"


@virtual
async def test_only_the_cache_that_is_wrapped_is_asked(storage) -> None:
    """Not another one that happens to be below a third, and answers within."""
    other = CachePrimitive(Loads("v").load, ttl=10)
    CachePrimitive(other, ttl=100)
    below = lower(other.execute, storage, cache_if=lambda value: False)
    above = CachePrimitive(below, ttl=300)
    await above.execute("k", ctx())
    await asyncio.sleep(299)
    await above.execute("k", ctx())
    assert above.stats.hits == 1


@virtual
async def test_a_load_below_that_was_invalidated_is_not_kept_above(storage) -> None:
    """Though only the cache below was told."""
    below = lower(Loads("old", "new", seconds=1).load, storage)
    above = CachePrimitive(below, ttl=300)
    waiting = asyncio.create_task(above.execute("k", ctx()))
    await asyncio.sleep(0.5)
    await below.invalidate("k")
    assert await waiting == "old"
    assert await above.execute("k", ctx()) == "new"


@pytest.mark.parametrize("how", ["invalidate", "invalidate_tags", "clear"])
@virtual
async def test_above_is_forgotten_even_if_below_fails(how) -> None:
    """The error says that the value may come back from there."""
    client = fake_redis()
    above = CachePrimitive(lower(Loads().load, client, tags=["t"]), ttl=300)
    await above.execute("k", ctx())

    async def fail(*args, **options):
        raise ConnectionError("down")

    client.execute_command = fail
    arguments = {"invalidate": ["k"], "invalidate_tags": ["t"], "clear": []}[how]
    with pytest.raises(CacheStorageError, match=r"could not (delete|clear): Conn"):
        await getattr(above, how)(*arguments)
    assert above.stats.size == 0


@virtual
async def test_a_hit_below_is_a_hit_for_its_own_callers(storage) -> None:
    """A cache that has another around it still answers whoever asks it itself."""
    below = lower(Loads().load, storage)
    CachePrimitive(below, ttl=300)
    got = [await below.execute("k", ctx()) for _ in range(3)]
    assert (got, below.stats.hits) == ([1, 1, 1], 2)
