"""Sagas: the type is that of the workflow; compensations fit the step's types."""

from __future__ import annotations

from typing import Any, assert_type

from tta_primitives import SequentialPrimitive, WorkflowContext, step
from tta_primitives.primitive import Open
from tta_primitives.recovery import (
    CompensationPrimitive,
    CompensationStats,
    RetryPrimitive,
    SagaPrimitive,
    SagaRecord,
    SagaStats,
)


@step
async def charge(amount: int) -> str:
    return f"charge-{amount}"


@step
async def ship(receipt: str) -> bytes:
    return receipt.encode()


async def plain(amount: int) -> str:
    return str(amount)


async def plain_with_context(amount: int, context: WorkflowContext) -> str:
    return str(amount)


def plain_sync(amount: int) -> str:
    return str(amount)


async def refund(record: SagaRecord[int, str]) -> None:
    assert_type(record.input, int)
    assert_type(record.output, str)
    assert_type(record.error, BaseException)
    assert_type(record.completed, bool)


def refund_sync(record: SagaRecord[int, str], context: WorkflowContext) -> None: ...


@step
async def refund_step(record: SagaRecord[int, str]) -> None: ...


async def undo_anything(record: SagaRecord[Any, Any]) -> None: ...


async def undo_wider(record: SagaRecord[int | str, object]) -> None: ...


async def recall(record: SagaRecord[str, bytes]) -> None: ...


assert_type(CompensationPrimitive(charge, refund), CompensationPrimitive[int, str])
assert_type(CompensationPrimitive(plain, refund), CompensationPrimitive[int, str])
assert_type(
    CompensationPrimitive(plain_with_context, refund), CompensationPrimitive[int, str]
)
assert_type(
    CompensationPrimitive(plain_sync, refund_sync), CompensationPrimitive[int, str]
)
assert_type(CompensationPrimitive(charge, refund_step), CompensationPrimitive[int, str])
assert_type(
    CompensationPrimitive(charge, RetryPrimitive(refund_step)),
    CompensationPrimitive[int, str],
)
_ = CompensationPrimitive(charge, undo_anything)
assert_type(CompensationPrimitive(charge, undo_wider), CompensationPrimitive[int, str])
assert_type(
    CompensationPrimitive(
        charge, refund, compensation_timeout=5, compensate_failed=True
    ),
    CompensationPrimitive[int, str],
)
assert_type(
    CompensationPrimitive(compensation=refund), CompensationPrimitive[Open, Open]
)
assert_type(
    CompensationPrimitive(compensation=refund) >> charge, SequentialPrimitive[int, str]
)

order = CompensationPrimitive(charge, refund) >> CompensationPrimitive(ship, recall)
assert_type(SagaPrimitive(order), SagaPrimitive[int, bytes])
assert_type(SagaPrimitive(order, compensation_timeout=5), SagaPrimitive[int, bytes])
assert_type(SagaPrimitive(plain), SagaPrimitive[int, str])
assert_type(SagaPrimitive(plain_with_context), SagaPrimitive[int, str])
assert_type(SagaPrimitive(plain_sync), SagaPrimitive[int, str])
assert_type(
    SagaPrimitive([(charge, refund), (ship, recall), print]), SagaPrimitive[Any, Any]
)
assert_type(SagaPrimitive(), SagaPrimitive[Open, Open])
assert_type(
    SagaPrimitive(compensate_failed=True) >> order, SequentialPrimitive[int, bytes]
)
assert_type(SagaPrimitive(order).stats, SagaStats)
assert_type(CompensationPrimitive(charge, refund).stats, CompensationStats)

CompensationPrimitive(charge, recall)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
CompensationPrimitive(charge)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
SagaPrimitive(order, compensation_timout=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
