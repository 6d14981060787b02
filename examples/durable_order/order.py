"""The workflow of an order: reserve, charge, ship, tell; or undo what was done."""

from __future__ import annotations

from typing import Any

from tta_primitives import ParallelPrimitive, WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, SagaPrimitive, SagaRecord

__all__ = ["Order", "UndeliverableError", "order_workflow"]

Order = dict[str, Any]


class UndeliverableError(Exception):
    """The carrier cannot deliver to this address."""


async def _do(what: str, order: Order, context: WorkflowContext) -> str:
    # The key is the same after a crash: the shop knows what it has done already.
    receipt: str = await context.deps["shop"].do(
        what, order["id"], context.idempotency_key
    )
    return receipt


@step
async def reserve(order: Order, context: WorkflowContext) -> Order:
    """Reserve the goods in the warehouse."""
    return {**order, "reservation": await _do("reserve", order, context)}


@step
async def release(record: SagaRecord[Order, Order], context: WorkflowContext) -> None:
    """Give the goods back to the warehouse."""
    await _do("release", record.input, context)


@step
async def charge(order: Order, context: WorkflowContext) -> Order:
    """Charge the customer."""
    return {**order, "payment": await _do("charge", order, context)}


@step
async def refund(record: SagaRecord[Order, Order], context: WorkflowContext) -> None:
    """Give the customer the money back."""
    await _do("refund", record.input, context)


@step
async def ship(order: Order, context: WorkflowContext) -> Order:
    """Hand the goods to the carrier."""
    if not order.get("address"):
        msg = f"order {order['id']} has no address"
        raise UndeliverableError(msg)
    return {**order, "parcel": await _do("ship", order, context)}


@step
async def mail(order: Order, context: WorkflowContext) -> str:
    """Tell the customer."""
    return await _do("mail", order, context)


@step
async def invoice(order: Order, context: WorkflowContext) -> str:
    """Tell the accountants."""
    return await _do("invoice", order, context)


def closed(receipts: tuple[str, str]) -> dict[str, str]:
    """Return what the caller of the workflow gets."""
    mailed, invoiced = receipts
    return {"mail": mailed, "invoice": invoiced}


order_workflow = (
    SagaPrimitive(
        [
            (reserve, release),
            (RetryPrimitive(charge, max_retries=3), refund),
            ship,
        ]
    )
    >> ParallelPrimitive(mail, invoice)
    >> closed
).named("process order")
