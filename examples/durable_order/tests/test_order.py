"""How a durable workflow is tested: as a workflow, crashed everywhere, and for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.durable_order.order import UndeliverableError, order_workflow
from examples.durable_order.shop import FileShop
from tta_primitives import WorkflowContext
from tta_primitives.durable import MemoryJournal, resume_everywhere, run_durably
from tta_primitives.integrations.dbos import durable, durable_runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

GOOD = {"id": "17", "address": "Main Street 1"}
BAD = {"id": "17"}


class MemoryShop:
    """A shop whose books are a list; it keeps to the keys as `FileShop` does."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._known: set[tuple[str, str]] = set()

    async def do(self, what: str, order: str, key: str) -> str:
        """Do something once for each key."""
        if (what, key) not in self._known:
            self._known.add((what, key))
            self.done.append(what)
        return f"{what} {order}"


class Orders:
    """Runs of one order, each in a shop of its own."""

    def __init__(self, order: dict[str, str]) -> None:
        self._order = order
        self.shops: list[MemoryShop] = []

    def begin(self) -> Callable[[MemoryJournal], Awaitable[object]]:
        """Open a shop, and return what executes a run of the order in it."""
        shop = MemoryShop()
        self.shops.append(shop)
        return lambda journal: run_durably(
            order_workflow, self._order, context(shop), journal=journal
        )


def context(shop: MemoryShop) -> WorkflowContext:
    """Return the context of the order; each execution of a run has the same key."""
    return WorkflowContext("17", idempotency_key="order-17", deps={"shop": shop})


async def test_an_order_is_finished() -> None:
    """Nothing about it is durable: it is a workflow like any other."""
    shop = MemoryShop()
    result = await order_workflow.execute(GOOD, context(shop))
    assert result == {"mail": "mail 17", "invoice": "invoice 17"}
    assert shop.done == ["reserve", "charge", "ship", "mail", "invoice"]


async def test_an_order_survives_a_crash_at_every_moment() -> None:
    """Every moment in turn, two crashes each, in milliseconds; all is done once."""
    orders = Orders(GOOD)
    found = await resume_everywhere(orders.begin, crashes=2)
    assert len(found) == 12  # Six steps, each before and after its record.
    for one in found:
        assert one.output == {"mail": "mail 17", "invoice": "invoice 17"}
    for shop in orders.shops:
        assert sorted(shop.done) == ["charge", "invoice", "mail", "reserve", "ship"]


async def test_an_order_is_undone_after_a_crash_at_every_moment() -> None:
    """Also one in the middle of a compensation: nothing is left, or undone twice."""
    orders = Orders(BAD)
    for one in await resume_everywhere(orders.begin):
        assert isinstance(one.error, UndeliverableError)
    for shop in orders.shops:
        assert shop.done == ["reserve", "charge", "refund", "release"]


async def test_an_order_is_kept_in_a_database(tmp_path: Path) -> None:
    """The real engine on a real file: the same id again is the same order."""
    shop = FileShop(tmp_path / "books.jsonl")
    order = durable(order_workflow, name="order", deps=lambda: {"shop": shop})
    url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    for _ in range(2):
        async with durable_runtime(order, database_url=url) as runtime:
            result = await runtime.run(order, GOOD, workflow_id="order-17")
            assert result == {"mail": "mail 17", "invoice": "invoice 17"}
            with pytest.raises(UndeliverableError, match="order 18 has no address"):
                await runtime.run(order, {"id": "18"}, workflow_id="order-18")
    done = ["reserve", "charge", "ship", "mail", "invoice"]
    assert sorted(shop.done()[:5]) == sorted(done)
    assert shop.done()[5:] == ["reserve", "charge", "refund", "release"]
