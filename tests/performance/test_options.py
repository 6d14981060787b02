"""A cache says at construction what is wrong with its options."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest

from tta_primitives import SequentialPrimitive, WorkflowContext, step
from tta_primitives.performance import CachePrimitive, JsonSerializer, MemoryStorage


async def llm(data):
    return data


class Redis:
    """Looks like the client of a server."""

    def delete(self, *keys): ...

    def __repr__(self) -> str:
        return "Redis()"


SECONDS = "must be a non-negative number of seconds"
WRONG = [
    ({"ttl": -1}, ValueError, rf"^ttl=-1 {SECONDS}"),
    ({"ttl": math.nan}, ValueError, rf"^ttl=nan {SECONDS}"),
    ({"ttl": timedelta(days=-1)}, ValueError, rf"^ttl=-86400.0 {SECONDS}"),
    (
        {"ttl": "60"},
        TypeError,
        r"^ttl='60' must be a number of seconds, a",
    ),
    ({"ttl": True}, TypeError, r"^ttl=True must be a number of seconds"),
    ({"ttl": None}, TypeError, r"^ttl=None must be a number of seconds"),
    ({"ttl": int}, TypeError, r"^ttl=<class 'int'> must be a number of seconds"),
    ({"max_size": 0}, ValueError, r"^max_size=0 must be a whole number"),
    ({"max_size": 1.5}, ValueError, r"^max_size=1.5 must be a whole number"),
    ({"max_size": True}, ValueError, r"^max_size=True must be a whole number"),
    ({"stale_ttl": -1}, ValueError, rf"^stale_ttl=-1 {SECONDS}"),
    ({"stale_if_error": "1"}, TypeError, rf"^stale_if_error='1' {SECONDS}, not str"),
    ({"early_refresh": -1}, ValueError, rf"^early_refresh=-1 {SECONDS}"),
    (
        {"early_refresh": 60},
        ValueError,
        r"^early_refresh=60.0 must be less than ttl",
    ),
    ({"negative_ttl": -1}, ValueError, rf"^negative_ttl=-1 {SECONDS}"),
    ({"negative_ttl": 5}, ValueError, r"^negative_ttl and negative_on belong together"),
    ({"negative_on": ValueError}, ValueError, r"^negative_ttl and negative_on belong"),
    ({"negative_ttl": 5, "negative_on": 404}, TypeError, r"^negative_on=404 must be"),
    ({"ttl_jitter": 1.5}, ValueError, r"^ttl_jitter=1.5 must be a fraction between"),
    ({"ttl_jitter": -0.1}, ValueError, r"^ttl_jitter=-0.1 must be a non-negative"),
    ({"cache_if": 1}, TypeError, r"^cache_if=1 must be a function of the value"),
    ({"single_flight": 1}, TypeError, r"^single_flight=1 must be True or False"),
    (
        {"copy": "shallow"},
        ValueError,
        r"^copy='shallow' must be one of 'auto',",
    ),
    ({"fail_open": None}, TypeError, r"^fail_open=None must be True or False"),
    ({"key_fn": "id"}, TypeError, r"^key_fn='id' must be a function, f\(input\) or"),
    ({"key_fn": llm}, TypeError, r"^key_fn=<function llm .* must not be async"),
    ({"key_fn": lambda: 1}, TypeError, r"no first parameter for the input"),
    ({"namespace": ""}, ValueError, r"^namespace='' must be a non-empty text"),
    ({"namespace": 1}, TypeError, r"^namespace=1 must be a non-empty text, or None"),
    ({"version": 1.5}, TypeError, r"^version=1.5 must be a whole number or a text"),
    ({"version": True}, TypeError, r"^version=True must be a whole number or a text"),
    (
        {"serializer": "pickle"},
        ValueError,
        r"^serializer='pickle' must be 'json', 'msgpack' or",
    ),
    (
        {"serializer": JsonSerializer},
        TypeError,
        r"^serializer=<class .* must be 'json'",
    ),
    ({"serializer": 1}, TypeError, r"^serializer=1 must be 'json', .* or an object"),
    ({"tags": "user"}, TypeError, r"^tags='user' must be non-empty texts"),
    (
        {"tags": ["user", ""]},
        TypeError,
        r"^tags=\['user', ''\] must be non-empty",
    ),
    ({"tags": 1}, TypeError, r"^tags=1 must be non-empty texts"),
    (
        {"storage": Redis()},
        TypeError,
        r"^storage=Redis\(\) is no storage: it has no",
    ),
    (
        {"storage": Redis()},
        TypeError,
        r"Give None .* a MemoryStorage\(\), a redis.asyncio.Redis, or an object",
    ),
    ({"storage": MemoryStorage}, TypeError, r"is no storage: it is a class"),
    (
        {"max_entries": 5},
        TypeError,
        r"^CachePrimitive has no option 'max_entries'",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_case_65_a_wrong_option_fails_at_construction(options, error, message) -> None:
    """The error names the option, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        CachePrimitive(llm, **{"ttl": 60, **options})
    with pytest.raises(error, match=message):
        CachePrimitive(**{"ttl": 60, **options})


def test_a_cache_without_a_ttl_is_told() -> None:
    """There is no time to live that is right for everybody."""
    with pytest.raises(TypeError, match="CachePrimitive needs ttl="):
        CachePrimitive(llm)


def test_a_memory_without_room_is_told() -> None:
    """A shared memory checks its own size."""
    with pytest.raises(ValueError, match="max_size=0 must be a whole number of at"):
        MemoryStorage(max_size=0)


@pytest.mark.parametrize("tags", [1, "user", [1]])
async def test_a_function_that_returns_no_tags_is_told(tags) -> None:
    """The message says where they came from."""
    cache = CachePrimitive(llm, ttl=60, tags=lambda *_: tags)
    with pytest.raises(
        TypeError, match=r"the result of tags=.* must be non-empty texts"
    ):
        await cache.execute("k", WorkflowContext())


def test_repr_and_describe_show_what_was_set() -> None:
    """Defaults are left out, an open cache says so."""
    cache = CachePrimitive(llm, ttl=timedelta(minutes=5), max_size=1024, version=2)
    opened = CachePrimitive(ttl=60, stale_ttl=10)
    shown = "<CachePrimitive 'llm' ttl=datetime.timedelta(seconds=300) version=2>"
    assert repr(cache) == shown
    assert repr(opened) == "<CachePrimitive open ttl=60 stale_ttl=10>"
    assert cache.describe() == {
        "type": "CachePrimitive",
        "name": "cache",
        "options": {"ttl": 300.0, "version": 2},
        "children": [
            {"type": "StepPrimitive", "name": "llm", "options": {}, "children": []}
        ],
    }


def test_a_description_of_any_options_is_plain_data() -> None:
    """Functions and storages are shown by name, without an address."""
    cache = CachePrimitive(
        llm,
        ttl=len,
        storage=MemoryStorage(),
        key_fn=str,
        cache_if=bool,
        negative_ttl=5,
        negative_on=(ValueError, KeyError),
        tags=["a"],
    )
    described = cache.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["options"]["negative_on"] == ["ValueError", "KeyError"]


@pytest.mark.parametrize(
    ("options", "needs"),
    [({}, False), ({"stale_ttl": 1}, True), ({"max_size": 1}, False)],
)
def test_only_a_cache_that_may_be_stale_needs_to_know_its_place(options, needs) -> None:
    """In a chain of plain steps a cache costs no view of the context."""
    cache = CachePrimitive(llm, ttl=60, **options)
    assert SequentialPrimitive(llm, cache)._needs_position is needs
    assert cache._reads_deadline is False


def test_a_cache_is_as_idempotent_as_what_it_wraps() -> None:
    """A retry around it must know."""
    assert CachePrimitive(llm, ttl=60).idempotent is True
    assert CachePrimitive(step(idempotent=False)(llm), ttl=60).idempotent is False
