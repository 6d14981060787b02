"""A hedge keeps the types of what it wraps."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import HedgePrimitive, HedgeStats, Quantile, RetryBudget


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


assert_type(HedgePrimitive(Llm(), delay=1), HedgePrimitive[str, int])
assert_type(HedgePrimitive(ask, delay=timedelta(seconds=1)), HedgePrimitive[str, int])
assert_type(
    HedgePrimitive(ask_in, delay=lambda number: number * 2.0), HedgePrimitive[str, int]
)
assert_type(HedgePrimitive(parse, delay=Quantile(0.95)), HedgePrimitive[str, float])
assert_type(
    HedgePrimitive(
        parse_in,
        delay=1,
        max_hedges=2,
        hedge_on=(OSError, TimeoutError),
        hedge_if=lambda text: text != "",
        alternatives=[parse, Llm()],
        budget=RetryBudget(),
    ),
    HedgePrimitive[str, float],
)
assert_type(HedgePrimitive(stored, delay=1), HedgePrimitive[int, bytes])
assert_type(HedgePrimitive(delay=1), HedgePrimitive[Open, Open])
assert_type(HedgePrimitive(delay=1) >> Llm() >> stored, SequentialPrimitive[str, bytes])
assert_type(HedgePrimitive(Llm(), delay=1).stats, HedgeStats)
HedgePrimitive(ask)  # type: ignore[call-overload]  # pyright: ignore
HedgePrimitive(ask, delay="1")  # type: ignore[call-overload]  # pyright: ignore
