"""The errors that a search injects, and how they are told from the code's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.classify import any_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tta_primitives.context import Position

__all__ = [
    "PermanentFailure",
    "error_at",
    "is_injected",
    "marked",
    "noted",
    "retry_around",
]

_MARK = "__tta_injected__"


def _nobody(error: BaseException) -> None:
    """Look at no error."""


noted: Callable[[BaseException], None] = _nobody
"""Is told of each error that is injected; whoever watches an execution sets it."""


class PermanentFailure(Exception):
    """Stand for an answer that will be the same next time, such as HTTP 400.

    Attributes:
        status_code: 400; retries read it.
    """

    status_code = 400


def error_at(
    kind: str, site: str, number: int, position: Position | None
) -> BaseException:
    """Make the error that a fault raises at a call.

    Args:
        kind: The kind of the fault; `fatal` for an error that nobody should retry.
        site: Where.
        number: Which call there.
        position: Where in a workflow, None outside of any. The nearest retry around it
            says which errors it expects.
    """
    text = f"injected at {site}, call {number}"
    if kind == "fatal":
        return marked(PermanentFailure(text))
    retry = retry_around(position)
    error = None if retry is None else _expected_by(retry, text)
    return marked(ConnectionError(text) if error is None else error)


def retry_around(position: Position | None) -> RetryPrimitive[object, object] | None:
    """Return the nearest retry around a position, None if there is none."""
    while position is not None:
        if isinstance(position.primitive, RetryPrimitive):
            return position.primitive
        position = position.parent
    return None


def _expected_by(
    retry: RetryPrimitive[object, object], text: str
) -> BaseException | None:
    """Make an error that a retry would retry, None if a ConnectionError will do."""
    types = retry.retry_on
    if not isinstance(types, tuple) or issubclass(ConnectionError, types):
        return None
    for error in _made(types, text):
        if not any_matches(retry.give_up_on, error):
            return error
    return None


def _made(types: tuple[type[BaseException], ...], text: str) -> Iterator[Exception]:
    for kind in types:
        if not issubclass(kind, Exception) or issubclass(kind, BaseExceptionGroup):
            continue
        try:
            error = kind(text)
        except Exception:  # noqa: BLE001, S112 - one that wants more than a text is no use
            continue
        if isinstance(error, Exception):
            yield error


def marked(error: BaseException) -> BaseException:
    """Return an error after writing on it that a search has injected it."""
    error.__dict__[_MARK] = True
    noted(error)
    return error


def is_injected(error: BaseException) -> bool:
    """Tell whether a search has injected this very error."""
    return _MARK in getattr(error, "__dict__", ())
