"""The workflow: an order comes in as JSON, an invoice goes into the database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, field_validator

from examples.sqlalchemy_pipeline.tables import Customer, Invoice, Refusal
from tta_primitives import MapPrimitive, step
from tta_primitives.integrations.pydantic import validate
from tta_primitives.integrations.sqlalchemy import (
    TransactionPrimitive,
    is_retryable_database_error,
    with_session,
)
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tta_primitives import WorkflowPrimitive

__all__ = ["CreditError", "Order", "Priced", "bill", "billing"]


class Order(BaseModel):
    """What a customer asks for."""

    number: str = Field(min_length=1, max_length=50)
    customer: str
    item: str
    quantity: int = Field(ge=1)

    @field_validator("quantity")
    @classmethod
    def check_quantity(cls, value: int) -> int:
        """Refuse what no warehouse holds."""
        if value > 1000:
            msg = "quantity too large"
            raise ValueError(msg)
        return value


class Priced(BaseModel):
    """An order with its price in cents."""

    order: Order
    cents: int


class CreditError(ValueError):
    """A customer has ordered more than she may."""


_PRICES = {"tea": 450, "cup": 1200}


@step
async def price(order: Order) -> Priced:
    """Ask a service outside what an item costs: no transaction is open meanwhile."""
    await asyncio.sleep(0.2)
    return Priced(order=order, cents=_PRICES[order.item] * order.quantity)


@with_session
async def charge(priced: Priced, session: AsyncSession) -> Priced:
    """Take the price from the customer's credit."""
    customer = await session.get_one(Customer, priced.order.customer)
    customer.credit -= priced.cents
    await session.flush()
    if customer.credit < 0:
        msg = f"{customer.name} lacks {-customer.credit} cents"
        raise CreditError(msg)
    return priced


@with_session
async def write_invoice(priced: Priced, session: AsyncSession) -> str:
    """Write the invoice; an order that has one already is refused by the database."""
    order = priced.order
    row = Invoice(order=order.number, customer=order.customer, cents=priced.cents)
    session.add(row)
    await session.flush()
    return f"{order.number}: billed {priced.cents} cents to {order.customer}"


@with_session
async def write_refusal(priced: Priced, session: AsyncSession) -> str:
    """Note what was not billed, in a transaction of its own."""
    order = priced.order.number
    session.add(Refusal(order=order, reason="not enough credit"))
    return f"{order}: refused"


book = (
    RetryPrimitive(
        retry_on=is_retryable_database_error, max_retries=5, initial_delay=0.05
    )
    >> TransactionPrimitive()
    >> (charge >> write_invoice)
)

bill: WorkflowPrimitive[Any, str] = (
    validate(Order)
    >> TimeoutPrimitive(price, timeout_seconds=5)
    >> FallbackPrimitive(book, [write_refusal], fallback_on=CreditError)
)


def billing(connections: int) -> MapPrimitive[Any, str]:
    """Return the workflow for many orders, as many at a time as the pool allows."""
    return MapPrimitive(bill, max_concurrency=connections, return_exceptions=True)
