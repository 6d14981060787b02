"""Validation, sessions and transactions: what comes out, and what fits together."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tta_primitives import SequentialPrimitive, WorkflowContext, step
from tta_primitives.integrations.pydantic import (
    ValidatePrimitive,
    validate,
    validate_output,
)
from tta_primitives.integrations.sqlalchemy import (
    SessionStep,
    TransactionPrimitive,
    WorkflowSession,
    with_session,
    workflow_sessions,
)
from tta_primitives.primitive import Open


class Order(BaseModel):
    number: str


@step
async def number_of(order: Order) -> str:
    return order.number


@step
async def double(value: int) -> int:
    return 2 * value


assert_type(validate(Order), ValidatePrimitive[Order])
assert_type(validate_output(Order, strict=True), ValidatePrimitive[Order])
assert_type(ValidatePrimitive(Order, of="output"), ValidatePrimitive[Order])
assert_type(validate(Order) >> number_of, SequentialPrimitive[Any, str])
validate(Order) >> double  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


@with_session
async def find(number: str, session: AsyncSession) -> Order:
    return Order(number=number)


@with_session
async def tell(order: Order, context: WorkflowContext, session: AsyncSession) -> int:
    return 1


@with_session(name="other", idempotent=False)
async def named(number: str, session: AsyncSession) -> Order:
    return Order(number=number)


@step
async def unbound(number: str, session: AsyncSession) -> Order:
    return Order(number=number)


assert_type(find, SessionStep[str, Order])
assert_type(tell, SessionStep[Order, int])
assert_type(named, SessionStep[str, Order])
assert_type(with_session(unbound), SessionStep[str, Order])
assert_type(find >> tell, SequentialPrimitive[str, int])
tell >> find  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]

assert_type(TransactionPrimitive(), TransactionPrimitive[Open, Open])
assert_type(TransactionPrimitive(find >> tell), TransactionPrimitive[str, int])
assert_type(TransactionPrimitive() >> (find >> tell), SequentialPrimitive[str, int])
TransactionPrimitive(nested="join")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def sessions_of(engine: Any) -> None:
    assert_type(workflow_sessions(engine), async_sessionmaker[WorkflowSession])
    TransactionPrimitive(sessions=workflow_sessions(engine))
