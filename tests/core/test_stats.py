"""The stats of a whole workflow, by path, as data that JSON can carry."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

import pytest

from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    RouterPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.errors import OpenWrapperError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive
from tta_primitives.stats import stats_of


@step
async def llm(question):
    return question


class Counting(WorkflowPrimitive):
    """A primitive of a user's, with whatever stats a test gives it."""

    def __init__(self, stats):
        self._stats = stats

    @property
    def stats(self):
        if isinstance(self._stats, Exception):
            raise self._stats
        return self._stats

    async def execute(self, value, context):
        return value


async def test_every_primitive_that_counts_is_found_by_its_path() -> None:
    """In the order in which they stand in the tree; the others are left out."""
    workflow = (
        llm
        >> CachePrimitive(RetryPrimitive(llm), ttl=60)
        >> FallbackPrimitive(TimeoutPrimitive(llm, timeout_seconds=1), [llm])
    )
    await workflow.execute("x", WorkflowContext())
    found = stats_of(workflow.named("answer"))
    assert list(found) == [
        "answer/cache",
        "answer/cache/retry",
        "answer/fallback",
        "answer/fallback/timeout",
    ]
    assert found["answer/cache"]["misses"] == 1
    assert found["answer/fallback"] == {
        "calls": 1,
        "tried": 0,
        "answers": [0],
        "exhausted": 0,
    }


def test_a_workflow_without_stats_has_none() -> None:
    """Plain steps count nothing."""
    assert stats_of(llm >> llm) == stats_of(llm) == {}


def test_what_stands_in_two_places_is_found_twice() -> None:
    """With the same numbers: it is one primitive."""
    retry = RetryPrimitive(llm)
    assert list(stats_of(retry >> retry)) == ["sequential/retry", "sequential/retry#2"]
    assert list(stats_of(retry | retry.named("b"))) == ["parallel/retry", "parallel/b"]


def test_primitives_of_all_kinds_are_looked_into() -> None:
    """Branches, routes and what a map executes."""
    one = RetryPrimitive(llm)
    workflow = MapPrimitive(
        ConditionalPrimitive(bool, one, RouterPrimitive({"a": one}, str))
    )
    assert list(stats_of(workflow)) == [
        "map/conditional/retry",
        "map/conditional/router/retry",
    ]


def test_a_chain_of_one_link_shows_its_link() -> None:
    """As its path does."""
    assert list(stats_of(RetryPrimitive() >> llm)) == ["retry"]


def test_an_open_wrapper_counts_nothing() -> None:
    """It is an error, as to execute it would be."""
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        stats_of(RetryPrimitive())


class Light(Enum):
    """How something stands."""

    GREEN = "green"


@dataclass
class Inner:
    """Stats inside of stats."""

    waits: tuple[float, ...] = (0.5, float("inf"), float("nan"))
    names: set[str] = field(default_factory=lambda: {"b", "a"})


@dataclass(frozen=True, slots=True)
class Outer:
    """Stats as our own primitives have them."""

    state: Light = Light.GREEN
    inner: Inner = field(default_factory=Inner)
    by_model: dict = field(default_factory=lambda: {("gpt", 4): timedelta(seconds=2)})
    last: object = None

    @property
    def ratio(self):
        """What is derived is not shown."""
        return 0.5


class Named(NamedTuple):
    """Stats as a named tuple."""

    calls: int


@pytest.mark.parametrize(
    ("stats", "shown"),
    [
        (
            Outer(last=len),
            {
                "state": "green",
                "inner": {"waits": [0.5, None, None], "names": ["a", "b"]},
                "by_model": {"('gpt', 4)": 2.0},
                "last": "len",
            },
        ),
        ({"calls": 3, 4: True}, {"calls": 3, "4": True}),
        (Named(3), {"calls": 3}),
        ({}, {}),
        (ValueError("no"), {"error": "ValueError"}),
        (AttributeError("no"), {"error": "AttributeError"}),
    ],
    ids=["dataclass", "mapping", "tuple", "empty", "error", "attribute error"],
)
def test_stats_of_users_are_plain_data(stats, shown) -> None:
    """Dataclasses, named tuples and mappings, and what is inside of them."""
    found = stats_of(Counting(stats))
    assert found == {"counting": shown}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("stats", [None, 3, [1], Outer, len, (1, 2)])
def test_what_is_no_record_is_left_out(stats) -> None:
    """An attribute of that name may mean something else."""
    assert stats_of(Counting(stats)) == {}


def test_one_that_raises_does_not_hide_the_others() -> None:
    """It is shown by the type of its error."""
    found = stats_of(Counting(ValueError("no")) >> RetryPrimitive(llm))
    assert found["sequential/counting"] == {"error": "ValueError"}
    assert found["sequential/retry"]["calls"] == 0
