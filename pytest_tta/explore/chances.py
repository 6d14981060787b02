"""Chance of an execution: every source of it begins anew with each plan."""

from __future__ import annotations

import os
import random
from _random import Random as _Core
from typing import TYPE_CHECKING, Any

from tta_primitives import chance
from tta_primitives.late import Late

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = ["Chances"]


class Chances:
    """Seeds chance and ids of the primitives, `random`, and what the system gives."""

    def __init__(self) -> None:
        self._chance = Late("")
        self._ids = Late("")
        self._system = Late("")

    def enter(self, stack: ExitStack) -> None:
        """Take chance over until a stack is closed."""
        stack.callback(random.setstate, random.getstate())
        stack.callback(setattr, os, "urandom", os.urandom)
        os.urandom = self._urandom
        stack.enter_context(chance.using(self._chance, self._new_id))

    def begin(self, seed: int | str) -> None:
        """Begin an execution."""
        # The same texts as in an ordinary run.
        self._chance.begin(f"{seed}/chance")
        self._ids.begin(f"{seed}/ids")
        self._system.begin(f"{seed}/system")
        # As `random.seed` does with a number, without asking what it is.
        everybody: Any = random._inst
        _Core.seed(everybody, _number(seed))
        everybody.gauss_next = None

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(128) | 1:032x}"

    def _urandom(self, size: int, /) -> bytes:
        return self._system.getrandbits(8 * size).to_bytes(size, "big") if size else b""


def _number(seed: Any) -> int:  # noqa: ANN401 - a number, or a text
    # A number is seeded with a tenth of the work.
    return seed if isinstance(seed, int) else sum(map(ord, seed))
