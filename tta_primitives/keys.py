"""Canonical forms of inputs: equal for equal inputs, different for all others."""

from __future__ import annotations

import dataclasses
import hashlib
import marshal
from datetime import date, datetime, time, timedelta
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from tta_primitives.errors import CacheKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

__all__ = ["canonical", "digest", "memory_key", "type_name"]

_PLAIN = frozenset({str, int, float, bool, type(None)})


def memory_key(value: Any) -> Hashable:  # noqa: ANN401 - narrowed by its exact type
    """Return a key for a dictionary in this process.

    A text stands for itself, so that the most usual key costs and weighs nothing; flat
    dicts stand for bytes, everything else for a tuple.

    Args:
        value: The input that is to be told apart.

    Raises:
        CacheKeyError: A part of it has no canonical form.
    """
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is dict and _PLAIN.issuperset(map(type, value.values())):
        # Half the time of a text. Version 2 writes types and values and nothing else:
        # version 3 and later also write which objects are the same.
        try:
            return marshal.dumps(sorted(value.items()), 2)
        except (TypeError, ValueError):
            pass  # Its keys cannot be sorted, or are not plain.
    return (canonical(value),)


def canonical(value: object) -> str:
    """Return a text that is the same for equal inputs and for no others.

    Types count: `1`, `"1"`, `True` and `1.0` have four texts. The order of a dict or a
    set does not count.

    Args:
        value: The input that is to be told apart.

    Raises:
        CacheKeyError: A part of it has no canonical form.
    """
    try:
        return _text(value)
    except _NoTextError:
        path, part = _culprit(value, "input")
    except RecursionError:
        msg = (
            f"the input, {_kind(value)}, cannot be a cache key: it is nested too "
            f"deeply or contains itself. {_ADVICE}"
        )
        raise CacheKeyError(msg) from None
    msg = f"{path} is {_kind(part)} and cannot be part of a cache key. {_ADVICE}"
    raise CacheKeyError(msg)


_ADVICE = (
    "Give the cache key_fn=lambda input, context: ... that returns what tells one "
    "input from another."
)


def digest(text: str) -> str:
    """Return 32 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def type_name(kind: type) -> str:
    """Return the full name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


class _NoTextError(Exception):
    """A value has no canonical text."""


def _text(value: object) -> str:
    encode = _ENCODERS.get(type(value))
    return _other(value) if encode is None else encode(value)


def _join(values: Iterable[object]) -> str:
    return ",".join(map(_text, values))


def _dict(value: Mapping[Any, Any]) -> str:
    items = [f"{_text(key)}:{_text(part)}" for key, part in value.items()]
    items.sort()
    return f"{{{','.join(items)}}}"


def _set(value: Iterable[object]) -> str:
    return f"set({','.join(sorted(map(_text, value)))})"


def _datetime(value: datetime | time) -> str:
    zone = value.tzinfo
    # A zone's repr may hold an address; its key or its name at that time do not.
    name = "" if zone is None else getattr(zone, "key", None) or value.tzname()
    return f"{type(value).__name__}({value.isoformat()} {name} {value.fold})"


# By exact type: a subclass may mean something else by the same value.
_ENCODERS: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((str, int, float, bool, type(None), complex, bytes), repr),
    **dict.fromkeys((bytearray, range, slice, type(...), date, timedelta), repr),
    datetime: _datetime,
    time: _datetime,
    list: lambda value: f"[{_join(value)}]",
    tuple: lambda value: f"({_join(value)})",
    dict: _dict,
    set: _set,
    frozenset: lambda value: f"frozen{_set(value)}",
}

# By name, because importing these modules would cost those who never use them.
_NAMED: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("decimal.Decimal", "fractions.Fraction", "uuid.UUID"), repr),
    **dict.fromkeys(("ipaddress.IPv4Address", "ipaddress.IPv6Address"), repr),
    **dict.fromkeys(("ipaddress.IPv4Network", "ipaddress.IPv6Network"), repr),
    # Two ordered dicts are equal only in the same order, unlike two dicts.
    "collections.OrderedDict": lambda value: f"OrderedDict({_join(value.items())})",
    "collections.deque": lambda value: f"deque({_join(value)})",
}

_BASES = (str, int, float, bytes, datetime, date, tuple, list, dict, set, frozenset)


def _other(value: object) -> str:
    kind = type(value)
    name = type_name(kind)
    if name in _NAMED:
        return _NAMED[name](value)
    if isinstance(value, Enum):
        return f"{name}.{value.name or _text(value.value)}"
    if (fields := _fields(value)) is not None:
        return f"{name}{_dict(fields)}"
    if isinstance(value, PathLike):
        return f"{name}({_text(fspath(value))})"
    if not getattr(value, "__dict__", None):
        for base in _BASES:
            if isinstance(value, base):
                return f"{name}({_ENCODERS[base](_as_base(base, value))})"
    raise _NoTextError


def _as_base(base: type, value: Any) -> Any:  # noqa: ANN401 - one of _BASES
    """Return a value as an object of a builtin class that it derives from."""
    if base is datetime:
        return datetime.combine(value.date(), value.timetz())
    if base is date:
        return date(value.year, value.month, value.day)
    # str(value) would ask the subclass, which may show something else: a mask.
    return (
        base.__getnewargs__(value)[0]
        if base in {str, int, float, bytes}
        else (base(value))
    )


def _fields(value: object) -> dict[str, Any] | None:
    """Return the fields of a record (dataclass, model, struct, ...), None of others."""
    kind: Any = type(value)
    if dataclasses.is_dataclass(kind):
        names: Iterable[str] = [f.name for f in dataclasses.fields(kind) if f.compare]
    elif hasattr(kind, "model_dump"):
        return _model_fields(value)
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__ if attribute.eq]
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = value._fields  # type: ignore[attr-defined]  # a named tuple has it
    else:
        return None
    return {name: getattr(value, name) for name in names}


def _model_fields(model: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's, unimported
    """Return the fields of a pydantic model, and what it allows besides.

    `model_dump` would turn models inside it into dicts, which no longer tell apart two
    kinds of models with equal fields.
    """
    names = getattr(type(model), "model_fields", None)
    if names is None:
        return dict(model.model_dump())
    fields = {name: getattr(model, name) for name in names}
    return {**fields, **(getattr(model, "model_extra", None) or {})}


def _culprit(value: object, path: str) -> tuple[str, object]:
    """Find the innermost part that has no text, with the path to it."""
    for step, part in _parts(value):
        try:
            _text(part)
        except _NoTextError:
            return _culprit(part, path + step)
    return path, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    fields = _fields(value)
    if fields is not None:
        yield from ((f".{name}", part) for name, part in fields.items())
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
        yield from ((".keys()", key) for key in value)
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((" (a member)", part) for part in value)


def _kind(value: object) -> str:
    shown = repr(value) if isinstance(value, type) else type_name(type(value))
    return f"of type {shown.removeprefix('builtins.')}"
