"""Recovery primitives keep the types of what they wrap."""

from __future__ import annotations

from typing import assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import (
    Attempt,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
    attempts_of,
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


async def late(question: str) -> None:
    await ask(question)


assert_type(RetryPrimitive(Llm()), RetryPrimitive[str, int])
assert_type(RetryPrimitive(Llm(), max_retries=3), RetryPrimitive[str, int])
assert_type(RetryPrimitive(ask), RetryPrimitive[str, int])
assert_type(RetryPrimitive(ask_in, jitter="none"), RetryPrimitive[str, int])
assert_type(RetryPrimitive(parse), RetryPrimitive[str, float])
assert_type(RetryPrimitive(parse_in), RetryPrimitive[str, float])
assert_type(RetryPrimitive(stored), RetryPrimitive[int, bytes])
assert_type(RetryPrimitive(), RetryPrimitive[Open, Open])
assert_type(RetryPrimitive(max_retries=2), RetryPrimitive[Open, Open])
assert_type(RetryPrimitive(ask) >> stored, SequentialPrimitive[str, bytes])
assert_type(RetryPrimitive(max_retries=2) >> Llm(), SequentialPrimitive[str, int])
RetryPrimitive(ask, max_retry=3)  # type: ignore[call-overload]  # pyright: ignore
RetryPrimitive(ask, jitter="some")  # type: ignore[call-overload]  # pyright: ignore

assert_type(FallbackPrimitive(ask, [parse, 0]), FallbackPrimitive[str, int])
assert_type(
    FallbackPrimitive(primary=Llm(), fallbacks=[0]), FallbackPrimitive[str, int]
)
assert_type(FallbackPrimitive(fallbacks=[0]), FallbackPrimitive[Open, Open])

assert_type(TimeoutPrimitive(ask, timeout_seconds=3), TimeoutPrimitive[str, int])
assert_type(TimeoutPrimitive(Llm(), timeout_seconds=3), TimeoutPrimitive[str, int])
assert_type(TimeoutPrimitive(parse, timeout_seconds=3), TimeoutPrimitive[str, float])
assert_type(TimeoutPrimitive(timeout_seconds=3), TimeoutPrimitive[Open, Open])
assert_type(
    TimeoutPrimitive(Llm(), timeout_seconds=3, fallback=late),
    TimeoutPrimitive[str, int | None],
)
assert_type(
    TimeoutPrimitive(ask, timeout_seconds=3, fallback=parse),
    TimeoutPrimitive[str, int | float],
)
assert_type(
    TimeoutPrimitive(Llm(), timeout_seconds=3, fallback=b"late"),
    TimeoutPrimitive[str, int | bytes],
)
assert_type(attempts_of(ValueError()), tuple[Attempt, ...])
