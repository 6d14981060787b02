"""Keys tell apart what differs, types included, and nothing else."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tta_primitives.errors import CacheKeyError
from tta_primitives.keys import canonical, digest, memory_key


class Point(NamedTuple):
    x: object
    y: object


class Field(NamedTuple):
    name: str
    eq: bool


NAIVE = datetime(2024, 10, 27, 2, 30)  # noqa: DTZ001 - keys tell naive from aware


class Colour(enum.Enum):
    RED = 1


class Rank(enum.IntEnum):
    ONE = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class User:
    id: int
    seen: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass
class Admin:
    id: int


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class House(BaseModel):
    pet: Cat | Dog


class OpenModel(BaseModel, extra="allow"):
    name: str


class Masked(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "****"


class Text(str):
    __slots__ = ("__dict__",)


class Session:
    pass


DIFFERENT = [
    *(1, "1", True, 1.0, Decimal(1), Decimal("1.0"), Fraction(1), 1 + 0j, b"1"),
    *(bytearray(b"1"), [1], (1,), {1}, frozenset({1}), deque([1]), {1: None}),
    *(None, "None", "", b"", (), [], {}, set(), frozenset(), ..., 0, False, 0.0, -0.0),
    *(math.nan, math.inf, -math.inf, "nan"),
    *([[1], 2], [1, [2]], [[1, 2]], ["1", "2"], ["1,2"], ["1','2"], [["1"], "2"]),
    *({"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {"b": 1}),
    *({1: "a"}, {"1": "a"}, {True: "a"}, {"a": {"b": 1}}, {"a": [1]}, {"a": (1,)}),
    *({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a:1": "b"}, {"a": "1:b"}, [("a", 1)]),
    *(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), defaultdict(int, a=1)),
    *(Colour.RED, Rank.ONE, Rights.READ, Rights.READ | Rights.WRITE, "RED"),
    *(User(1), Admin(1), User(2), Point(1, 2), (1, 2), Masked("1"), Masked("2")),
    *(Cat(name="x"), Dog(name="x"), {"name": "x"}),
    *(House(pet=Cat(name="x")), House(pet=Dog(name="x"))),
    *(OpenModel(name="x"), OpenModel(name="x", age=1)),
    *(date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), NAIVE),
    *(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), time(1), timedelta(1)),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    NAIVE.replace(fold=1),
    *(UUID(int=1), UUID(int=2), PurePosixPath("a"), PurePosixPath("b"), "a", "b"),
    *(range(3), range(0, 6, 2), "input", "\udc80", "ü", "['a', 'b']"),
]


@pytest.mark.parametrize("key", [memory_key, canonical])
def test_no_two_different_values_share_a_key(key) -> None:
    """Type, value and structure all count, at every depth."""
    keyed = [(key(value), value) for value in DIFFERENT]
    pairs = itertools.combinations(keyed, 2)
    assert [(a, b) for (one, a), (other, b) in pairs if one == other] == []


def test_a_text_is_its_own_key_in_memory() -> None:
    """The most usual key is not built at all."""
    text = "a question"
    assert memory_key(text) is text


@pytest.mark.parametrize("key", [memory_key, canonical])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2.5}, {"b": 2.5, "a": 1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ({1: "x", "a": 2}, {"a": 2, 1: "x"}),
        ({"x", "y", "z", "ab", "cd"}, {"cd", "z", "ab", "y", "x"}),
        (math.nan, float("nan")),
        ({"a": math.nan}, {"a": float("nan")}),
        (User(1, seen=1), User(1, seen=2)),
        (Cat(name="x"), Cat(name="x")),
        (str(b"hello", "ascii"), "hello"),
        ({"q": str(b"hello", "ascii")}, {"q": "hello"}),
    ],
)
def test_equal_values_share_a_key(key, one, other) -> None:
    """Neither order nor the identity of objects counts."""
    assert key(one) == key(other)


class Attrs:
    def __init__(self, x, cached) -> None:
        self.x, self.cached = x, cached


def test_records_of_other_libraries_are_known_by_their_marks() -> None:
    """Classes of attrs and msgspec, and models with `model_dump` alone, have keys."""
    Attrs.__attrs_attrs__ = (Field("x", eq=True), Field("cached", eq=False))
    struct = type("Struct", (), {"__struct_fields__": ("x",), "x": 1})
    dumped = type("Dumped", (), {"model_dump": lambda self: {"x": 1}})
    here = __name__
    assert canonical(Attrs(1, 2)) == f"{here}.Attrs{{'x':1}}"
    assert canonical(struct()) == f"{here}.Struct{{'x':1}}"
    assert canonical(dumped()) == f"{here}.Dumped{{'x':1}}"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda part: st.lists(part) | st.dictionaries(st.text() | st.integers(), part),
    max_leaves=12,
)


@given(json, json)
def test_texts_are_equal_exactly_when_reprs_are(one, other) -> None:
    """The canonical text is as sharp as `repr` on plain data with ordered keys."""

    def ordered(value):
        if isinstance(value, dict):
            items = sorted(value.items(), key=lambda item: repr(item[0]))
            return {key: ordered(part) for key, part in items}
        return [ordered(p) for p in value] if isinstance(value, list) else value

    is_same = repr(ordered(one)) == repr(ordered(other))
    assert (canonical(one) == canonical(other)) == is_same
    assert (memory_key(one) == memory_key(other)) == is_same


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (Session(), "input", "Session"),
        ([1, Session()], r"input\[1\]", "Session"),
        ({"user": {"db": Session()}}, r"input\['user'\]\['db'\]", "Session"),
        ({Session(): 1}, r"input\.keys\(\)", "Session"),
        (Point(1, [Session()]), r"input\.y\[0\]", "Session"),
        (User(Session()), r"input\.id", "Session"),
        ({lambda: 1}, r"input \(a member\)", "function"),
        (memoryview(b""), "input", "memoryview"),
        (object, "input", "<class 'object'>"),
    ],
)
def test_what_has_no_key_is_named(value, path, kind) -> None:
    """The error leads to the part, and to `key_fn`."""
    message = rf"^{path} is of type .*{kind}.* cannot be part of a cache key.*key_fn="
    with pytest.raises(CacheKeyError, match=message):
        memory_key(value)


def test_a_key_error_is_a_type_error() -> None:
    """Callers catch what they would catch from `dict`."""
    with pytest.raises(TypeError, match="input is of type"):
        memory_key(object())


def test_a_value_that_contains_itself_has_no_key() -> None:
    """A circle is a clear error and not a RecursionError."""
    circle: list = []
    circle.append(circle)
    with pytest.raises(CacheKeyError, match="nested too deeply or contains itself"):
        memory_key(circle)


def test_a_text_with_attributes_of_its_own_has_no_key() -> None:
    """What the subclass adds may matter, so its text alone is no key."""
    text = Text("x")
    text.scope = "admin"
    with pytest.raises(CacheKeyError, match="Text"):
        memory_key(text)


def test_a_masked_text_is_told_by_what_it_holds() -> None:
    """A subclass that shows stars is read past its `__str__`."""
    assert canonical(Masked("secret")).endswith("Masked('secret')")


def test_a_digest_is_the_same_in_every_process() -> None:
    """Shared storages see 32 hexadecimal digits of SHA-256."""
    assert digest("a") == "ca978112ca1bbdcafac231b39a23dc4d"
