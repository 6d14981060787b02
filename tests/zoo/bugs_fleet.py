"""Steps that workers of a fleet perform, whose messages are lost, doubled or late."""

from __future__ import annotations

import asyncio

from tests.zoo.bug import Bug
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.distributed import remote

__all__ = ["BUGS"]

NOBODY_ANSWERED = (ConnectionError, TimeoutError)


# Delivered twice: a consumer adds up what comes, and the same comes again.


class Ledger:
    """Balances that workers write."""

    def __init__(self):
        self.balance = 0
        self.keys = set()

    async def add(self, amount, context):
        await asyncio.sleep(0.1)
        self.balance += amount

    async def add_once(self, amount, context):
        await asyncio.sleep(0.1)
        if context.idempotency_key not in self.keys:
            self.keys.add(context.idempotency_key)
            self.balance += amount


def delivered_twice(tta, build):
    """A deposit that was answered counts once."""
    ledger = Ledger()

    @step
    async def deposit(amount: int, context: WorkflowContext) -> int:
        await build(ledger, amount, context)
        return amount

    engine = tta.fleet.serve(deposit)
    tta.run(remote(deposit, engine=engine, timeout_seconds=120), 20)
    assert ledger.balance == 20


# Lost answer: the caller waits for a worker that has answered long ago.


def without_limit(work, engine):
    """Wait for as long as it takes."""
    return remote(work, engine=engine)


def with_limit(work, engine):
    """Wait for two minutes."""
    return remote(work, engine=engine, timeout_seconds=120)


def lost_answer(tta, build):
    """A report is made by a worker."""

    @step
    async def report(month: str) -> str:
        await asyncio.sleep(2)
        return f"report of {month}"

    got = tta.run(build(report, tta.fleet.serve(report)), "May")
    assert got == "report of May"


# Out of order: an old price is written over a newer one.


class Prices:
    """Prices that workers write, with the number of the change."""

    def __init__(self):
        self.price = (0, 0)

    async def write(self, change):
        self.price = change

    async def write_newer(self, change):
        self.price = max(self.price, change)


def out_of_order(tta, build):
    """The last of three prices is the one that stays."""
    prices = Prices()

    @step
    async def write(change: list) -> int:
        await build(prices, tuple(change))
        return change[0]

    engine = tta.fleet.serve(write)
    send = remote(write, engine=engine, timeout_seconds=120)
    tta.run(MapPrimitive(send, max_concurrency=3), [[1, 10], [2, 20], [3, 30]])
    assert prices.price == (3, 30)


# Half done: a worker dies between the two writes that belong together.


class Warehouse:
    """Boxes, and a list of what was sent; workers write both."""

    def __init__(self):
        self.boxes = 2
        self.sent = []

    async def send_any(self, order):
        self.boxes -= 1
        self.sent.append(order)

    async def send_unsent(self, order):
        if order not in self.sent:
            self.boxes -= 1
            self.sent.append(order)


def sent_again(tta, build):
    """An order leaves the warehouse once, however often workers die of it."""
    warehouse = Warehouse()

    @step
    async def send(order: str) -> str:
        await build(warehouse, order)
        return order

    engine = tta.fleet.serve(send)
    try:
        tta.run(remote("send", engine=engine, timeout_seconds=120), "order 7")
    except NOBODY_ANSWERED:
        return
    assert warehouse.boxes == 1


BUGS = (
    Bug(
        "delivered-twice",
        "a message that comes twice counts twice",
        ("assertion",),
        delivered_twice,
        Ledger.add,
        Ledger.add_once,
        issue_url="https://github.com/celery/celery/issues/4400",
        uses_primitives=True,
    ),
    Bug(
        "lost-answer",
        "a caller waits for an answer that was lost",
        ("unbounded wait",),
        lost_answer,
        without_limit,
        with_limit,
        issue_url="https://github.com/celery/celery/issues/4857",
        uses_primitives=True,
    ),
    Bug(
        "out-of-order",
        "an old message that comes late overwrites a new one",
        ("assertion",),
        out_of_order,
        Prices.write,
        Prices.write_newer,
        uses_primitives=True,
    ),
    Bug(
        "sent-again",
        "a worker dies after its work, and another one does it again",
        ("assertion",),
        sent_again,
        Warehouse.send_any,
        Warehouse.send_unsent,
        issue_url="https://github.com/learningequality/studio/issues/3395",
        uses_primitives=True,
    ),
)
