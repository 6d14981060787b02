"""What can happen to a primitive, from its options and from what is below it."""

from __future__ import annotations

import math

import pytest

from pytest_tta.coverage.nodes import node_of
from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    RouterPrimitive,
    StepPrimitive,
)
from tta_primitives.performance import CachePrimitive, MemoryStorage
from tta_primitives.primitive import WorkflowPrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)


async def call(value):
    """Ask somebody, who may fail or be silent."""
    return value


def plain(value):
    """Compute, which neither fails nor waits."""
    return value


def undo(value):
    """Undo, which neither fails nor waits."""


class Custom(WorkflowPrimitive):
    """A primitive of a user."""

    def __init__(self, child):
        self._child = child

    def children(self):
        return [self._child]

    async def _run(self, input_data, context):
        return await self._child.execute(input_data, context)


class Shared(MemoryStorage):
    """A storage that is elsewhere, and may be away."""


def outcomes(workflow):
    """Return the outcomes of the outermost primitive."""
    return list(node_of(workflow).universe)


CALL, PLAIN = StepPrimitive(call), StepPrimitive(plain)
QUIET = {
    "a step": (PLAIN, ["ok"]),
    "a chain": (PLAIN >> StepPrimitive(undo), ["complete"]),
    "branches": (PLAIN | StepPrimitive(undo), ["all ok"]),
    "a condition": (
        ConditionalPrimitive(bool, PLAIN, StepPrimitive(undo)),
        ["then", "else"],
    ),
    "a map": (MapPrimitive(PLAIN), ["all ok", "empty"]),
    "a retry": (RetryPrimitive(PLAIN), ["ok@1"]),
    "a fallback": (FallbackPrimitive(PLAIN, [StepPrimitive(undo)]), ["primary ok"]),
    "a time limit": (TimeoutPrimitive(PLAIN, timeout_seconds=1), ["in time"]),
    "a breaker": (CircuitBreakerPrimitive(PLAIN), ["ok"]),
    "a cache": (CachePrimitive(PLAIN, ttl=10), ["miss", "hit", "expired"]),
    "a cache for ever": (CachePrimitive(PLAIN, ttl=math.inf), ["miss", "hit"]),
    "a bulkhead": (BulkheadPrimitive(PLAIN, max_concurrency=1), ["admitted"]),
    "a compensation": (CompensationPrimitive(PLAIN, undo), ["done"]),
    "another's": (Custom(PLAIN), ["ok"]),
}


@pytest.mark.parametrize(("workflow", "expected"), QUIET.values(), ids=QUIET.keys())
def test_around_what_neither_fails_nor_waits_little_can_happen(workflow, expected):
    """No test is asked to make a plain function fail, or to cancel it."""
    assert outcomes(workflow) == expected


DEFAULT = StepPrimitive(undo)
# What one more option adds, and what it rules out.
OPTIONS = {
    "a default route of its own": (
        RouterPrimitive({"a": PLAIN}, str),
        RouterPrimitive({"a": PLAIN}, str, default=DEFAULT),
        ["default"],
        ["no route"],
    ),
    "one of the routes as default": (
        RouterPrimitive({"a": CALL}, str),
        RouterPrimitive({"a": CALL}, str, default="a"),
        [],
        ["no route"],
    ),
    "errors as results": (
        MapPrimitive(CALL) >> PLAIN,
        MapPrimitive(CALL, return_exceptions=True) >> PLAIN,
        [],
        ["stops@map"],
    ),
    "no retries": (
        RetryPrimitive(CALL, max_retries=1),
        RetryPrimitive(CALL, max_retries=0),
        [],
        ["ok@2", "hint honoured", "cancelled in backoff"],
    ),
    "retries without an end": (
        RetryPrimitive(CALL, max_retries=5, max_elapsed=60),
        RetryPrimitive(CALL, max_retries=None, max_elapsed=60),
        [],
        ["exhausted"],
    ),
    "a result that is refused": (
        RetryPrimitive(PLAIN, max_retries=1),
        RetryPrimitive(PLAIN, max_retries=1, retry_if_result=bool),
        ["ok@2", "exhausted", "result refused"],
        [],
    ),
    "an answer of a limit": (
        TimeoutPrimitive(CALL, timeout_seconds=1),
        TimeoutPrimitive(CALL, timeout_seconds=1, fallback=PLAIN),
        ["fallback answers"],
        ["fired"],
    ),
    "a breaker that opens at once": (
        CircuitBreakerPrimitive(CALL, failure_threshold=5),
        CircuitBreakerPrimitive(CALL, failure_threshold=1),
        [],
        ["error counted"],
    ),
    "a second probe": (
        CircuitBreakerPrimitive(CALL),
        CircuitBreakerPrimitive(CALL, success_threshold=2),
        ["probe ok"],
        [],
    ),
    "a shared storage": (
        CachePrimitive(CALL, ttl=1),
        CachePrimitive(CALL, ttl=1, storage=Shared(), namespace="n"),
        ["storage fails"],
        [],
    ),
    "no place to wait": (
        BulkheadPrimitive(CALL, max_concurrency=1, max_queue=None),
        BulkheadPrimitive(CALL, max_concurrency=1, max_queue=0),
        ["rejected full"],
        ["queued", "cancelled in queue"],
    ),
    "no wait for a rate": (
        RateLimitPrimitive(CALL, rate=1),
        RateLimitPrimitive(CALL, rate=1, max_wait=0),
        ["rejected"],
        ["delayed", "cancelled in wait"],
    ),
    "a call that must not run twice": (
        HedgePrimitive(StepPrimitive(call, idempotent=True), delay=1),
        HedgePrimitive(StepPrimitive(call, idempotent=False), delay=1),
        ["not hedged"],
        ["primary alone", "hedge wins", "primary wins", "all fail"],
    ),
    "a gate for hedges": (
        HedgePrimitive(StepPrimitive(call, idempotent=True), delay=1),
        HedgePrimitive(StepPrimitive(call, idempotent=True), delay=1, hedge_if=bool),
        ["not hedged"],
        [],
    ),
}


@pytest.mark.parametrize(
    ("bare", "other", "gained", "lost"), OPTIONS.values(), ids=OPTIONS.keys()
)
def test_an_option_adds_outcomes_and_rules_others_out(bare, other, gained, lost):
    """What the constants say cannot happen is not asked of the tests."""
    before, after = outcomes(bare), outcomes(other)
    assert [one for one in after if one not in before] == gained
    assert [one for one in before if one not in after] == lost


def test_around_a_call_more_can_happen():
    """It may fail, and be cancelled while it waits."""
    assert outcomes(CALL) == ["ok", "failed", "cancelled"]
    assert outcomes(Custom(CALL)) == ["ok", "failed", "cancelled"]
