"""Copies that later changes do not reach: of values, and of errors without frames."""

# ruff: noqa: ANN401 - values of any type

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import re
import sys
import types
import uuid
import weakref
from collections import OrderedDict, defaultdict, deque
from typing import Any, ClassVar, TypeVar, cast

__all__ = ["ATOMS", "StandIn", "detached", "shorten", "snapshot"]

E = TypeVar("E", bound=BaseException)

ATOMS: frozenset[type] = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, type(Ellipsis),
        dt.date, dt.datetime, dt.time, dt.timedelta,
        dt.timezone, decimal.Decimal, uuid.UUID, range,
        pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath,
        pathlib.WindowsPath, re.Pattern, type, types.FunctionType,
        types.BuiltinFunctionType, types.ModuleType,
    }
)  # fmt: skip
"""Types whose values cannot change, or are code: they are kept as they are."""

_SHOWN = 200
_MOST_PARTS = 10_000
_MOST_BYTES = 10_000_000
_DEEPEST = 100


class StandIn:
    """What is recorded of a value that is not copied: live objects, and huge ones.

    It equals the very object that it stands for, and nothing else.

    Args:
        value: The object.
    """

    __slots__ = ("_of", "_shown", "type")

    def __init__(self, value: object) -> None:
        self.type: type[object] = type(value)
        self._shown = shorten(value)
        try:
            self._of: weakref.ref[object] | None = weakref.ref(value)
        except TypeError:
            self._of = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StandIn):
            return self is other or (self._target() is not None and self._is(other))
        return other is not None and other is self._target()

    # It equals an object that has another hash.
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def _is(self, other: StandIn) -> bool:
        return self._target() is other._target()

    def _target(self) -> object:
        return None if self._of is None else self._of()

    def __repr__(self) -> str:
        return f"<not copied: {self._shown}>"


def shorten(value: object, length: int = _SHOWN) -> str:
    """Return the `repr` of a value, cut where it gets long; it never fails."""
    try:
        shown = repr(value)
    except Exception as error:  # noqa: BLE001 - a message must not hide the real error
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def snapshot(value: object) -> Any:
    """Return a copy that later changes of the value do not reach; it never fails.

    Containers, dataclasses, named tuples and types that know how to copy themselves are
    copied, whatever cannot change is kept, and anything else (a client, a lock, a
    generator) is represented by a `StandIn`. At most 10 000 parts are copied.
    """
    if type(value) in ATOMS:
        return value
    try:
        return _Copier().copied(value, 0)
    except Exception:  # noqa: BLE001 - a record must not change a run
        return StandIn(value)


class _Copier:
    """One copy of one value: what it has met, and how much it has copied."""

    def __init__(self) -> None:
        self._met: dict[int, Any] = {}
        self._parts = 0

    def copied(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in ATOMS or isinstance(value, (enum.Enum, type)):
            return value
        if id(value) in self._met:
            return self._met[id(value)]
        self._parts += 1
        if self._parts > _MOST_PARTS or depth > _DEEPEST:
            return StandIn(value)
        twin = self._by_kind(value, kind, depth + 1)
        self._met[id(value)] = twin
        return twin

    def _by_kind(self, value: Any, kind: type, depth: int) -> Any:  # noqa: PLR0911
        if kind in _FILLED:
            return self._filled(value, kind, depth)
        if kind in {tuple, frozenset, set} or _is_named_tuple(kind):
            return self._rebuilt(value, kind, depth)
        if isinstance(value, BaseException):
            return detached(value)
        if dataclasses.is_dataclass(value) and "__deepcopy__" not in vars(kind):
            return self._dataclass(value, depth)
        if hasattr(kind, "__deepcopy__") and sys.getsizeof(value) <= _MOST_BYTES:
            return copy.deepcopy(value)
        if kind is bytearray:
            return bytearray(cast("bytearray", value))
        return StandIn(value)

    def _filled(self, value: Any, kind: type, depth: int) -> Any:
        """Copy what may contain itself: the copy is known before it is filled."""
        twin: Any
        self._met[id(value)] = twin = copy.copy(value)
        twin.clear()
        if kind in {list, deque}:
            twin.extend(self.copied(item, depth) for item in value)
        else:
            for key, item in value.items():
                twin[self.copied(key, depth)] = self.copied(item, depth)
        return twin

    def _rebuilt(self, value: Any, kind: Any, depth: int) -> Any:
        items = list(value)
        twins = [self.copied(item, depth) for item in items]
        if kind is set:
            return set(map(_hashable, twins))
        if all(twin is item for twin, item in zip(twins, items, strict=True)):
            return value
        if kind is frozenset:
            return frozenset(map(_hashable, twins))
        return tuple(twins) if kind is tuple else kind._make(twins)

    def _dataclass(self, value: Any, depth: int) -> Any:
        """Copy field by field, past `__init__` and past being frozen."""
        twin = object.__new__(type(value))
        self._met[id(value)] = twin
        for name in _attributes(value):
            attribute = self.copied(getattr(value, name), depth)
            object.__setattr__(twin, name, attribute)
        return twin


_FILLED = frozenset({list, dict, deque, OrderedDict, defaultdict})


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_make")


def _hashable(twin: object) -> object:
    """Put text in the place of a stand-in, which has no hash."""
    return repr(twin) if isinstance(twin, StandIn) else twin


def _attributes(value: Any) -> list[str]:
    fields = [field.name for field in dataclasses.fields(value)]
    names = dict.fromkeys([*fields, *getattr(value, "__dict__", ())])
    return [name for name in names if hasattr(value, name)]


def detached(error: E) -> E:
    """Return a copy of an error without its traceback, cause and context.

    An error that is kept keeps the frames of its traceback, and with them everything
    that a workflow held when it failed. One that cannot be copied is a `RecordedError`
    with the same text.
    """
    try:
        twin: E = _same_error(error)
        if str(twin) == str(error):
            return twin
    except Exception:  # noqa: BLE001, S110 - an exception's class may refuse anything
        pass
    described: E = _described(error)
    return described


def _same_error(error: BaseException) -> Any:
    kind = type(error)
    if isinstance(error, BaseExceptionGroup):
        inner = [detached(one) for one in error.exceptions]
        twin = kind.__new__(kind, error.message, inner)
    else:
        # An exception reduces to its class, arguments and attributes.
        args: Any = error.__reduce__()[1]
        twin = kind.__new__(kind, *args)
        _builtin_base(kind).__init__(twin, *args)
    twin.__dict__.update(error.__dict__)
    return twin


def _builtin_base(kind: type[BaseException]) -> Any:
    """Return the nearest base that is written in C: its `__init__` sets its fields."""
    return next(one for one in kind.__mro__ if not one.__flags__ & _HEAP_TYPE)


# Py_TPFLAGS_HEAPTYPE: set for classes that are made by a class statement.
_HEAP_TYPE = 1 << 9


class RecordedError(Exception):
    """What is recorded of an error that cannot be copied: its class and its text.

    Attributes:
        type: The class of the error.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {_text(error)}")
        self.type: type[BaseException] = type(error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a message must not hide the real error
        return shorten(error.args)


def _described(error: BaseException) -> Any:
    """Return what stands for an error that cannot be copied, whatever its class."""
    return RecordedError(error)
