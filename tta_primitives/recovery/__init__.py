"""What keeps a workflow going when a step fails: retry, fallback, timeout."""

from __future__ import annotations

from tta_primitives.recovery.alternatives import FallbackOutcome
from tta_primitives.recovery.attempts import Attempt, attempts_of
from tta_primitives.recovery.budget import RetryBudget
from tta_primitives.recovery.bulkhead import BulkheadPrimitive, BulkheadStats
from tta_primitives.recovery.circuit_breaker import (
    CircuitBreakerPrimitive,
    CircuitBreakerStats,
)
from tta_primitives.recovery.circuit_policy import CircuitStateChange
from tta_primitives.recovery.compensation import (
    CompensationPrimitive,
    CompensationStats,
    SagaPrimitive,
    SagaRecord,
    SagaStats,
)
from tta_primitives.recovery.fallback import FallbackPrimitive, FallbackStats
from tta_primitives.recovery.hedge import (
    HedgeOutcome,
    HedgePrimitive,
    HedgeStats,
    Quantile,
)
from tta_primitives.recovery.rate_limit import RateLimitPrimitive, RateLimitStats
from tta_primitives.recovery.retry import RetryPrimitive, RetryStats
from tta_primitives.recovery.timeout import TimeoutPrimitive, TimeoutStats

__all__ = [
    "Attempt",
    "BulkheadPrimitive",
    "BulkheadStats",
    "CircuitBreakerPrimitive",
    "CircuitBreakerStats",
    "CircuitStateChange",
    "CompensationPrimitive",
    "CompensationStats",
    "FallbackOutcome",
    "FallbackPrimitive",
    "FallbackStats",
    "HedgeOutcome",
    "HedgePrimitive",
    "HedgeStats",
    "Quantile",
    "RateLimitPrimitive",
    "RateLimitStats",
    "RetryBudget",
    "RetryPrimitive",
    "RetryStats",
    "SagaPrimitive",
    "SagaRecord",
    "SagaStats",
    "TimeoutPrimitive",
    "TimeoutStats",
    "attempts_of",
]
