"""What `>>` and `|` give, and what they refuse."""

# What must be refused stands alone: nobody uses it.
# pyright: reportUnusedExpression=false

from __future__ import annotations

from typing import assert_type

from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    ParallelPrimitive,
    RouterPrimitive,
    SequentialPrimitive,
    StepPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)


class Parse(WorkflowPrimitive[str, int]):
    async def execute(self, input_data: str, context: WorkflowContext, /) -> int:
        return len(input_data)


class Double(WorkflowPrimitive[int, int]):
    name = "twice"

    async def execute(self, input_data: int, context: WorkflowContext, /) -> int:
        return input_data * 2


class Show(WorkflowPrimitive[object, str]):
    def __init__(self, name: str) -> None:
        self.name = name

    async def execute(self, input_data: object, context: WorkflowContext, /) -> str:
        return f"{context.path} {input_data}"


async def fetch(key: int) -> bytes:
    return bytes(key)


async def fetch_with(key: int, context: WorkflowContext) -> bytes:
    return bytes(key)


def shout(text: str) -> str:
    return text.upper()


def shout_with(text: str, context: WorkflowContext) -> str:
    return text.upper()


parse, double, show = Parse(), Double(), Show("show")

# Sequences: the first input, the last output.
assert_type(parse >> double, SequentialPrimitive[str, int])
assert_type(parse >> double >> show, SequentialPrimitive[str, str])
assert_type(parse >> fetch, SequentialPrimitive[str, bytes])
assert_type(parse >> fetch_with, SequentialPrimitive[str, bytes])
assert_type(show >> shout, SequentialPrimitive[object, str])
assert_type(show >> shout_with, SequentialPrimitive[object, str])
assert_type(shout >> parse, SequentialPrimitive[str, int])
assert_type(shout_with >> parse, SequentialPrimitive[str, int])
assert_type(fetch >> show, SequentialPrimitive[int, str])
assert_type(parse.then(double), SequentialPrimitive[str, int])
assert_type(parse.then(lambda number: number / 2), SequentialPrimitive[str, float])
assert_type(parse.then(fetch).then(len), SequentialPrimitive[str, int])
assert_type((parse >> double).named("both"), SequentialPrimitive[str, int])

double >> parse  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
parse >> shout  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
fetch >> parse  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
parse >> double >> parse  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
parse >> 3  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]

# Parallels: a tuple of exactly the outputs, in order.
assert_type(double | fetch, ParallelPrimitive[int, int, bytes])
assert_type(double | fetch | show, ParallelPrimitive[int, int, bytes, str])
assert_type(double | double | double, ParallelPrimitive[int, int, int, int])
assert_type(shout | parse, ParallelPrimitive[str, str, int])
assert_type(ParallelPrimitive(double, show), ParallelPrimitive[int, int, str])

double | parse  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
double | shout  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


@step
def join(parts: tuple[int, bytes, str]) -> str:
    return repr(parts)


@step
def join_two(parts: tuple[int, bytes]) -> str:
    return repr(parts)


assert_type((double | fetch | show) >> join, SequentialPrimitive[int, str])
(double | fetch | show) >> join_two  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


def is_even(number: int) -> bool:
    return number % 2 == 0


async def is_known(number: int, context: WorkflowContext) -> bool:
    return str(number) in context.state


def size(number: int) -> str:
    return "large" if number > 9 else "small"


@step
async def to_bytes(number: int) -> bytes:
    return bytes(number)


# Choices and maps.
assert_type(
    ConditionalPrimitive(is_even, double, to_bytes),
    ConditionalPrimitive[int, int | bytes],
)
assert_type(
    ConditionalPrimitive(is_known, to_bytes), ConditionalPrimitive[int, bytes | int]
)
assert_type(RouterPrimitive({"large": double}, size), RouterPrimitive[int, int])
assert_type(MapPrimitive(double), MapPrimitive[int, int])
assert_type(MapPrimitive(fetch, max_concurrency=3), MapPrimitive[int, bytes])
assert_type(MapPrimitive(shout), MapPrimitive[str, str])


async def main() -> None:
    context = WorkflowContext()
    assert_type(await (parse >> double).execute("x", context), int)
    assert_type(
        await (double | fetch | show).execute(1, context), tuple[int, bytes, str]
    )
    assert_type(await MapPrimitive(fetch).execute([1, 2], context), list[bytes])
    assert_type(to_bytes, StepPrimitive[int, bytes])
    await parse.execute(1, context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await parse.execute("x", {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
