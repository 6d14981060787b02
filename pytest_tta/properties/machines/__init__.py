"""State machines to subclass: callers of a primitive, and a model of what it owes them.

Hypothesis calls, answers, cancels and lets time pass, in any order; after each step
every caller must stand where the model says. They need Hypothesis.
"""

from __future__ import annotations

from pytest_tta.properties.machines.breaker import CircuitBreakerMachine
from pytest_tta.properties.machines.bulkhead import BulkheadMachine
from pytest_tta.properties.machines.cache import CacheMachine
from pytest_tta.properties.machines.machine import Caller, Machine
from pytest_tta.properties.machines.rate_limit import RateLimitMachine

__all__ = [
    "BulkheadMachine",
    "CacheMachine",
    "Caller",
    "CircuitBreakerMachine",
    "Machine",
    "RateLimitMachine",
]
