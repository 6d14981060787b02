"""The usual stack: the type is that of what it is around."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from tta_primitives import (
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import Open, Wrapper
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)
from tta_primitives.resilient import resilient


@step
async def llm(prompt: str) -> int:
    return len(prompt)


async def plain(prompt: str) -> int:
    return len(prompt)


async def plain_with_context(prompt: str, context: WorkflowContext) -> int:
    return len(prompt)


def plain_sync(prompt: str) -> int:
    return len(prompt)


def by_length(prompt: str, context: WorkflowContext) -> float:
    return len(prompt)


assert_type(resilient(llm), WorkflowPrimitive[str, int])
assert_type(resilient(plain), WorkflowPrimitive[str, int])
assert_type(resilient(plain_with_context), WorkflowPrimitive[str, int])
assert_type(resilient(plain_sync), WorkflowPrimitive[str, int])
assert_type(resilient(), Wrapper[Open, Open])
assert_type(resilient() >> llm, SequentialPrimitive[str, int])
assert_type(
    resilient(
        llm,
        fallbacks=[plain, 0],
        total_timeout=timedelta(minutes=1),
        cache=300,
        retry=5,
        circuit_breaker=False,
        rate_limit=2.5,
        bulkhead=10,
        attempt_timeout=by_length,
    ),
    WorkflowPrimitive[str, int],
)
assert_type(
    resilient(
        llm,
        cache={"ttl": 300, "max_size": 9},
        retry={"max_retries": 5, "jitter": "none"},
        circuit_breaker={"failure_rate": 0.5},
        rate_limit={"rate": 2, "period": 60},
        bulkhead={"max_concurrency": 10, "max_queue": 9},
    ),
    WorkflowPrimitive[str, int],
)
assert_type(
    resilient(
        llm,
        fallbacks=FallbackPrimitive(fallbacks=[0]),
        total_timeout=TimeoutPrimitive(timeout_seconds=5),
        cache=CachePrimitive(ttl=300),
        retry=RetryPrimitive(),
        circuit_breaker=CircuitBreakerPrimitive(),
        rate_limit=RateLimitPrimitive(rate=5),
        bulkhead=BulkheadPrimitive(max_concurrency=5),
        attempt_timeout=None,
    ),
    WorkflowPrimitive[str, int],
)

resilient(llm, max_retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
resilient(llm, retry={"jitter": "some"})  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
resilient(llm, retry=RetryPrimitive(llm))  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
