"""Checks of constructor arguments: what they say names, shows and tells what to do."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import TypeGuard

__all__ = [
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "is_timedelta",
    "seconds",
]


def is_timedelta(value: object) -> TypeGuard[timedelta]:
    """Tell whether a value is a duration of the standard library."""
    # Importing `datetime` takes a quarter of the time that the package may take, and
    # who has not imported it has no timedelta.
    module = sys.modules.get("datetime")
    return module is not None and isinstance(value, module.timedelta)


def seconds(
    name: str, value: object, *, zero: bool = False, infinite: bool = False
) -> float:
    """Return a duration in seconds.

    Args:
        name: The parameter, for the message.
        value: A number of seconds or a `timedelta`.
        zero: Whether 0 is allowed.
        infinite: Whether infinity is allowed.

    Raises:
        TypeError: It is neither a number nor a timedelta.
        ValueError: It is negative, not a number, or zero or infinite where that is not
            allowed.
    """
    if is_timedelta(value):
        value = value.total_seconds()
    return check_number(name, value, zero=zero, infinite=infinite, unit=" of seconds")


def check_number(
    name: str,
    value: object,
    *,
    zero: bool = False,
    infinite: bool = False,
    unit: str = "",
) -> float:
    """Return a number that is positive, or zero or infinite where that is allowed."""
    allowed = f"{'a non-negative' if zero else 'a positive'} number{unit}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name}={value!r} must be {allowed}, not {type(value).__name__}"
        raise TypeError(msg)
    too_small = value < 0 or (value == 0 and not zero)
    if too_small or math.isnan(value) or (math.isinf(value) and not infinite):
        msg = f"{name}={value!r} must be {allowed}"
        raise ValueError(msg)
    return float(value)


def check_count(name: str, value: object, *, minimum: int = 0) -> int:
    """Return a whole number that is at least the minimum.

    Raises:
        ValueError: It is not a whole number, a bool, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        msg = f"{name}={value!r} must be a whole number of at least {minimum}"
        raise ValueError(msg)
    return value


def check_flag(name: str, value: object) -> bool:
    """Return a bool.

    Raises:
        TypeError: It is not True or False.
    """
    if not isinstance(value, bool):
        msg = f"{name}={value!r} must be True or False"
        raise TypeError(msg)
    return value


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words.

    Raises:
        ValueError: It is another.
    """
    if not isinstance(value, str) or value not in allowed:
        msg = f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}"
        raise ValueError(msg)
    return value
