"""Values and errors as plain JSON, and back: nothing that is read is ever executed."""

from __future__ import annotations

import base64
import builtins
import datetime as dt
import json
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tta_primitives.durable.errors import JournalError, StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["from_json", "from_plain", "known_errors", "plain_value", "to_json"]

_ATOMS = frozenset({bool, float, int, str, type(None)})
_TEXTS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: (
        "$bytes",
        lambda value: base64.b64encode(value).decode(),
        lambda text: base64.b64decode(text, validate=True),
    ),
    Decimal: ("$decimal", str, Decimal),
    dt.date: ("$date", dt.date.isoformat, dt.date.fromisoformat),
    dt.datetime: ("$datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),
    UUID: ("$uuid", str, UUID),
}
_MESSAGE = "a step of a durable workflow returns JSON data, tuples, bytes, dates and "
_registered: dict[str, type[Exception]] = {}


def known_errors(*kinds: type[Exception]) -> None:
    """Let errors of these types come out of a journal as what they were.

    Types that the process has imported under the name under which they were recorded
    are known anyway.

    Args:
        kinds: Exception classes.
    """
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            msg = f"known_errors takes exception classes, not {kind!r}"
            raise TypeError(msg)
        _registered[_type_name(kind)] = kind


def to_json(value: object, where: str) -> str:
    """Return a value as JSON text.

    Args:
        value: What `plain_value` takes.
        where: What it is, for the error.

    Raises:
        TypeError: It holds something that would not come back as what it is.
    """
    return json.dumps(plain_value(value, where), separators=(",", ":"))


def from_json(text: str, where: str) -> Any:  # noqa: ANN401 - any value
    """Return the value that `to_json` was given.

    Raises:
        JournalError: The text was not written by it.
    """
    try:
        return from_plain(json.loads(text))
    except (ValueError, TypeError, ArithmeticError) as error:
        msg = f"{where} is not what a durable workflow has written: {error}"
        raise JournalError(msg) from error


def plain_value(value: object, where: str) -> Any:  # noqa: ANN401 - JSON
    """Return a value as JSON data; what JSON does not know is marked.

    Args:
        value: JSON data, tuples, bytes, dates, times, decimals, UUIDs, exceptions.
        where: What it is, for the error.

    Raises:
        TypeError: It holds something that would not come back as what it is.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, list) and kind is list:
        return [plain_value(part, where) for part in value]
    if isinstance(value, tuple) and kind is tuple:
        return {"$tuple": [plain_value(part, where) for part in value]}
    if isinstance(value, dict) and kind is dict:
        return _plain_dict(value, where)
    if kind in _TEXTS:
        mark, write, _ = _TEXTS[kind]
        return {mark: write(value)}
    if isinstance(value, Exception):
        return {"$error": _plain_error(value, where)}
    msg = (
        f"{where} holds a {_type_name(kind)}, which a journal cannot keep: {_MESSAGE}"
        "decimals; keep live objects in context.deps"
    )
    raise TypeError(msg)


def _plain_dict(value: dict[Any, Any], where: str) -> dict[str, Any]:
    names = [name for name in value if type(name) is not str]
    if names:
        msg = f"{where} has the key {names[0]!r}, which JSON would make a text"
        raise TypeError(msg)
    plain = {name: plain_value(part, where) for name, part in value.items()}
    if any(name.startswith("$") for name in plain):
        return {"$dict": [[name, part] for name, part in plain.items()]}
    return plain


def from_plain(plain: Any) -> Any:  # noqa: ANN401 - JSON in, any value out
    """Return the value that `plain_value` was given."""
    if isinstance(plain, list):
        return [from_plain(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        ((mark, content),) = plain.items()
        if mark in _READERS:
            return _READERS[mark](content)
    return {name: from_plain(part) for name, part in plain.items()}


def _type_name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}:{kind.__qualname__}"


def _plain_error(error: Exception, where: str) -> dict[str, Any]:
    """Return an error as JSON data; what of it is no data is left out."""
    given: tuple[Any, ...] = error.args
    if isinstance(error, OSError) and error.filename is not None:
        given = error.errno, error.strerror, error.filename  # Which `args` leaves out.
    arguments = _kept(list(given), where)
    return {
        "type": _type_name(type(error)),
        "message": str(error),
        "args": [str(error)] if arguments is None else arguments,
        "attributes": {
            name: kept[0]
            for name, value in vars(error).items()
            if not name.startswith("_") or name == "__notes__"
            if (kept := _kept([value], where)) is not None
        },
    }


def _kept(values: list[Any], where: str) -> list[Any] | None:
    try:
        return [plain_value(value, where) for value in values]
    except TypeError:
        return None


def _error(plain: dict[str, Any]) -> Exception:
    """Return the error that was recorded: of its own type if that is known."""
    name, message = plain["type"], plain["message"]
    kind = _known(name)
    if kind is not None:
        try:
            return _made(kind, from_plain(plain["args"]), plain["attributes"])
        except Exception:  # noqa: BLE001, S110 - whatever its constructor asks for
            pass
    return StepFailedError(f"{name}: {message}", error_type=name)


def _known(name: str) -> type[Exception] | None:
    """Return the type that an error was recorded with; nothing is imported for it."""
    if name in _registered:
        return _registered[name]
    module, _, path = name.rpartition(":")
    found: Any = sys.modules.get(module) if module else builtins
    for part in path.split("."):
        found = getattr(found, part, None)
    is_error = isinstance(found, type) and issubclass(found, Exception)
    return found if is_error else None


def _made(
    kind: type[Exception], arguments: list[Any], attributes: dict[str, Any]
) -> Exception:
    if kind.__module__ == "builtins":
        error = kind(*arguments)
    else:
        # Its own `__init__` may take something else than what it hands to `args`.
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
    for name, value in attributes.items():
        setattr(error, name, from_plain(value))
    return error


_READERS: dict[str, Callable[[Any], Any]] = {
    **{mark: read for mark, _, read in _TEXTS.values()},
    "$tuple": lambda parts: tuple(from_plain(part) for part in parts),
    "$dict": lambda pairs: {name: from_plain(part) for name, part in pairs},
    "$error": _error,
}
