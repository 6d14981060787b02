"""A rate limit keeps the types of what it wraps."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import RateLimitPrimitive, RateLimitStats


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


def tokens(question: str, context: WorkflowContext) -> int:
    return len(question)


def tenant(question: str, context: WorkflowContext) -> tuple[str, str | None]:
    return ("tenant", context.session_id)


assert_type(RateLimitPrimitive(Llm(), rate=10), RateLimitPrimitive[str, int])
assert_type(RateLimitPrimitive(ask, rate=0.5), RateLimitPrimitive[str, int])
assert_type(RateLimitPrimitive(ask_in, rate=10), RateLimitPrimitive[str, int])
assert_type(RateLimitPrimitive(parse, rate=10), RateLimitPrimitive[str, float])
assert_type(RateLimitPrimitive(parse_in, rate=10), RateLimitPrimitive[str, float])
assert_type(RateLimitPrimitive(stored, rate=10), RateLimitPrimitive[int, bytes])
assert_type(RateLimitPrimitive(rate=10), RateLimitPrimitive[Open, Open])
assert_type(RateLimitPrimitive(rate=10) >> Llm(), SequentialPrimitive[str, int])
assert_type(RateLimitPrimitive(ask, rate=10) >> stored, SequentialPrimitive[str, bytes])
assert_type(
    RateLimitPrimitive(
        ask,
        rate=100_000,
        period=timedelta(minutes=1),
        algorithm="sliding_window",
        cost=tokens,
        max_wait=5,
        key=tenant,
        penalize_on=(OSError, ValueError),
    ),
    RateLimitPrimitive[str, int],
)
assert_type(RateLimitPrimitive(ask, rate=10).stats, RateLimitStats)
RateLimitPrimitive(ask)  # type: ignore[call-overload]  # pyright: ignore
RateLimitPrimitive(ask, rate=10, bursts=3)  # type: ignore[call-overload]  # pyright: ignore
RateLimitPrimitive(ask, rate=10, algorithm="magic")  # type: ignore[call-overload]  # pyright: ignore
