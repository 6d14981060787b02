"""The world outside of the process: a shop that does each thing once for each key."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileShop", "Shop"]


class Shop(Protocol):
    """What the steps of an order need: a warehouse, a bank, a carrier, a mail server.

    All of them take an idempotency key, as payment services do: what they have done
    under a key they do not do again, and answer as they did.
    """

    async def do(self, what: str, order: str, key: str) -> str:
        """Do something for an order, once for each key, and return a receipt."""
        ...


class FileShop:
    """A shop whose books are a file, which outlives the process.

    Args:
        books: The file. Each line is one thing that was done.
    """

    def __init__(self, books: Path) -> None:
        self._books = books

    async def do(self, what: str, order: str, key: str) -> str:
        """Do something once for each key: write it into the books."""
        entry = {"what": what, "order": order, "key": key}
        if entry not in self.entries():
            with self._books.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return f"{what} {order}"

    def entries(self) -> list[dict[str, str]]:
        """Return what was done, in order."""
        if not self._books.exists():
            return []
        lines = self._books.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def done(self) -> list[str]:
        """Return the names of what was done, in order."""
        return [entry["what"] for entry in self.entries()]
