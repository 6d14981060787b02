"""The lines on which primitives were made, and what comments there leave out.

Primitives do not know where they were made: nobody would pay for that in production.
While coverage is collected, this listens when one is made.
"""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

import linecache
import os
import re
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_tta.clock.places import user_spot
from tta_primitives import primitive as primitives

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from pytest_tta.clock.places import Spot

__all__ = ["Births"]

_COMMENT = re.compile(r"#\s*tta:\s*no cover(?:\s*\(([^)]*)\))?")
_EVERYTHING = ("*",)


class Births:
    """Remembers where primitives are made, from `begin` to `end`.

    Args:
        root: The folder that shown paths begin at.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "")  # noqa: PTH118 - compared as text
        self._spots: WeakKeyDictionary[Any, Spot | None] = WeakKeyDictionary()
        self._lines: dict[Spot, tuple[int, int]] = {}
        self._copy: Callable[..., Any] | None = None

    def begin(self) -> None:
        """Listen from now on."""
        spots, copy = self._spots, primitives._copied

        def made(cls: type, *_: Any, **__: Any) -> Any:
            one: Any = object.__new__(cls)
            spots[one] = user_spot(sys._getframe(1))
            return one

        def copied(one: Any, kind: type | None = None) -> Any:
            twin = copy(one, kind)
            # A wrapper stands where it was written, not where it was bound.
            spots[twin] = spots.get(one) or user_spot(sys._getframe(1))
            return twin

        self._copy = copy
        primitives.WorkflowPrimitive.__new__ = made  # type: ignore[method-assign]
        primitives._copied = copied

    def end(self) -> None:
        """Listen no more."""
        if self._copy is not None:
            primitives._copied = self._copy
            # CPython would refuse arguments to a class that has lost its `__new__`.
            primitives.WorkflowPrimitive.__new__ = _made  # type: ignore[method-assign]
            self._copy = None

    def spot_of(self, primitive: Any) -> Spot | None:
        """Return where a primitive was made, None if nobody listened then."""
        return self._spots.get(primitive)

    def place_of(self, primitive: Any) -> str:
        """Write where it was made as `src/shop.py:12`; empty if that is not known."""
        spot = self.spot_of(primitive)
        if spot is None:
            return ""
        return f"{self._short(spot[0].co_filename)}:{self._span(spot)[0]}"

    def excluded_by(self, primitive: Any) -> tuple[str, ...]:
        """Return what a comment where it was made leaves out; `*` for everything."""
        spot = self.spot_of(primitive)
        if spot is None:
            return ()
        for number in self._span(spot):
            found = _COMMENT.search(linecache.getline(spot[0].co_filename, number))
            if found is not None:
                named = [one.strip() for one in (found[1] or "").split(",")]
                return tuple(one for one in named if one) or _EVERYTHING
        return ()

    def _span(self, spot: Spot) -> tuple[int, int]:
        """Return the first and the last line of the expression that made it."""
        if spot not in self._lines:
            self._lines[spot] = _lines(*spot)
        return self._lines[spot]

    def _short(self, filename: str) -> str:
        return filename.removeprefix(self._root).replace(os.sep, "/")


def _made(cls: type, *_: Any, **__: Any) -> Any:
    return object.__new__(cls)


def _lines(code: CodeType, offset: int) -> tuple[int, int]:
    found = next(islice(code.co_positions(), max(offset, 0) // 2, None), None)
    first, last = (found or (None, None))[:2]
    first = code.co_firstlineno if first is None else first
    return first, first if last is None else last
