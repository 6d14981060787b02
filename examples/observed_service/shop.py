"""The workflow: an order is checked, priced while its goods are kept, and sold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from opentelemetry import trace

from tta_primitives import WorkflowContext, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from tta_primitives import WorkflowPrimitive

__all__ = ["Order", "Receipt", "UnknownArticleError", "build_workflow"]

PRICES = {"lamp": 3900, "chair": 12900}
# Made at import, before anybody knows where spans go: OpenTelemetry allows that.
tracer = trace.get_tracer(__name__)
logger = logging.getLogger(__name__)


class UnknownArticleError(LookupError):
    """An order is for what the shop does not have."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer wants."""

    article: str
    count: int
    customer: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a customer gets."""

    cents: int
    shelf: str


def build_workflow(warehouse: httpx.AsyncClient) -> WorkflowPrimitive[Order, Receipt]:
    """Return the workflow of an order.

    Args:
        warehouse: A client whose base is the warehouse's.
    """

    @step
    async def check(order: Order) -> Order:
        if order.article not in PRICES:
            msg = f"there is no article {order.article!r}"
            raise UnknownArticleError(msg)
        return order

    @step
    async def price(order: Order) -> int:
        # A span of your own is a child of the step's.
        with tracer.start_as_current_span("SELECT prices") as span:
            span.set_attribute("db.system.name", "sqlite")
            return PRICES[order.article] * order.count

    @step
    async def reserve(order: Order, context: WorkflowContext) -> str:
        # These headers carry the span that is current here, and the correlation id.
        answer = await warehouse.post(
            "/reservations",
            json={"article": order.article, "count": order.count},
            headers=context.to_headers(),
        )
        answer.raise_for_status()
        shelf: str = answer.json()["shelf"]
        return shelf

    @step
    async def sell(found: tuple[int, str]) -> Receipt:
        cents, shelf = found
        logger.info("sold", extra={"cents": cents})
        return Receipt(cents, shelf)

    priced = CachePrimitive(price, ttl=60, key_fn=_price_key).named("prices")
    reserved = RetryPrimitive(
        TimeoutPrimitive(reserve, timeout_seconds=2),
        max_retries=2,
        initial_delay=0.05,
        retry_on=httpx.HTTPError,
    )
    return (check >> (priced | reserved) >> sell).named("order")


def _price_key(order: Order, _context: WorkflowContext) -> tuple[str, int]:
    return order.article, order.count
