"""The workflow: load an order, render its invoice, mail it once."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

__all__ = ["Invoice", "Order", "Outbox", "invoice", "outbox"]


class Order(TypedDict):
    """What was bought."""

    number: str
    items: dict[str, int]


class Invoice(TypedDict):
    """What the customer gets."""

    number: str
    text: str


class Outbox:
    """Stands for a mail service that takes each key once, as good ones do."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}

    async def send(self, key: str, text: str) -> None:
        """Send a text, unless one with this key was sent already."""
        await asyncio.sleep(0.2)
        self.sent.setdefault(key, text)


outbox = Outbox()


@step
async def load(number: str) -> Order:
    """Stand for your database."""
    await asyncio.sleep(0.05)
    return {"number": number, "items": {"tea": 450, "cup": 1200}}


@step
def render(order: Order) -> Invoice:
    """Write the invoice."""
    lines = [f"{cents / 100:8.2f} {name}" for name, cents in order["items"].items()]
    total = sum(order["items"].values()) / 100
    text = "\n".join([f"Invoice {order['number']}", *lines, f"{total:8.2f} in all"])
    return {"number": order["number"], "text": text}


@step
async def mail(made: Invoice, context: WorkflowContext) -> str:
    """Mail it: a job that is executed again has the same key, and mails nothing new."""
    key = context.idempotency_key or made["number"]
    await outbox.send(key, made["text"])
    return key


invoice = (
    RetryPrimitive(TimeoutPrimitive(load, timeout_seconds=5), max_retries=3)
    >> render
    >> RetryPrimitive(TimeoutPrimitive(mail, timeout_seconds=10), max_retries=3)
).named("invoice")
