"""One workflow of each kind, to be covered; each is made by a function `make_...`."""

from __future__ import annotations

from typing import Any

from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    ParallelPrimitive,
    RouterPrimitive,
    step,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryBudget,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)
from tta_primitives.resilient import resilient

Made = Any


@step
async def price(item: Any) -> Any:
    """Return what it was given, like the others."""
    return item


@step
async def pay(item: Any) -> Any:
    """Pay."""
    return item


@step
async def ship(item: Any) -> Any:
    """Ship."""
    return item


@step
async def refund(record: Any) -> None:
    """Undo a payment."""


@step
async def recall(record: Any) -> None:
    """Undo a shipment."""


def make_chain() -> Made:
    """Three steps."""
    return (price >> pay >> ship).named("chain")


def make_parallel() -> Made:
    """Three branches."""
    return (price | pay | ship).named("parallel")


def make_tolerant() -> Made:
    """Branches whose failures stand in the output."""
    return ParallelPrimitive(price, pay, return_exceptions=True).named("tolerant")


def make_retry() -> Made:
    """A retry with a limit of its own."""
    return RetryPrimitive(price, max_retries=3, max_elapsed=30)


def make_narrow_retry() -> Made:
    """A retry of one class of errors, within a budget."""
    retry = RetryPrimitive(
        price, max_retries=1, retry_on=(KeyError,), budget=RetryBudget()
    )
    return retry.named("narrow")


def make_long_retry() -> Made:
    """More attempts than anybody would name, without a pause."""
    retry = RetryPrimitive(price, max_retries=8, initial_delay=0, jitter="none")
    return retry.named("long")


def make_fallback() -> Made:
    """Two fallbacks, for some errors."""
    return FallbackPrimitive(
        price, fallbacks=[pay, ship], fallback_on=(ConnectionError,)
    )


def make_timeout() -> Made:
    """A limit."""
    return TimeoutPrimitive(price, timeout_seconds=1)


def make_rescued_timeout() -> Made:
    """A limit with a fallback."""
    return TimeoutPrimitive(price, timeout_seconds=1, fallback=pay).named("rescued")


def make_breaker() -> Made:
    """A breaker that counts failures in a row, of some errors."""
    return CircuitBreakerPrimitive(
        price,
        failure_threshold=3,
        success_threshold=2,
        ignore=(KeyError,),
        record_on=(ConnectionError,),
    )


def make_rate_breaker() -> Made:
    """A breaker that opens by a rate."""
    breaker = CircuitBreakerPrimitive(
        price, failure_rate=0.5, minimum_calls=4, half_open_max_calls=2
    )
    return breaker.named("rate_breaker")


def make_cache() -> Made:
    """A cache that answers errors with what is stale."""
    return CachePrimitive(price, ttl=10, stale_if_error=5)


def make_stale_cache() -> Made:
    """A cache that answers with what is stale, and remembers failures."""
    cache = CachePrimitive(
        price, ttl=10, stale_ttl=5, negative_ttl=2, negative_on=(ConnectionError,)
    )
    return cache.named("stale_cache")


def make_early_cache() -> Made:
    """A cache that refreshes early."""
    cache = CachePrimitive(price, ttl=10, early_refresh=2, single_flight=False)
    return cache.named("early_cache")


def make_saga() -> Made:
    """A saga given as a list."""
    return SagaPrimitive([(price, refund), (pay, recall), ship])


def make_careful_saga() -> Made:
    """A saga that undoes the step that failed as well."""
    saga = SagaPrimitive([(price, refund), (pay, recall)], compensate_failed=True)
    return saga.named("careful")


def make_saga_of_workflow() -> Made:
    """A saga given as a workflow."""
    return SagaPrimitive(CompensationPrimitive(price, refund) >> pay).named("wide")


def make_compensation() -> Made:
    """A compensation without a saga."""
    return CompensationPrimitive(price, refund).named("lone")


def make_bulkhead() -> Made:
    """A bulkhead with a short queue."""
    return BulkheadPrimitive(price, max_concurrency=2, max_queue=1, max_wait=5)


def make_rate_limit() -> Made:
    """A rate limit with a longest wait."""
    return RateLimitPrimitive(price, rate=5, max_wait=0.5)


def make_patient_rate_limit() -> Made:
    """A rate limit that waits, and is closed by some errors."""
    limit = RateLimitPrimitive(price, rate=5, burst=2, penalize_on=(ConnectionError,))
    return limit.named("patient")


def make_leaky_rate_limit() -> Made:
    """A rate limit without bursts."""
    return RateLimitPrimitive(price, rate=2, algorithm="leaky_bucket").named("leaky")


def make_hedge() -> Made:
    """A hedge of one service."""
    return HedgePrimitive(price, delay=1)


def make_wide_hedge() -> Made:
    """A hedge with alternatives."""
    hedge = HedgePrimitive(price, delay=1, max_hedges=2, alternatives=[pay, ship])
    return hedge.named("wide_hedge")


def make_map() -> Made:
    """A map."""
    return MapPrimitive(price, max_concurrency=2)


def make_conditional() -> Made:
    """Two ways."""
    return ConditionalPrimitive(bool, price, pay)


def make_router() -> Made:
    """Two routes and a default."""
    return RouterPrimitive({"tea": price, "gift": pay}, str, default=ship)


def make_stack() -> Made:
    """The usual stack."""
    layers = resilient(price, fallbacks=["none"], cache=60, rate_limit=100, bulkhead=3)
    return layers.named("stack")
