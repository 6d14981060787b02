"""Open wrappers: their type is that of what follows them."""

# What must be refused stands alone: nobody uses it.
# pyright: reportUnusedExpression=false

from __future__ import annotations

from typing import assert_type, overload

from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand


class Cache(Wrapper[In, Out]):
    @overload
    def __init__(self: Cache[Open, Open]) -> None: ...
    @overload
    def __init__(self, primitive: WorkflowPrimitive[In, Out]) -> None: ...
    def __init__(self, primitive: WorkflowPrimitive[In, Out] | None = None) -> None:
        if primitive is not None:
            self._wrap(as_operand(primitive))

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        raise NotImplementedError


@step
async def llm(prompt: str) -> int:
    return len(prompt)


@step
async def store(answer: int) -> bytes:
    return bytes(answer)


async def plain(prompt: str) -> int:
    return len(prompt)


assert_type(Cache(), Cache[Open, Open])
assert_type(Cache(llm), Cache[str, int])
assert_type(Cache() >> llm, SequentialPrimitive[str, int])
assert_type(Cache() >> plain, SequentialPrimitive[str, int])
assert_type(Cache() >> llm >> store, SequentialPrimitive[str, bytes])
assert_type(Cache() >> (llm >> store), SequentialPrimitive[str, bytes])
assert_type(Cache() >> Cache(), Wrapper[Open, Open])
assert_type(Cache() >> Cache() >> llm, SequentialPrimitive[str, int])
assert_type(Cache() >> Cache(llm) >> store, SequentialPrimitive[str, bytes])
assert_type(llm >> Cache(), SequentialPrimitive[str, int])
assert_type(Cache() >> llm >> Cache(), SequentialPrimitive[str, int])
assert_type(llm >> Cache() >> store, SequentialPrimitive[str, bytes])
assert_type(Cache(llm) >> Cache() >> store, SequentialPrimitive[str, bytes])
assert_type(Cache(llm) >> store, SequentialPrimitive[str, bytes])

Cache() >> llm >> llm  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
Cache(llm) >> llm  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
llm | Cache()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
Cache() | llm  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]


async def main() -> None:
    context = WorkflowContext()
    await Cache().execute("x", context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await (Cache() >> Cache()).execute("x", context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
