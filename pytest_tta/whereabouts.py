"""Which primitive runs in the current context, for the clock's log and errors."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pytest_tta.clock import describe
from tta_primitives.door import Observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tta_primitives.door import Call

__all__ = ["Whereabouts", "naming_primitives"]

_call: ContextVar[Call | None] = ContextVar("tta_call", default=None)


class Whereabouts(Observer):
    """Keeps the innermost call of each context."""

    def started(self, call: Call, /) -> None:
        """Go into a call."""
        _call.set(call)

    def finished(self, call: Call, /) -> None:
        """Go back to the call around it."""
        _call.set(call.parent_call)


def _path() -> str | None:
    call = _call.get()
    return None if call is None else call.path


@contextmanager
def naming_primitives() -> Iterator[None]:
    """Let the clock name the primitive that waits."""
    before = describe.path_of_current
    describe.path_of_current = _path
    try:
        yield
    finally:
        describe.path_of_current = before
