"""What a span tells of an error, and which span it is that tells it all.

An error passes through every primitive around the one that raised it. Each of their
spans has its type, by OpenTelemetry's convention in `error.type`; the text and the
traceback are on the innermost alone, where it arose, because writing them down costs
more than everything else in a span. The conventions are those of
https://opentelemetry.io/docs/specs/semconv/general/recording-errors/ and
https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from tta_primitives.observability.redaction import printed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tta_primitives.observability.redaction import Redactor

__all__ = ["Told", "description", "exception_attributes", "type_name"]

# Of the messages that spans tell, in characters.
_LONGEST_DESCRIPTION = 300
# How many calls of a traceback are told, from where the error was raised.
_FRAMES = 50
_MOST_ERRORS = 256


class Told:
    """The errors that spans below one span have told already.

    It keeps no error, and so none of the frames of its traceback: an error is known by
    its identity, its type and the line that raised it. An object that was made where
    another one was freed is not taken for it unless the same line raised both.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: set[Hashable] = set()

    def __contains__(self, error: BaseException) -> bool:
        if _mark(error) in self._marks:
            return True
        inner = getattr(error, "exceptions", None)
        is_group = isinstance(error, BaseExceptionGroup)
        return is_group and inner is not None and all(one in self for one in inner)

    def add(self, error: BaseException) -> None:
        """Note that a span below has told this error."""
        if len(self._marks) >= _MOST_ERRORS:
            # A map over very many items: at worst one is told twice.
            self._marks.clear()
        self._marks.add(_mark(error))


def _mark(error: BaseException) -> Hashable:
    trace = error.__traceback__
    if trace is None:
        return id(error), type(error)
    while trace.tb_next is not None:
        trace = trace.tb_next
    return id(error), type(error), trace.tb_frame.f_code, trace.tb_lineno


def type_name(error: BaseException) -> str:
    """Return the full name of an error's class, as `error.type` has it."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def description(error: BaseException, redact: Redactor) -> str:
    """Return an error in one short text without secrets."""
    text = redact.text(f"{type(error).__name__}: {printed(error)}")
    if len(text) > _LONGEST_DESCRIPTION:
        text = f"{text[:_LONGEST_DESCRIPTION]}..."
    return text


def exception_attributes(error: BaseException, redact: Redactor) -> dict[str, Any]:
    """Return the attributes of the event `exception`, without secrets."""
    try:
        lines = traceback.format_exception(error, limit=-_FRAMES)
        stack = redact.text("".join(lines))
    except Exception:  # noqa: BLE001 - an error may be unprintable
        stack = "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES))
    return {
        "exception.type": type_name(error),
        "exception.message": redact.text(printed(error)),
        "exception.stacktrace": stack,
    }
