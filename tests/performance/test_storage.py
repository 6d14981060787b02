"""Caches that share a storage: nothing collides, and a failing storage is a miss."""

from __future__ import annotations

import asyncio
import functools
import json
import operator

import pytest

from tests.performance.redis_clients import fake_redis
from tests.performance.tools import Loads, SlowStorage, hearing, virtual
from tta_primitives import WorkflowContext, WorkflowPrimitive, step
from tta_primitives.errors import CacheStorageError
from tta_primitives.namespace import namespace_of
from tta_primitives.performance import (
    CachePrimitive,
    JsonSerializer,
    MemoryStorage,
    Record,
    Serializer,
    Storage,
)
from tta_primitives.primitive import as_primitive


def ctx() -> WorkflowContext:
    return WorkflowContext()


def module(name: str):
    """Return the function `process` of a module called `name`."""
    space = {"__name__": name}
    exec(f"async def process(data):\n    return {name!r}", space)  # a module in short
    return space["process"]


async def process(data):
    return "here"


class Ask(WorkflowPrimitive[str, str]):
    def __init__(self, model: object) -> None:
        self.model = model

    async def execute(self, input_data, context):
        return f"{self.model}: {input_data}"


class Told(Ask):
    def options(self):
        return {"model": self.model}


@step
async def greet(data, greeting):
    return f"{greeting} {data}"


@pytest.fixture(params=[MemoryStorage, SlowStorage, fake_redis])
def storage(request):
    return request.param()


@virtual
async def test_case_64_functions_of_one_name_in_two_modules_do_not_collide(
    storage,
) -> None:
    """Equal inputs, one storage, two answers."""
    caches = [
        CachePrimitive(module(name), ttl=60, storage=storage) for name in ("a", "b")
    ]
    for _ in range(2):
        assert [await cache.execute("k", ctx()) for cache in caches] == ["a", "b"]
    assert [cache.stats.hits for cache in caches] == [1, 1]


@pytest.mark.parametrize("kind", [Ask, Told])
@virtual
async def test_case_64_two_models_do_not_collide(kind, storage) -> None:
    """What a primitive holds, or tells as its options, tells it from another."""
    caches = [
        CachePrimitive(kind(model), ttl=60, storage=storage)
        for model in ("small", "large")
    ]
    for _ in range(2):
        got = [await cache.execute("k", ctx()) for cache in caches]
        assert got == ["small: k", "large: k"]


@virtual
async def test_case_64_a_step_is_told_by_what_is_bound_to_it(storage) -> None:
    """One function with different extras is two steps."""
    caches = [
        CachePrimitive(greet(greeting), ttl=60, storage=storage)
        for greeting in ("hello", "goodbye")
    ]
    for _ in range(2):
        got = [await cache.execute("you", ctx()) for cache in caches]
        assert got == ["hello you", "goodbye you"]


class Client:
    async def ask(self, data):
        return data

    @classmethod
    async def echo(cls, data):
        return data

    def __call__(self, data):
        return data


def local():
    async def inner(data, more=0):
        return data

    return inner


NAMELESS = [
    (lambda data: data, "'lambda' holds a lambda"),
    (local(), "'inner' holds a local function"),
    (functools.partial(local(), more=1), "'inner' holds a local function"),
    (Client().ask, "'ask' is a method of one Client"),
    (Client(), "'Client' is one Client"),
    (greet(Client()), "'greet' is bound to what has no canonical form"),
    (functools.partial(operator.add, Client()), "'add' is bound to what has no"),
    (as_primitive(process) | (lambda data: data), "'lambda' holds a lambda"),
    (Ask(Client()), "'ask' holds what has no canonical form"),
    (Told(lambda: 1), "'told' holds a lambda"),
]


@pytest.mark.parametrize(("primitive", "message"), NAMELESS)
def test_case_64_what_has_no_name_of_its_own_needs_a_namespace(
    primitive, message
) -> None:
    """It fails at construction, or when an open cache is bound to it."""
    message = f"{message}.*, which nothing tells from another in a shared storage; give"
    with pytest.raises(ValueError, match=message):
        CachePrimitive(primitive, ttl=60, storage=MemoryStorage())
    with pytest.raises(ValueError, match=message):
        CachePrimitive(ttl=60, storage=MemoryStorage()) >> as_primitive(primitive)
    CachePrimitive(primitive, ttl=60, storage=MemoryStorage(), namespace="n")
    CachePrimitive(primitive, ttl=60)


def test_case_64_names_are_enough_where_they_tell_all() -> None:
    """Functions of modules, class methods, builtins, partials and bound steps."""
    functions = [process, Client.echo, len, functools.partial(operator.add, 1)]
    functions += [functools.partial(operator.add, 2), greet("a"), greet("b"), Ask("a")]
    names = [namespace_of(as_primitive(function)) for function in functions]
    assert len(set(names)) == len(functions)
    assert names == [namespace_of(as_primitive(function)) for function in functions]


def test_case_64_where_entries_are_kept_tells_nobody_apart() -> None:
    """Two processes have two clients, and mean the same."""
    trees = [CachePrimitive(Ask("a"), ttl=60, storage=fake_redis()) for _ in range(2)]
    assert namespace_of(trees[0]) == namespace_of(trees[1])


def test_case_64_a_script_is_told_by_its_file(monkeypatch) -> None:
    """All scripts are called `__main__`."""
    main = module("__main__")
    names = []
    for file in ("/srv/one.py", "/srv/two.py"):
        monkeypatch.setattr(
            "sys.modules", {"__main__": type("M", (), {"__file__": file})}
        )
        names.append(namespace_of(as_primitive(main)))
    assert names[0] != names[1]


@virtual
async def test_a_namespace_shares_what_two_processes_keep(storage) -> None:
    """Two caches with one namespace answer for each other."""
    caches = [
        CachePrimitive(load, ttl=60, storage=storage, namespace="answers")
        for load in (Loads("a").load, Loads("b").load)
    ]
    assert [await cache.execute("k", ctx()) for cache in caches] == ["a", "a"]


@virtual
async def test_a_new_version_finds_nothing_of_the_old(storage) -> None:
    """The version is part of every key."""
    caches = [
        CachePrimitive(
            Loads(version).load, ttl=60, storage=storage, namespace="n", version=version
        )
        for version in (1, 2, "3")
    ]
    assert [await cache.execute("k", ctx()) for cache in caches] == [1, 2, "3"]


@virtual
async def test_clearing_a_cache_leaves_others_in_the_storage_alone(storage) -> None:
    """Only keys of its own namespace and version go."""
    caches = [
        CachePrimitive(Loads().load, ttl=60, storage=storage, namespace=name)
        for name in ("a", "ab")
    ]
    for cache in caches:
        await cache.execute("k", ctx())
    await caches[0].clear()
    assert [await cache.execute("k", ctx()) for cache in caches] == [2, 1]


@virtual
async def test_tags_reach_every_cache_in_the_storage(storage) -> None:
    """That is what they are for: one event, all that it concerns."""
    caches = [
        CachePrimitive(
            Loads().load, ttl=60, storage=storage, namespace=name, tags=["user"]
        )
        for name in ("a", "b")
    ]
    for cache in caches:
        await cache.execute("k", ctx())
    await caches[0].invalidate_tags("user")
    assert [await cache.execute("k", ctx()) for cache in caches] == [2, 2]


@virtual
async def test_stale_entries_work_in_any_storage(storage) -> None:
    """Records carry how long they are fresh and how long they are kept."""
    cache = CachePrimitive(
        Loads(["a"], ["b"], ValueError("no"), seconds=1).load,
        ttl=10,
        storage=storage,
        namespace="n",
        stale_ttl=5,
        stale_if_error=20,
    )
    got = []
    for seconds in (12, 2, 16):
        got.append(await cache.execute("k", ctx()))
        await asyncio.sleep(seconds)
    got.append(await cache.execute("k", ctx()))
    assert got == [["a"], ["a"], ["b"], ["b"]]
    await asyncio.sleep(20)
    with pytest.raises(ValueError, match="no"):
        await cache.execute("k", ctx())


@virtual
async def test_a_shared_memory_has_one_limit_for_all() -> None:
    """The least recently used goes, whosever it is."""
    storage = MemoryStorage(max_size=2)
    caches = [
        CachePrimitive(Loads().load, ttl=60, storage=storage, namespace=name)
        for name in ("a", "b")
    ]
    for cache in caches:
        for key in ("x", "y"):
            await cache.execute(key, ctx())
    assert (caches[0].stats.size, caches[0].stats.evictions) == (2, 2)
    assert await caches[0].execute("x", ctx()) == 3


@virtual
async def test_a_storage_elsewhere_sees_texts_and_bytes() -> None:
    """The key is prefix, namespace, version and digest; the size is not known here."""
    storage = SlowStorage()
    cache = CachePrimitive(
        Loads({"a": [1, None]}).load, ttl=60, storage=storage, namespace="n", tags=["t"]
    )
    await cache.execute("k", ctx())
    key = "tta:cache:n:1:d42c0e6ce5f3a0a3c1e2d7ed0c3e8e4f"
    [(written, (record, _))] = storage.records.items()
    assert (written[:14], len(written)) == (key[:14], len(key))
    assert record == Record(b'json:{"a":[1,null]}', 60.0, 60.0, ("t",))
    assert (cache.stats.size, cache.stats.evictions) == (None, 0)


@virtual
async def test_case_71_a_storage_that_is_down_is_a_miss_with_an_event(caplog) -> None:
    """Every call succeeds, by a load; the log has one line for each kind of error."""
    storage = SlowStorage()
    storage.failure = ConnectionError("down")
    cache = CachePrimitive(Loads().load, ttl=60, storage=storage, namespace="n")
    with hearing() as ear:
        assert [await cache.execute("k", ctx()) for _ in range(2)] == [1, 2]
    assert ear.names == ["cache.error", "cache.miss", "cache.error"] * 2
    assert cache.stats.errors == 4
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        "cache goes on without its storage: the storage tests.performance.tools."
        "SlowStorage could not read: ConnectionError('down')"
    )


@virtual
async def test_case_71_a_corrupted_payload_is_a_miss_with_an_event() -> None:
    """What cannot be read is loaded and written anew."""
    storage = SlowStorage()
    cache = CachePrimitive(Loads().load, ttl=60, storage=storage, namespace="n")
    await cache.execute("k", ctx())
    [key] = storage.records
    storage.records[key] = (Record(b"\x80\x04 not JSON", 60, 60), 0.0)
    with hearing() as ear:
        assert [await cache.execute("k", ctx()) for _ in range(2)] == [2, 2]
    assert ear.names == ["cache.corrupt", "cache.miss", "cache.hit"]


@pytest.mark.parametrize("what", ["read", "write"])
@virtual
async def test_case_71_without_fail_open_a_failing_storage_is_an_error(what) -> None:
    """The storage's own error is its cause."""
    storage = SlowStorage()
    failure = ConnectionError("down")

    async def load(data):
        storage.failure = failure
        return data

    cache = CachePrimitive(
        load, ttl=60, storage=storage, namespace="n", fail_open=False
    )
    storage.failure = failure if what == "read" else None
    with pytest.raises(CacheStorageError, match=f"could not {what}: Conn") as caught:
        await cache.execute("k", ctx())
    assert caught.value.__cause__ is failure


@virtual
async def test_invalidating_in_a_storage_that_is_down_is_always_an_error() -> None:
    """The caller must know that the old value may still be there."""
    storage = SlowStorage()
    storage.failure = ConnectionError("down")
    cache = CachePrimitive(Loads().load, ttl=60, storage=storage, namespace="n")
    with pytest.raises(CacheStorageError, match="could not delete"):
        await cache.invalidate("k")
    with pytest.raises(CacheStorageError, match="could not delete"):
        await cache.invalidate_tags("t")
    with pytest.raises(CacheStorageError, match="could not clear"):
        await cache.clear()


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": {2}}, [b"x"], object()])
@virtual
async def test_a_value_that_json_would_change_is_not_written(value, caplog) -> None:
    """It is returned, not kept, and told once."""
    storage = SlowStorage()
    cache = CachePrimitive(Loads(value).load, ttl=60, storage=storage, namespace="n")
    assert await cache.execute("k", ctx()) is value
    assert (storage.records, cache.stats.errors) == ({}, 1)
    assert "would not come back from JSON as it is" in caplog.text


@pytest.mark.parametrize(
    "value", [None, True, 1, 1.5, "ü\udc80", [], {}, {"a": [{"b": None}, 1.0]}]
)
def test_json_gives_back_what_it_was_given(value) -> None:
    """Value and types."""
    serializer = JsonSerializer()
    assert repr(serializer.loads(serializer.dumps(value))) == repr(value)


@pytest.mark.parametrize("data", [b"", b"1 2", b"[1]]", b" 1", b"nul", b"\xff"])
def test_what_is_no_json_of_ours_is_not_read(data) -> None:
    """Nor is what begins like it."""
    with pytest.raises(ValueError, match=r"."):
        JsonSerializer().loads(data)


@virtual
async def test_a_serializer_of_ones_own_is_used() -> None:
    """Any object with `dumps` and `loads`."""

    class Pairs:
        def dumps(self, value):
            return json.dumps(list(value)).encode()

        def loads(self, data):
            return tuple(json.loads(data))

    cache = CachePrimitive(
        Loads((1, 2)).load,
        ttl=60,
        storage=SlowStorage(),
        namespace="n",
        serializer=Pairs(),
    )
    assert [await cache.execute("k", ctx()) for _ in range(2)] == [(1, 2), (1, 2)]
    assert cache.stats.hits == 1


def test_the_protocols_are_checkable() -> None:
    """What this package brings keeps them."""
    assert isinstance(MemoryStorage(), Storage)
    assert isinstance(SlowStorage(), Storage)
    assert isinstance(JsonSerializer(), Serializer)


@virtual
async def test_memory_is_a_storage_of_records() -> None:
    """What is left of a record shrinks with time, and past it the record is gone."""
    memory = MemoryStorage()
    await memory.set_many({"a": Record(b"1", 10, 15, ("t",)), "b": Record(b"2", 5, 5)})
    await asyncio.sleep(12)
    got = await memory.get_many(["a", "b", "c"])
    assert got == [Record(b"1", -2.0, 3.0, ("t",)), None, None]
    await memory.delete(["a", "never there"])
    assert await memory.get_many(["a"]) == [None]
    await memory.set_many({k: Record(k, 9, 9, (k[0],)) for k in ("xa", "xb", "ya")})
    await memory.delete_tagged(["y"])
    await memory.clear("xa")
    assert list(memory.entries) == ["xb"]


@virtual
async def test_writing_again_makes_an_entry_young_and_changes_its_tags() -> None:
    """The older key goes first, and the old tag finds nothing."""
    memory = MemoryStorage(max_size=2)
    for key, tag in (("a", "old"), ("b", "old"), ("a", "new"), ("c", "new")):
        await memory.set_many({key: Record(key, 9, 9, (tag,))})
    await memory.delete_tagged(["old"])
    assert list(memory.entries) == ["a", "c"]
