"""Errors as data: what a worker tells of one, and what the caller raises for it.

Nothing is unpickled and no constructor is called. A type is looked up among those that
this process knows already: the standard library's builtins, this library's own, and
those that were registered.
"""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.distributed.errors import RemoteError
from tta_primitives.distributed.values import is_json
from tta_primitives.errors import PrimitiveError
from tta_primitives.recovery.classify import is_retryable
from tta_primitives.recovery.hints import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["error_from", "failure_of", "register_errors"]

AnswerT = TypeVar("AnswerT")
ErrorT = TypeVar("ErrorT", bound=Exception)

_OURS = __name__.partition(".")[0]
# A coroutine cannot raise the first two, and the others are not what their text says.
_LEFT_OUT = (StopIteration, StopAsyncIteration, UnicodeError)


def _name(kind: type[BaseException]) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name.removeprefix("builtins.")


_known: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, _LEFT_OUT)
    and kind.__name__ == name
}


def register_errors(first: type[ErrorT], *others: type[Exception]) -> type[ErrorT]:
    """Make types known, so that a caller gets them as themselves from a worker.

    Register them where both sides import them, best beside their definition: as a
    decorator. What an instance has in `args` and as public attributes travels with it
    if it is JSON. Its constructor is not called.

    Raises:
        TypeError: One is no subclass of `Exception`.
    """
    for kind in (first, *others):
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            msg = f"register_errors({kind!r}) must be given subclasses of Exception"
            raise TypeError(msg)
        _known[_name(kind)] = kind
    return first


def failure_of(error: Exception, path: str) -> dict[str, Any]:
    """Return what is told of an error, as JSON.

    Arguments and attributes are told only of types that are known: others may hold
    anything, for instance a response with its headers.

    Args:
        error: What was raised.
        path: The position of the step that was called.
    """
    told: dict[str, Any] = {
        "type": _name(type(error)),
        "message": _text(error),
        "path": path,
        "retry_after": _asked(retry_after, error, None),
        "retryable": _asked(is_retryable, error, True),  # noqa: FBT003 - an answer
        "notes": _notes(error),
    }
    if isinstance(error, ExceptionGroup):
        told["message"] = error.message
        told["exceptions"] = [failure_of(one, path) for one in error.exceptions]
    elif isinstance(error, RemoteError):
        # From a worker of this worker: the caller learns of the first.
        told |= {"type": error.type, "message": error.message, "path": error.path}
    elif _kind(told["type"]) is type(error):
        args = list(error.args)
        if isinstance(error, OSError) and error.filename is not None:
            args.append(error.filename)
        told["args"] = args if is_json(args) else None
        told["attributes"] = {
            name: value
            for name, value in vars(error).items()
            if not name.startswith("_") and is_json(value)
        }
    return told


def _asked(
    question: Callable[[Exception], AnswerT], error: Exception, unknown: AnswerT
) -> AnswerT:
    """Ask an error; its attributes may fail, and it is told all the same."""
    try:
        return question(error)
    except Exception:  # noqa: BLE001 - a user's property
        return unknown


def _notes(error: Exception) -> list[str]:
    notes = getattr(error, "__notes__", None)
    return [n for n in notes if isinstance(n, str)] if isinstance(notes, list) else []


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's `__str__`; its type is told all the same
        return "(its text cannot be had: __str__ failed)"


def _kind(name: object) -> type[Exception] | None:
    """Return the type of this name if it is known."""
    if not isinstance(name, str):
        return None
    if name not in _known and name.startswith(f"{_OURS}."):
        module, _, short = name.rpartition(".")
        found = getattr(sys.modules.get(module), short, None)
        if isinstance(found, type) and issubclass(found, PrimitiveError):
            _known[name] = found
    return _known.get(name)


def error_from(data: Mapping[str, Any]) -> Exception:
    """Return the error that was described, to be raised here."""
    name, path = str(data.get("type")), str(data.get("path"))
    message = str(data.get("message"))
    kind = _kind(name)
    error = None if kind is None else _again(kind, message, data)
    if error is None:
        hint = data.get("retry_after")
        error = RemoteError(
            message,
            type=name,
            path=path,
            retry_after=hint if isinstance(hint, (int, float)) else None,
            retryable=data.get("retryable") is not False,
        )
    for note in data.get("notes") or ():
        error.add_note(str(note))
    error.add_note(f"raised on a worker, in {path}")
    return error


def _again(
    kind: type[Exception], message: str, data: Mapping[str, Any]
) -> Exception | None:
    """Return an instance without calling the constructor, None if there is no way."""
    args = data.get("args")
    try:
        if issubclass(kind, ExceptionGroup):
            below = [error_from(one) for one in data.get("exceptions") or ()]
            return kind.__new__(kind, message, below)
        given = args if isinstance(args, list) else [message]
        error = kind.__new__(kind, *given)
        if not error.args:  # An OSError with a constructor of its own leaves it to it.
            error.args = tuple(given)
        if isinstance(error, SyntaxError):  # Its text is not that of its `args`.
            error.msg = message
        vars(error).update(data.get("attributes") or {})
    except Exception:  # noqa: BLE001 - whatever a `__new__` wants that was not sent
        return None
    return error
