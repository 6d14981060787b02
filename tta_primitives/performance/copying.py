"""Which values may be shared between callers, and copies of those that may not."""

from __future__ import annotations

import copy
import dataclasses
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

from tta_primitives.keys import type_name

__all__ = ["is_immutable", "twin_of_error"]

ErrorT = TypeVar("ErrorT", bound=Exception)

_ATOMS = (
    *(str, int, float, bool, type(None), complex, bytes, range, type(...)),
    *(date, datetime, time, timedelta, timezone, FunctionType, BuiltinFunctionType),
)
_ATOM_TYPES = frozenset(_ATOMS)
_ATOM_NAMES = frozenset({"decimal.Decimal", "fractions.Fraction", "uuid.UUID"})


def is_immutable(value: Any) -> bool:  # noqa: ANN401 - narrowed by its exact type
    """Tell whether nobody can change a value, so that all callers may have the same.

    That is known of plain values, enums, paths, classes and functions, and of tuples,
    frozensets and frozen dataclasses of such; of everything else it is denied.
    """
    kind = type(value)
    if kind in _ATOM_TYPES or isinstance(value, (Enum, type)):
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_immutable, value))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return all(map(is_immutable, value))
    if dataclasses.is_dataclass(kind):
        return _is_frozen(kind) and all(
            is_immutable(getattr(value, field.name))
            for field in dataclasses.fields(kind)
        )
    return type_name(kind) in _ATOM_NAMES or _is_path(kind)


def _is_path(kind: type) -> bool:
    # By name: importing pathlib takes as long as importing this whole package.
    return kind.__module__.partition(".")[0] == "pathlib"


def _is_frozen(kind: Any) -> bool:  # noqa: ANN401 - a dataclass
    return bool(kind.__dataclass_params__.frozen)


def twin_of_error(error: ErrorT) -> ErrorT:
    """Return a copy of an error that has no traceback, or itself if it has no copy.

    One error raised for many callers would gather the tracebacks of all of them.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - whatever a constructor asks for and does not get
        return error
    if type(twin) is not type(error) or twin.args != error.args:
        return error
    twin.__cause__ = error.__cause__
    if hasattr(error, "__notes__"):
        twin.__notes__ = list(error.__notes__)
    return twin
