"""What the clock's log and errors tell of primitives: which runs, and which hangs."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pytest_tta.clock import describe
from tta_primitives.door import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Token

__all__ = ["call_here", "go_back", "go_in", "path_here", "telling"]

_call: ContextVar[Call | None] = ContextVar("tta_call", default=None)


# To go into a call is this and no more: it is done for every call.
go_in: Callable[[Call | None], Token[Call | None]] = _call.set


def go_back(call: Call) -> None:
    """Go back from a call to the one around it."""
    above = call.parent
    _call.set(above if type(above) is Call else call.parent_call)


def call_here() -> Call | None:
    """Return the call of a primitive that is at work here, None if there is none."""
    return _call.get()


def path_here() -> str | None:
    """Return the path of the primitive that is at work here, None if there is none."""
    call = _call.get()
    return None if call is None else call.path


@contextmanager
def telling(remarks: Callable[[], list[str]]) -> Iterator[None]:
    """Let the clock name the primitive that waits, and say what else is known.

    Args:
        remarks: Sentences for an error that says who waits.
    """
    before = describe.path_of_current, describe.remarks
    describe.path_of_current, describe.remarks = path_here, remarks
    # A call that began in this context and ended in another is not left in it.
    token = _call.set(None)
    try:
        yield
    finally:
        _call.reset(token)
        describe.path_of_current, describe.remarks = before
