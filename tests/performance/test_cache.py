"""What a cache keeps, for how long, and in what form it hands it out."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest

from tests.performance.tools import Loads, hearing, now, virtual
from tta_primitives import WorkflowContext, chance
from tta_primitives.errors import CacheKeyError, OpenWrapperError
from tta_primitives.performance import CachePrimitive, CacheStats, MemoryStorage


class Point(NamedTuple):
    x: int
    y: object


@dataclass(frozen=True)
class Frozen:
    parts: list = field(default_factory=list)


def ctx() -> WorkflowContext:
    return WorkflowContext()


@virtual
async def test_a_second_call_is_answered_from_memory() -> None:
    """The primitive runs once, also when the cache was given by keyword."""
    loads = Loads()
    cache = CachePrimitive(primitive=loads.load, ttl=3600)
    assert [await cache.execute("a", ctx()) for _ in range(3)] == [1, 1, 1]
    assert loads.inputs == ["a"]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 0.0])
@virtual
async def test_case_62_an_empty_value_is_a_hit(value) -> None:
    """What is false is a value like any other."""
    loads = Loads(value)
    cache = CachePrimitive(loads.load, ttl=10)
    assert [await cache.execute("k", ctx()) for _ in range(2)] == [value, value]
    assert loads.count == 1


@virtual
async def test_inputs_of_different_types_are_different() -> None:
    """1, "1", True, 1.0, None and "" are six entries."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=10)
    inputs = [1, "1", True, 1.0, None, ""]
    assert [await cache.execute(i, ctx()) for i in inputs * 2] == [1, 2, 3, 4, 5, 6] * 2


@pytest.mark.parametrize("start", [0, 0.1, 7.3])
@pytest.mark.parametrize("ttl", [0.2, 10, timedelta(seconds=10)])
@virtual
async def test_case_65_an_entry_is_expired_when_its_ttl_has_passed(start, ttl) -> None:
    """A moment before it is fresh, exactly then it is not."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=ttl)
    await asyncio.sleep(start)
    await cache.execute("k", ctx())
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    await asyncio.sleep(seconds - 0.001)
    before = await cache.execute("k", ctx())
    await asyncio.sleep(start + seconds - now())
    assert [before, await cache.execute("k", ctx())] == [1, 2]


@virtual
async def test_case_65_a_ttl_of_zero_keeps_nothing() -> None:
    """Every call loads."""
    cache = CachePrimitive(Loads().load, ttl=0)
    assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 2, 3]
    assert cache.stats.size == 0


@virtual
async def test_case_65_a_ttl_of_zero_still_shares_a_load() -> None:
    """Who asks while it runs gets it; who asks when it is done does not."""
    loads = Loads(seconds=1)
    cache = CachePrimitive(loads.load, ttl=0)
    both = await asyncio.gather(*(cache.execute("k", ctx()) for _ in range(2)))
    assert [*both, await cache.execute("k", ctx())] == [1, 1, 2]


@virtual
async def test_case_65_the_ttl_may_depend_on_the_value() -> None:
    """Each entry lives as long as the function says, 0 meaning not at all."""
    cache = CachePrimitive(Loads().load, ttl=lambda number: [0, 5, 0][number - 1])
    assert await cache.execute("k", ctx()) == 1
    assert await cache.execute("k", ctx()) == 2
    await asyncio.sleep(4.999)
    assert await cache.execute("k", ctx()) == 2
    await asyncio.sleep(0.001)
    assert await cache.execute("k", ctx()) == 3


@pytest.mark.parametrize(
    ("ttl", "error", "message"),
    [
        (-1, ValueError, "the result of ttl=lambda=-1 must be a non-negative number"),
        (math.nan, ValueError, "the result of ttl=lambda=nan must be"),
        ("5", TypeError, "the result of ttl=lambda='5' must be .* not str"),
    ],
)
@virtual
async def test_case_65_a_function_that_returns_no_ttl_is_told(
    ttl, error, message
) -> None:
    """A wrong result is not a long or a short life, it is an error."""
    cache = CachePrimitive(Loads().load, ttl=lambda _: ttl)
    with pytest.raises(error, match=message):
        await cache.execute("k", ctx())


@virtual
async def test_an_infinite_ttl_never_ends() -> None:
    """A century later it is a hit."""
    cache = CachePrimitive(Loads().load, ttl=math.inf)
    first = await cache.execute("k", ctx())
    await asyncio.sleep(3.2e9)
    assert [first, await cache.execute("k", ctx())] == [1, 1]


@virtual
async def test_case_67_memory_is_bounded_and_counts_what_it_evicts() -> None:
    """Of 10 000 keys the last 1 000 stay."""
    cache = CachePrimitive(Loads().load, ttl=3600, max_size=1000)
    for number in range(10_000):
        await cache.execute(number, ctx())
    assert (cache.stats.size, cache.stats.evictions) == (1000, 9000)
    await cache.execute(9_000, ctx())
    assert (cache.stats.hits, cache.stats.evictions) == (1, 9000)


@pytest.mark.parametrize("value", ["text", ["list"]])
@virtual
async def test_case_67_the_least_recently_used_goes_first(value) -> None:
    """A hit, of a value that is copied as well, makes an entry young again."""
    loads = Loads(value)
    cache = CachePrimitive(loads.load, ttl=3600, max_size=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await cache.execute(key, ctx())
    assert loads.inputs == ["a", "b", "c", "b"]


@virtual
async def test_the_life_of_an_entry_is_shortened_at_random_and_repeatably() -> None:
    """With `ttl_jitter=0.5` a ttl of 100 s becomes 50 to 100 s, drawn from the seed."""
    with chance.seeded(1) as rng:
        expected = [100 * (1 - 0.5 * rng.random()) for _ in range(20)]
    cache = CachePrimitive(Loads().load, ttl=100, ttl_jitter=0.5)
    with chance.seeded(1):
        for number in range(20):
            await cache.execute(number, ctx())
    entries = cache._memory.entries.values()
    assert [e.fresh_until for e in entries] == [round(life, 9) for life in expected]
    assert min(expected) >= 50
    assert max(expected) <= 100


@virtual
async def test_only_values_that_are_wanted_are_kept() -> None:
    """What `cache_if` refuses is returned, and loaded again."""
    cache = CachePrimitive(Loads().load, ttl=10, cache_if=lambda number: number > 1)
    assert [await cache.execute("k", ctx()) for _ in range(3)] == [1, 2, 2]


@virtual
async def test_a_key_function_says_what_tells_inputs_apart() -> None:
    """It sees the context: here each tenant has entries of its own."""
    loads = Loads()
    cache = CachePrimitive(
        loads.load, ttl=10, key_fn=lambda data, context: (data["q"], context.tags["t"])
    )
    asked = [("x", "a"), ("x", "b"), ("x", "a"), ("y", "a")]
    got = [
        await cache.execute({"q": q, "n": n}, WorkflowContext(tags={"t": tenant}))
        for n, (q, tenant) in enumerate(asked)
    ]
    assert got == [1, 2, 1, 3]


@virtual
async def test_a_key_function_may_do_without_the_context() -> None:
    """A function of the input alone is as good; its result is typed as well."""
    cache = CachePrimitive(Loads().load, ttl=10, key_fn=len)
    assert [await cache.execute(i, ctx()) for i in ("ab", "cd", "e")] == [1, 1, 2]


@virtual
async def test_an_input_without_a_key_is_told_before_anything_runs() -> None:
    """The error names the part and asks for `key_fn`."""
    loads = Loads()
    cache = CachePrimitive(loads.load, ttl=10)
    with pytest.raises(
        CacheKeyError, match=r"input\['db'\] is of type object .*key_fn"
    ):
        await cache.execute({"db": object()}, ctx())
    assert loads.count == 0


VALUE = {"names": ["a"]}


@pytest.mark.parametrize("mode", ["auto", "deep"])
@virtual
async def test_case_74_a_caller_who_changes_a_value_changes_only_his_own(mode) -> None:
    """Neither who loaded it nor who was handed it spoils the next hit."""
    cache = CachePrimitive(Loads({"names": ["a"]}).load, ttl=10, copy=mode)
    for _ in range(3):
        value = await cache.execute("k", ctx())
        assert value == VALUE
        value["names"].append("changed")


@pytest.mark.parametrize("mode", ["auto", "deep"])
@virtual
async def test_case_74_callers_who_share_a_load_do_not_share_its_value(mode) -> None:
    """Each of them may change what he got."""
    cache = CachePrimitive(Loads({"names": []}, seconds=1).load, ttl=0, copy=mode)
    values = await asyncio.gather(*(cache.execute("k", ctx()) for _ in range(3)))
    assert len({id(value["names"]) for value in values}) == 3


@virtual
async def test_case_74_without_copies_all_callers_share_one_value() -> None:
    """`copy="none"` hands out the very object that was loaded."""
    value = {"names": []}
    cache = CachePrimitive(Loads(value).load, ttl=10, copy="none")
    assert [await cache.execute("k", ctx()) is value for _ in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("value", "is_shared"),
    [
        ("text", True),
        ((1, ("a", b"b"), frozenset({2})), True),
        (Point(1, "a"), True),
        (Frozen(parts=()), True),
        (PurePosixPath("a"), True),
        (Decimal(1), True),
        ((1, []), False),
        (Point(1, []), False),
        (Frozen(parts=[]), False),
        ({1}, False),
        (bytearray(b"x"), False),
    ],
)
@virtual
async def test_case_74_only_what_nobody_can_change_is_shared(value, is_shared) -> None:
    """Immutable values are handed out as they are, at every depth."""
    cache = CachePrimitive(Loads(value).load, ttl=10)
    await cache.execute("k", ctx())
    hit = await cache.execute("k", ctx())
    assert (hit, hit is value) == (value, is_shared)


@virtual
async def test_what_cannot_be_copied_is_returned_but_not_kept(caplog) -> None:
    """The first such value is logged with what to do about it."""
    cache = CachePrimitive(Loads(part for part in "ab").load, ttl=10)
    first = await cache.execute("k", ctx())
    second = await cache.execute("k", ctx())
    assert (first is second, cache.stats.size, cache.stats.errors) == (True, 0, 2)
    [message] = [record.getMessage() for record in caplog.records]
    assert message == (
        "cache goes on without its storage: a value of type builtins.generator cannot "
        'be copied, so callers would share it; say copy="none" if they may, or '
        "cache_if=... to leave such values out"
    )


@virtual
async def test_two_bindings_of_one_open_cache_share_nothing() -> None:
    """State belongs to the bound copy."""
    opened = CachePrimitive(ttl=10)
    one, other = (opened >> Loads("one").load), (opened >> Loads("other").load)
    assert await one.execute("k", ctx()) == "one"
    assert await other.execute("k", ctx()) == "other"


@virtual
async def test_an_open_cache_says_that_it_wraps_nothing() -> None:
    """Executing, invalidating, clearing and asking for counters alike."""
    cache = CachePrimitive(ttl=10)
    message = "CachePrimitive open ttl=10.* wraps nothing yet"
    with pytest.raises(OpenWrapperError, match=message):
        await cache.execute("k", ctx())
    with pytest.raises(OpenWrapperError, match=message):
        await cache.invalidate("k")
    with pytest.raises(OpenWrapperError, match=message):
        await cache.invalidate_tags("t")
    with pytest.raises(OpenWrapperError, match=message):
        await cache.clear()
    with pytest.raises(OpenWrapperError, match=message):
        _ = cache.stats


@virtual
async def test_two_levels_are_two_caches() -> None:
    """`Cache >> step >> Cache` is the first around the second around the step."""
    loads = Loads()
    workflow = (
        CachePrimitive(ttl=5, max_size=10) >> loads.load >> CachePrimitive(ttl=60)
    )
    got = []
    for _ in range(4):
        got.append(await workflow.execute("k", ctx()))
        await asyncio.sleep(20)
    assert (got, loads.count) == ([1, 1, 1, 2], 2)


@virtual
async def test_a_named_cache_is_the_same_cache() -> None:
    """A name is no new binding: entries and counters are shared."""
    cache = CachePrimitive(Loads().load, ttl=10)
    await cache.execute("k", ctx())
    assert await cache.named("answers").execute("k", ctx()) == 1
    assert cache.stats.hits == 1


@virtual
async def test_a_stream_of_a_cache_is_its_value_in_one_chunk() -> None:
    """A hit has no pace of its own to give."""

    async def words(data):
        for word in ("hel", "lo"):
            yield word

    cache = CachePrimitive(words, ttl=10)
    got = [[chunk async for chunk in cache.stream("k", ctx())] for _ in range(2)]
    assert got == [["hello"], ["hello"]]


@virtual
async def test_the_counters_tell_what_happened() -> None:
    """A snapshot: reading it later shows later numbers, and it does not change."""
    loads = Loads(1, ValueError("no"), 3)
    cache = CachePrimitive(loads.load, ttl=10, max_size=1)
    await cache.execute("a", ctx())
    before = cache.stats
    await cache.execute("a", ctx())
    with pytest.raises(ValueError, match="no"):
        await cache.execute("b", ctx())
    await cache.execute("c", ctx())
    assert cache.stats == CacheStats(
        hits=1,
        misses=3,
        stale=0,
        coalesced=0,
        loads=3,
        refreshes=0,
        load_errors=1,
        errors=0,
        lease_waits=0,
        evictions=1,
        size=1,
    )
    assert (before.hits, before.hit_ratio, cache.stats.hit_ratio) == (0, 0.0, 0.25)


def test_a_hit_ratio_before_the_first_call_is_zero() -> None:
    """Nothing out of nothing is not an error."""
    assert CachePrimitive(Loads().load, ttl=1).stats.hit_ratio == 0.0


@virtual
async def test_every_event_is_told_with_its_details() -> None:
    """Observers hear hits, misses, coalesced calls, evictions and invalidations."""
    cache = CachePrimitive(Loads(seconds=1).load, ttl=10, max_size=1)
    with hearing() as ear:
        await asyncio.gather(*(cache.execute("a", ctx()) for _ in range(2)))
        await cache.execute("a", ctx())
        await cache.execute("b", ctx())
    assert ear.heard == [
        ("cache.miss", {}),
        ("cache.miss", {}),
        ("cache.coalesced", {}),
        ("cache.hit", {"fresh_for": 10.0}),
        ("cache.miss", {}),
        ("cache.evict", {"count": 1}),
    ]


@virtual
async def test_an_invalidation_inside_a_run_is_told_there() -> None:
    """The step that invalidates hands its context over, and is heard."""
    cache = CachePrimitive(Loads().load, ttl=10)

    async def update(data, context):
        await cache.invalidate(data, context)
        return data

    with hearing() as ear:
        await (cache >> (lambda _: "k") >> update).execute("k", ctx())
    assert ear.names == ["cache.miss", "cache.invalidated"]


@virtual
async def test_tags_find_the_entries_they_were_given() -> None:
    """A function names them per entry; the others stay."""
    loads = Loads()
    cache = CachePrimitive(
        loads.load, ttl=10, tags=lambda data, value: [f"user:{data}", f"n:{value}"]
    )
    for user in ("a", "b", "c"):
        await cache.execute(user, ctx())
    await cache.invalidate_tags("user:a", "n:3", "unknown")
    for user in ("a", "b", "c"):
        await cache.execute(user, ctx())
    assert loads.inputs == ["a", "b", "c", "a", "c"]


@virtual
async def test_tags_of_entries_that_are_gone_leave_nothing_behind() -> None:
    """Evicted, replaced, expired and invalidated entries let go of their tags."""
    cache = CachePrimitive(
        Loads().load, ttl=5, max_size=2, tags=lambda i, _: [i, "all"]
    )
    for key in "abcd":
        await cache.execute(key, ctx())
    await cache.invalidate("c")
    await asyncio.sleep(5)
    await cache.execute("d", ctx())
    memory = cache._memory
    assert (memory._tags, memory._tagged) == (
        {"d": ("d", "all")},
        {"d": {"d"}, "all": {"d"}},
    )


@pytest.mark.parametrize("tags", [(), ("a", 1)])
@virtual
async def test_invalidating_without_a_tag_is_an_error(tags) -> None:
    """Nothing, or no text, would silently find nothing."""
    cache = CachePrimitive(Loads().load, ttl=10, tags=["all"])
    with pytest.raises(TypeError, match=r"invalidate_tags\(.* needs one or more texts"):
        await cache.invalidate_tags(*tags)


@virtual
async def test_clearing_forgets_everything() -> None:
    """Values and remembered failures alike."""
    loads = Loads(1, KeyError("no"), 3, 4)
    cache = CachePrimitive(loads.load, ttl=10, negative_ttl=5, negative_on=KeyError)
    await cache.execute("a", ctx())
    with pytest.raises(KeyError, match="no"):
        await cache.execute("b", ctx())
    await cache.clear()
    assert [await cache.execute(key, ctx()) for key in "ab"] == [3, 4]


@virtual
async def test_a_failure_is_not_remembered_unless_asked_for() -> None:
    """The next call tries again."""
    loads = Loads(ValueError("no"), 2)
    cache = CachePrimitive(loads.load, ttl=10)
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())
    assert await cache.execute("k", ctx()) == 2


@virtual
async def test_a_remembered_failure_is_raised_until_its_time_is_over() -> None:
    """Each time a copy without a traceback of its own, with all attributes."""
    error = LookupError("no such user", 7)
    error.add_note("a note")
    error.code = 404
    loads = Loads(error, 2)
    cache = CachePrimitive(loads.load, ttl=10, negative_ttl=5, negative_on=LookupError)
    raised = []
    for _ in range(3):
        with pytest.raises(LookupError, match="no such user") as caught:
            await cache.execute("k", ctx())
        raised.append(caught.value)
    assert raised[0] is error
    assert raised[1] is not raised[2]
    assert (raised[2].args, raised[2].code) == (("no such user", 7), 404)
    assert raised[2].__notes__ == ["a note"]
    assert raised[2].__notes__ is not error.__notes__
    assert (loads.count, cache.stats.hits) == (1, 2)
    await asyncio.sleep(5)
    assert await cache.execute("k", ctx()) == 2


class Strict(Exception):
    def __init__(self, *, code) -> None:
        super().__init__("strict")
        self.code = code


@virtual
async def test_a_remembered_failure_without_a_copy_does_not_grow() -> None:
    """A thousand hits leave the traceback of the last alone."""
    cache = CachePrimitive(
        Loads(Strict(code=1)).load, ttl=10, negative_ttl=5, negative_on=(Strict,)
    )
    lengths = set()
    for _ in range(1000):
        with pytest.raises(Strict, match="strict") as caught:
            await cache.execute("k", ctx())
        lengths.add(len(caught.traceback))
    assert len(lengths) <= 2


@virtual
async def test_a_failure_that_is_not_listed_is_not_remembered() -> None:
    """The filter may be a function, too; both ends of a load forget the failure."""
    loads = Loads(ValueError("a"), KeyError("b"), 3)
    cache = CachePrimitive(
        loads.load,
        ttl=10,
        negative_ttl=5,
        negative_on=lambda error: isinstance(error, KeyError),
    )
    for error in (ValueError, KeyError, KeyError):
        with pytest.raises(error, match=r"a|b"):
            await cache.execute("k", ctx())
    await cache.invalidate("k")
    assert [await cache.execute("k", ctx()), loads.count] == [3, 3]


def weigh(cache: CachePrimitive, entries: int) -> float:
    """Return the bytes of an entry whose value is its key, a text of 8 characters."""

    async def fill():
        await cache.execute("warm", context)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(entries):
            await cache.execute(f"{number:08}", context)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / entries

    context = ctx()
    try:
        return asyncio.run(fill())
    finally:
        tracemalloc.stop()


async def same(data):
    return data


def test_an_entry_weighs_at_most_220_bytes() -> None:
    """Key and value together: no timer, no digest, no wrapper around the value."""
    assert weigh(CachePrimitive(same, ttl=60, max_size=2000), 1000) <= 220


def test_a_shared_memory_is_told_apart_by_its_repr() -> None:
    """It shows how full it is."""
    assert repr(MemoryStorage(max_size=5)) == "<MemoryStorage 0 of 5>"
