"""A circuit breaker keeps the types of what it wraps."""

from __future__ import annotations

from typing import Literal, assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import (
    CircuitBreakerPrimitive,
    CircuitBreakerStats,
    CircuitStateChange,
)


class Llm(WorkflowPrimitive[str, int]):
    async def execute(self, input_data: str, context: WorkflowContext, /) -> int:
        return len(input_data)


async def ask(question: str) -> int:
    return len(question)


async def ask_in(question: str, context: WorkflowContext) -> int:
    return len(question)


def parse(text: str) -> float:
    return float(text)


def parse_in(text: str, context: WorkflowContext) -> float:
    return float(text)


@step
async def stored(value: int) -> bytes:
    return bytes(value)


def listener(change: CircuitStateChange) -> None:
    assert_type(change.after, Literal["closed", "open", "half_open", "isolated"])


assert_type(CircuitBreakerPrimitive(Llm()), CircuitBreakerPrimitive[str, int])
assert_type(CircuitBreakerPrimitive(ask), CircuitBreakerPrimitive[str, int])
assert_type(
    CircuitBreakerPrimitive(ask_in, failure_threshold=3),
    CircuitBreakerPrimitive[str, int],
)
assert_type(CircuitBreakerPrimitive(parse), CircuitBreakerPrimitive[str, float])
assert_type(
    CircuitBreakerPrimitive(parse_in, failure_rate=0.5, window=10),
    CircuitBreakerPrimitive[str, float],
)
assert_type(CircuitBreakerPrimitive(stored), CircuitBreakerPrimitive[int, bytes])
assert_type(CircuitBreakerPrimitive(), CircuitBreakerPrimitive[Open, Open])
assert_type(
    CircuitBreakerPrimitive(recovery_timeout=lambda n: 10.0 * 2**n),
    CircuitBreakerPrimitive[Open, Open],
)
assert_type(CircuitBreakerPrimitive(ask) >> stored, SequentialPrimitive[str, bytes])
assert_type(
    CircuitBreakerPrimitive(on_state_change=listener) >> Llm(),
    SequentialPrimitive[str, int],
)
assert_type(CircuitBreakerPrimitive(ask).stats, CircuitBreakerStats)
assert_type(
    CircuitBreakerPrimitive(ask).state,
    Literal["closed", "open", "half_open", "isolated"],
)
assert_type(CircuitBreakerPrimitive(ask).stats.retry_after, float | None)
CircuitBreakerPrimitive(ask, threshold=3)  # type: ignore[call-overload]  # pyright: ignore
CircuitBreakerPrimitive(ask, failure_rate="half")  # type: ignore[call-overload]  # pyright: ignore


async def operate() -> None:
    breaker = CircuitBreakerPrimitive(ask)
    await breaker.isolate()
    await breaker.close(WorkflowContext())
