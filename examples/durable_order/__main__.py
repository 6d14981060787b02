"""Kill a process in the middle of an order, and let another one finish it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from examples.durable_order.order import order_workflow
from examples.durable_order.shop import FileShop
from tta_primitives.integrations.dbos import durable, durable_runtime

ORDER = {"id": "17", "address": "Main Street 1"}


class DeadlyShop(FileShop):
    """A shop in which the process is killed once the customer was charged."""

    async def do(self, what: str, order: str, key: str) -> str:
        """Do it; after a charge nothing is recorded any more."""
        receipt = await super().do(what, order, key)
        if what == "charge":
            os.kill(os.getpid(), signal.SIGKILL)
        return receipt


async def process_order(folder: Path, shop: FileShop) -> dict[str, str]:
    """Begin the order; or, where it was begun already, finish it."""
    durable_order = durable(order_workflow, name="order", deps=lambda: {"shop": shop})
    database = f"sqlite:///{folder / 'orders.sqlite'}"
    async with durable_runtime(durable_order, database_url=database) as runtime:
        return await runtime.run(durable_order, ORDER, workflow_id="order-17")


def main() -> None:
    """Show it."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        asyncio.run(process_order(folder, DeadlyShop(folder / "books.jsonl")))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = FileShop(folder / "books.jsonl")
        command = [sys.executable, "-m", "examples.durable_order", name]
        died = subprocess.run(command, check=False).returncode  # noqa: S603 - this program
        print(f"the first process died of signal {-died}; done:", *shop.done())
        result = asyncio.run(process_order(folder, shop))
        print("the second process finished the order:", result)
        print("done, each once:", *shop.done())


if __name__ == "__main__":
    main()
