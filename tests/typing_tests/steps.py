"""What `@step` makes of a function, with and without extras."""

# What must be refused stands alone: nobody uses it.
# pyright: reportUnusedExpression=false

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from tta_primitives import SequentialPrimitive, StepPrimitive, WorkflowContext, step

if TYPE_CHECKING:
    from tta_primitives.primitive import UnboundStep


class Session: ...


@step
async def fetch(key: int) -> str:
    return str(key)


@step
async def fetch_with(key: int, context: WorkflowContext) -> str:
    return str(key)


@step
def shout(text: str) -> str:
    return text.upper()


@step
def shout_with(text: str, context: WorkflowContext) -> str:
    return text.upper()


@step(name="charge", idempotent=False, timeout_seconds=2.5)
async def charge(order: str) -> bytes:
    return order.encode()


@step(blocking=True)
def read(path: str) -> bytes:
    return path.encode()


@step
async def query(data: str, session: Session, *, limit: int = 10) -> list[int]:
    return [limit]


@step
async def save(data: list[int], context: WorkflowContext, session: Session) -> None: ...


@step(name="plain")
def plain(data: str, factor: int) -> int:
    return factor


async def call_model(prompt: str) -> int:
    return len(prompt)


def scaled(data: str, factor: int) -> int:
    return factor


assert_type(fetch, StepPrimitive[int, str])
assert_type(fetch_with, StepPrimitive[int, str])
assert_type(shout, StepPrimitive[str, str])
assert_type(shout_with, StepPrimitive[str, str])
assert_type(charge, StepPrimitive[str, bytes])
assert_type(read, StepPrimitive[str, bytes])
assert_type(query(Session()), StepPrimitive[str, list[int]])
assert_type(query(session=Session(), limit=3), StepPrimitive[str, list[int]])
assert_type(save(Session()), StepPrimitive[list[int], None])
assert_type(plain(3), StepPrimitive[str, int])
assert_type(step(call_model, name="model"), StepPrimitive[str, int])
assert_type(step(str.upper, blocking=True), StepPrimitive[str, str])
assert_type(step(scaled, idempotent=False)(3), StepPrimitive[str, int])
assert_type(
    fetch >> query(Session()) >> save(Session()), SequentialPrimitive[int, None]
)
assert_type(fetch >> shout, SequentialPrimitive[int, str])

unbound: UnboundStep[str, ..., int] = plain

query("no session")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
query(Session(), limit="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
shout >> fetch  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
fetch >> save(Session())  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
step(call_model, timeout=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
step(timeout="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def main() -> None:
    context = WorkflowContext()
    assert_type(await fetch.execute(3, context), str)
    assert_type(await query(Session()).execute("x", context), list[int])
