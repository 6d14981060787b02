"""A bulkhead keeps the types of what it wraps."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import BulkheadPrimitive, BulkheadStats


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


assert_type(BulkheadPrimitive(Llm(), max_concurrency=3), BulkheadPrimitive[str, int])
assert_type(BulkheadPrimitive(ask, max_concurrency=3), BulkheadPrimitive[str, int])
assert_type(
    BulkheadPrimitive(ask_in, max_concurrency=3, max_queue=None),
    BulkheadPrimitive[str, int],
)
assert_type(BulkheadPrimitive(parse, max_concurrency=3), BulkheadPrimitive[str, float])
assert_type(
    BulkheadPrimitive(
        parse_in, max_concurrency=3, max_queue=2, max_wait=timedelta(seconds=1)
    ),
    BulkheadPrimitive[str, float],
)
assert_type(BulkheadPrimitive(stored, max_concurrency=3), BulkheadPrimitive[int, bytes])
assert_type(BulkheadPrimitive(max_concurrency=3), BulkheadPrimitive[Open, Open])
assert_type(
    BulkheadPrimitive(max_concurrency=3) >> Llm() >> stored,
    SequentialPrimitive[str, bytes],
)
assert_type(BulkheadPrimitive(Llm(), max_concurrency=3).stats, BulkheadStats)
BulkheadPrimitive(ask)  # type: ignore[call-overload]  # pyright: ignore
BulkheadPrimitive(ask, max_concurrency=3, wait=1)  # type: ignore[call-overload]  # pyright: ignore
