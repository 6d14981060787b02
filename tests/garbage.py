"""Garbage of a test, told apart from that of the tests before it."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Turn the collector off, and let `gc.collect()` count only what is made in here.

    What earlier tests have left may fall apart in steps (a fake Redis that has run Lua
    does): one collection frees objects whose end makes garbage of others. So whatever
    is there already is frozen, and stays out of every count until the session ends.
    """
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.enable()
