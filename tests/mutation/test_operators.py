"""Each operator: what it makes of a primitive, and where there is nothing to make."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_tta import Harness
from pytest_tta.faults import always
from pytest_tta.mutation.operators import OPERATORS, chosen, mutations_of
from pytest_tta.mutation.rebuilding import rebuild
from tta_primitives import MapPrimitive, WorkflowPrimitive, step
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

Tree = WorkflowPrimitive[Any, Any]


@step
async def load(text: str) -> str:
    """Return what was asked for."""
    return text


@step
async def other(text: str) -> str:
    """Return what was asked for, loudly."""
    return text.upper()


@step
async def third(text: str) -> str:
    """Return what was asked for, twice."""
    return text * 2


@step
async def undo(record: object) -> None:
    """Undo nothing."""


def made(tree: Tree, operator: str) -> list[str]:
    """Return what an operator makes of a workflow, in its own words."""
    return [one.what for one in mutations_of(tree, frozenset({operator}))]


def mutant(tree: Tree, operator: str, what: str) -> Any:
    """Return one mutant of a workflow."""
    (found,) = (
        one for one in mutations_of(tree, frozenset({operator})) if one.what == what
    )
    return rebuild(tree, found.path, found.change)


def options(tree: Tree, operator: str, what: str) -> dict[str, Any]:
    """Return the options of a mutant's root."""
    changed: dict[str, Any] = mutant(tree, operator, what).options()
    return changed


RETRY = RetryPrimitive(load, max_retries=2, initial_delay=1, jitter="none")
TIMEOUT = TimeoutPrimitive(load, timeout_seconds=2)
FALLBACK = FallbackPrimitive(load, [other, third])
BREAKER = CircuitBreakerPrimitive(load, failure_threshold=3, recovery_timeout=5)
CACHE = CachePrimitive(load, ttl=60)
SAGA = SagaPrimitive([(load, undo), other])
CANCELLED = mutant(BREAKER, "breaker-cancellation", "cancellations count as failures")
BULKHEAD = BulkheadPrimitive(load, max_concurrency=2)
RATE = RateLimitPrimitive(load, rate=5)
NESTED = TimeoutPrimitive(RETRY, timeout_seconds=2)

MADE: list[tuple[Tree, str, list[str]]] = [
    (RETRY, "retry-drop", ["gone"]),
    (RETRY, "retry-attempts", ["max_retries 2 -> 3", "max_retries 2 -> 1"]),
    (RetryPrimitive(load, max_retries=0), "retry-attempts", ["max_retries 0 -> 1"]),
    (RETRY, "retry-backoff", ["backoff -> 0", "backoff x100"]),
    (RetryPrimitive(load, initial_delay=0), "retry-backoff", []),
    (RETRY, "retry-errors", ["retries nothing", "retries everything"]),
    (TIMEOUT, "timeout-drop", ["gone"]),
    (TIMEOUT, "timeout-limit", ["timeout 2 x10", "timeout 2 /10"]),
    (TIMEOUT, "timeout-nesting", []),
    (NESTED, "timeout-nesting", ["retry outside"]),
    (RetryPrimitive(TIMEOUT), "timeout-nesting", ["timeout outside"]),
    (FALLBACK, "fallback-drop", ["gone"]),
    (
        FALLBACK,
        "fallback-order",
        ["other before load", "third before other"],
    ),
    (FALLBACK, "fallback-last", ["without third"]),
    (FallbackPrimitive(load, [other]), "fallback-last", []),
    (BREAKER, "breaker-drop", ["gone"]),
    (
        BREAKER,
        "breaker-threshold",
        ["failure_threshold 3 -> 4", "failure_threshold 3 -> 2"],
    ),
    (BREAKER, "breaker-recovery", ["recovery_timeout x10", "never recovers"]),
    (CACHE, "cache-drop", ["gone"]),
    (CACHE, "cache-ttl", ["ttl -> 0", "ttl -> for ever"]),
    (CACHE, "cache-key", ["one key for all"]),
    (CACHE, "cache-flight", ["no single flight"]),
    (CachePrimitive(load, ttl=60, single_flight=False), "cache-flight", []),
    (SAGA, "compensation-drop", ["without undo"]),
    (CompensationPrimitive(load, undo), "compensation-drop", ["without undo"]),
    (load | other, "parallel-order", ["one after the other"]),
    (
        load >> other >> third,
        "steps-order",
        ["other before load", "third before other"],
    ),
    (load >> load, "steps-order", []),
    (BULKHEAD, "bulkhead-drop", ["gone"]),
    (
        BULKHEAD,
        "bulkhead-size",
        ["max_concurrency 2 -> 3", "max_concurrency 2 -> 1"],
    ),
    (BREAKER, "breaker-cancellation", ["cancellations count as failures"]),
    (CACHE, "cache-errors", ["errors are kept"]),
    (
        CachePrimitive(load, ttl=60, negative_ttl=5, negative_on=Exception),
        "cache-errors",
        [],
    ),
    (SAGA, "compensation-order", []),
    (
        SagaPrimitive([(load, undo), (other, undo)]),
        "compensation-order",
        ["what is done first is undone first", "load and other undo each other"],
    ),
    (
        SagaPrimitive(
            CompensationPrimitive(load, undo) >> CompensationPrimitive(other, undo)
        ),
        "compensation-order",
        ["what is done first is undone first"],
    ),
    (load | other, "parallel-errors", ["return_exceptions -> True"]),
    (
        step(list) >> MapPrimitive(load, max_concurrency=2, return_exceptions=True),
        "parallel-errors",
        ["return_exceptions -> False"],
    ),
    (RATE, "rate-drop", ["gone"]),
    (RATE, "rate-limit", ["rate 5 x10"]),
]


@pytest.mark.parametrize(
    ("tree", "operator", "expected"),
    MADE,
    ids=[f"{i}-{m[1]}" for i, m in enumerate(MADE)],
)
def test_what_an_operator_makes(tree: Tree, operator: str, expected: list[str]) -> None:
    """One change after the other, each named for what becomes of what."""
    assert made(tree, operator) == expected


def test_each_operator_is_tried_here() -> None:
    """The list above has them all."""
    assert {operator for _, operator, _ in MADE} == set(OPERATORS)


@pytest.mark.parametrize(
    ("tree", "operator"), [m[:2] for m in MADE if m[2]], ids=lambda x: str(x)[:40]
)
def test_every_mutant_still_runs(tree: Tree, operator: str) -> None:
    """A mutant is a workflow like any other."""
    for found in mutations_of(tree, frozenset({operator})):
        with Harness() as tta:
            assert tta.run(rebuild(tree, found.path, found.change), "x") is not None


def test_what_stands_below_keeps_its_path() -> None:
    """A retry that was taken out leaves its name."""
    changed = mutant(NESTED, "retry-drop", "gone")
    assert [one.name for one in changed.children()] == ["retry"]


def test_every_mutant_has_the_name_of_its_original() -> None:
    """What another class does instead is found under the same path."""
    assert CANCELLED.name == BREAKER.name
    saga = SagaPrimitive([(load, undo), (other, undo)])
    what = "what is done first is undone first"
    assert mutant(saga, "compensation-order", what).name == saga.name


def test_the_limits_of_a_retry_change() -> None:
    """It has another count, and another backoff."""
    more = mutant(RETRY, "retry-attempts", "max_retries 2 -> 3")
    assert more.max_retries == 3
    longer = mutant(RETRY, "retry-backoff", "backoff x100")
    assert [longer._backoff.delay(n, None) for n in (1, 2)] == [100.0, 200.0]
    none = mutant(RETRY, "retry-backoff", "backoff -> 0")
    assert none._backoff.delay(1, None) == 0.0


@pytest.mark.parametrize("strategy", [[1.0, 3.0], math.sqrt], ids=["list", "f"])
def test_any_backoff_can_be_longer(strategy: Any) -> None:
    """A list and a function are multiplied too."""
    retry = RetryPrimitive(load, backoff_strategy=strategy, jitter="none")
    longer = mutant(retry, "retry-backoff", "backoff x100")
    assert longer._backoff.delay(1, None) == 100.0


def test_the_limit_of_a_timeout_changes() -> None:
    """A number is multiplied, and what a function returns is too."""
    assert options(TIMEOUT, "timeout-limit", "timeout 2 x10") == {
        "timeout_seconds": 20.0
    }
    asking = TimeoutPrimitive(load, timeout_seconds=len)
    changed = mutant(asking, "timeout-limit", "timeout x10")
    assert changed._ask("ab", None) == 20.0


def test_timeout_and_retry_change_places() -> None:
    """The names stay where they were, so that paths do."""
    changed = mutant(NESTED, "timeout-nesting", "retry outside")
    inner = changed.primitive
    assert (type(changed), changed.name) == (RetryPrimitive, "timeout")
    assert (type(inner), inner.name) == (TimeoutPrimitive, "retry")
    assert inner.primitive is load


def test_alternatives_change_places() -> None:
    """The first fallback becomes the primary, and so on."""
    changed = mutant(FALLBACK, "fallback-order", "other before load")
    assert changed.children() == (other, load, third)
    assert mutant(FALLBACK, "fallback-last", "without third").children() == (
        load,
        other,
    )


def test_a_breaker_opens_later_and_stays_open() -> None:
    """Threshold and break are options of its policy."""
    changed = mutant(BREAKER, "breaker-threshold", "failure_threshold 3 -> 4")
    assert changed._policy.threshold == 4
    longer = mutant(BREAKER, "breaker-recovery", "recovery_timeout x10")
    assert longer._policy.first_break == 50.0


def test_a_breaker_counts_cancellations() -> None:
    """It opens when its calls have been cancelled often enough, and only then."""
    for tree, state in ((BREAKER, "closed"), (CANCELLED, "open")):
        limited = TimeoutPrimitive(tree, timeout_seconds=2)
        with Harness() as tta:
            tta.faults.at("load").hang(when=always())
            for _ in range(3):
                with pytest.raises(TimeoutExceededError, match=r"2 s"):
                    tta.run(limited, "x")
            assert tree.state == state


def test_a_saga_undoes_in_the_wrong_order() -> None:
    """The first first, or one step by what undoes the other."""
    told: list[str] = []
    saga = SagaPrimitive(
        [
            (load, lambda _: told.append("undo load")),
            (other, lambda _: told.append("undo other")),
            step(_fail),
        ]
    )
    operator = "compensation-order"
    for what, expected in (
        ("what is done first is undone first", ["undo load", "undo other"]),
        ("load and other undo each other", ["undo load", "undo other"]),
    ):
        told.clear()
        with Harness() as tta, pytest.raises(ConnectionError, match=r"^gone$"):
            tta.run(mutant(saga, operator, what), "x")
        assert told == expected


def _fail(_: str) -> None:
    msg = "gone"
    raise ConnectionError(msg)


def test_a_saga_forgets_to_undo() -> None:
    """The step stays, and what undoes it is gone."""
    changed = mutant(SAGA, "compensation-drop", "without undo")
    assert changed.children() == (load, other)


def test_the_rate_grows() -> None:
    """Rate and the bucket that holds it."""
    changed = mutant(RATE, "rate-limit", "rate 5 x10")
    assert changed._limit.capacity == 50.0


def test_a_shared_primitive_is_changed_once() -> None:
    """In two places it is one primitive."""
    assert made(RETRY | RETRY, "retry-drop") == ["gone"]


def test_operators_are_chosen_by_name_and_family() -> None:
    """With commas; nothing, or "all", is all of them."""
    assert chosen("") is None
    assert chosen("all") is None
    assert chosen("retry-drop, cache") == {
        "retry-drop",
        "cache-drop",
        "cache-ttl",
        "cache-key",
        "cache-flight",
        "cache-errors",
    }


def test_an_unknown_operator_is_an_error() -> None:
    """It is shown, and those that there are."""
    with pytest.raises(ValueError, match="'retri' is no operator; there are retry-d"):
        chosen("retri")
