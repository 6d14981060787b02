"""Strategies for options: each makes a primitive, the plainest is hardly noticed."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import find, given, settings

from pytest_tta.properties import policies
from tta_primitives import SequentialPrimitive, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

QUICK = settings(database=None, max_examples=150, deadline=None)
PLAINEST = {
    BulkheadPrimitive: {"max_concurrency": 8, "max_queue": None},
    CachePrimitive: {"ttl": 0.0},
    CircuitBreakerPrimitive: {},
    FallbackPrimitive: {},
    HedgePrimitive: {"delay": 60.0},
    RateLimitPrimitive: {"rate": 100},
    RetryPrimitive: {"max_retries": 0},
    TimeoutPrimitive: {"timeout_seconds": 60.0},
}


@step
async def llm(question):
    """Answer."""
    return question


def smallest(strategy, wanted):
    """Return what a strategy shrinks to."""
    options = settings(database=None, max_examples=5000, deadline=None)
    return find(strategy, wanted, settings=options, random=random.Random(1))


@pytest.mark.parametrize("kind", PLAINEST, ids=lambda kind: kind.__name__)
def test_every_policy_makes_a_primitive(kind):
    """No policy has options that are refused, alone or together."""
    rest = {"fallbacks": [llm]} if kind is FallbackPrimitive else {}

    @QUICK
    @given(policy=policies(kind))
    def build(policy):
        kind(llm, **policy, **rest)

    build()


@pytest.mark.parametrize("kind", PLAINEST, ids=lambda kind: kind.__name__)
def test_policies_shrink_to_the_plainest(kind):
    """What does not matter for a failure is left out, or has no effect."""
    assert smallest(policies(kind), lambda _: True) == PLAINEST[kind]


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (BulkheadPrimitive, "max_wait", 60.0),
        (CachePrimitive, "negative_ttl", 0.0),
        (CircuitBreakerPrimitive, "failure_rate", 1.0),
        (CircuitBreakerPrimitive, "success_threshold", 1),
        (HedgePrimitive, "max_hedges", 1),
        (RateLimitPrimitive, "burst", 20),
    ],
)
def test_an_option_that_matters_shrinks_to_its_plainest_value(kind, option, value):
    """The others stay as plain as they were."""
    found = smallest(policies(kind), lambda policy: option in policy)
    assert found == {**PLAINEST[kind], option: value}


def test_policies_serve_subclasses():
    """A primitive of one's own takes what its base takes."""

    class Ours(CachePrimitive):
        pass

    assert smallest(policies(Ours), lambda _: True) == {"ttl": 0.0}


def test_no_duration_is_longer_than_asked_for():
    """The longest limit is the plainest."""
    strategy = policies(TimeoutPrimitive, max_seconds=timedelta(minutes=2))
    assert smallest(strategy, lambda _: True) == {"timeout_seconds": 120.0}


@pytest.mark.parametrize("kind", [SequentialPrimitive, "retry", None])
def test_what_has_no_policy_is_refused(kind):
    """The error lists what has one."""
    with pytest.raises(TypeError, match=r"kind=.* must be .*BulkheadPrimitive, Cache"):
        policies(kind)


def test_too_short_durations_are_refused():
    """A millisecond is the unit of all of them."""
    with pytest.raises(ValueError, match=r"max_seconds=0\.0001 must be at least"):
        policies(CachePrimitive, max_seconds=0.0001)
