"""Copies that later changes do not reach."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, datetime
from enum import Enum

import pytest

from pytest_tta.trace.snapshot import StandIn, detached, shorten, snapshot
from tta_primitives.errors import (
    FallbackExhaustedError,
    RateLimitExceededError,
    TimeoutExceededError,
)


class Colour(Enum):
    RED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    items: list


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - both kinds are the same


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        b"bytes",
        Colour.RED,
        datetime(2000, 1, 1, tzinfo=UTC),
        int,
        len,
        (1, ("a", None)),
        frozenset({1, 2}),
    ],
    ids=repr,
)
def test_what_cannot_change_is_kept_as_it_is(value):
    """No time and no memory is spent on values that are safe anyway."""
    assert snapshot(value) is value


@pytest.mark.parametrize(
    "value",
    [
        [1, [2]],
        {"a": [1], "b": {"c": {2}}},
        (1, [2]),
        {1, (2, 3)},
        deque([1, [2]], maxlen=5),
        OrderedDict(a=[1]),
        defaultdict(list, a=[1]),
        bytearray(b"ab"),
        Pair(1, [2]),
        Frozen([1]),
    ],
    ids=repr,
)
def test_what_can_change_is_copied_with_its_type(value):
    """A copy is equal, of the same type, and another object."""
    copied = snapshot(value)
    assert copied == value
    assert type(copied) is type(value)
    assert copied is not value


def test_a_frozen_dataclass_is_copied_as_deep_as_it_can_change():
    """What is frozen may hold what is not."""
    value = Frozen([1])
    copied = snapshot(value)
    value.items.append(2)
    assert copied == Frozen([1])


def test_what_contains_itself_is_copied():
    """A circle in the input is a circle in the copy."""
    value = [1]
    value.append(value)
    copied = snapshot(value)
    value.append(2)
    assert len(copied) == 2
    assert copied[1] is copied


@pytest.mark.parametrize(
    "live",
    [threading.Lock(), iter([1]), object()],
    ids=["lock", "iterator", "object"],
)
def test_live_objects_are_represented(live):
    """A stand-in shows the object, equals it, and nothing else of its type."""
    copied = snapshot({"live": live})["live"]
    assert isinstance(copied, StandIn)
    assert repr(copied) == f"<not copied: {live!r}>"
    assert copied.type is type(live)
    assert copied != object()


def test_a_stand_in_equals_its_object_and_keeps_it_not_alive():
    """Identity is what an object without a value has; the record does not hold it."""

    class Live:
        pass

    live = Live()
    copied = snapshot(live)
    assert copied == live
    assert copied == snapshot(live)
    assert copied != Live()
    del live
    gc.collect()
    assert copied != None  # noqa: E711 - what a dead reference gives


def test_a_huge_value_is_not_copied_as_a_whole():
    """After 10 000 parts the rest is represented."""
    copied = snapshot([[n] for n in range(20_000)])
    assert copied[:2] == [[0], [1]]
    assert isinstance(copied[-1], StandIn)


def test_a_long_repr_is_cut():
    """A stand-in stays short enough for a line."""
    assert shorten("x" * 1000, 10) == "'xxxxxxxx…"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("a"),
        OSError(2, "no such file", "x.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        asyncio.CancelledError("why"),
        TimeoutExceededError("late", timeout_seconds=3.0),
        RateLimitExceededError("wait", retry_after=2.0),
        SystemExit(3),
    ],
    ids=repr,
)
def test_an_error_is_copied_without_calling_its_init(error):
    """Class, arguments, text and attributes are those of the original."""
    error.add_note("a note")
    copied = detached(error)
    assert type(copied) is type(error)
    assert copied is not error
    assert (copied.args, str(copied)) == (error.args, str(error))
    assert vars(copied) == vars(error)
    assert getattr(copied, "filename", None) == getattr(error, "filename", None)


def test_the_copy_of_an_error_has_no_traceback_cause_and_context():
    """Nothing in it holds a frame."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as outer:
        copied = detached(outer)
    assert (copied.__traceback__, copied.__cause__, copied.__context__) == (None,) * 3


def test_groups_are_copied_with_their_members():
    """The members of a group are copies too."""
    error = FallbackExhaustedError("all failed", [ValueError("a"), KeyError("b")])
    copied = detached(error)
    assert type(copied) is FallbackExhaustedError
    assert [type(one) for one in copied.exceptions] == [ValueError, KeyError]
    assert copied.exceptions[0] is not error.exceptions[0]


def test_an_error_that_cannot_be_copied_is_described():
    """A hostile class costs the copy, never the run."""

    class Hostile(Exception):
        def __reduce__(self):
            raise RuntimeError("no")

        def __str__(self):
            return "hostile text"

    copied = detached(Hostile())
    assert str(copied) == "Hostile: hostile text"
    assert copied.type is Hostile
