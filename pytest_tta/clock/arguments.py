"""What a clock is given, checked."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from pytest_tta.clock.functions import REAL
from pytest_tta.clock.timeline import NEVER, to_ns

__all__ = [
    "IO",
    "UNIX_EPOCH",
    "check_duration",
    "check_flag",
    "check_io",
    "check_max_jumps",
    "check_positive",
    "start_ns",
]

IO = Literal["hold", "grace", "jump"]

_DEFAULT_START = datetime(2000, 1, 1, tzinfo=UTC)
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def check_duration(name: str, value: float | timedelta) -> float:
    """Return a duration in seconds.

    Args:
        name: The argument.
        value: Seconds, or a timedelta.

    Raises:
        TypeError: It is neither.
        ValueError: It is infinite or negative.
    """
    if isinstance(value, timedelta):
        return check_duration(name, value / _MICROSECOND / 1_000_000)
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be seconds or a timedelta, not {value!r}"
        raise TypeError(msg)
    if not 0 <= value < math.inf:
        msg = f"{name} must be finite and not negative, not {value!r}"
        raise ValueError(msg)
    return value


def check_positive(name: str, value: float) -> float:
    """Return a duration in seconds that is more than none.

    Args:
        name: The argument.
        value: Seconds.

    Raises:
        TypeError: They are no number.
        ValueError: They are none, infinite or negative.
    """
    if check_duration(name, value) == 0:
        msg = f"{name} must be more than 0 seconds, not {value!r}"
        raise ValueError(msg)
    return value


def check_flag(name: str, value: object) -> bool:
    """Return what is True or False.

    Args:
        name: The argument.
        value: Of it.

    Raises:
        TypeError: It is neither.
    """
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, not {value!r}"
        raise TypeError(msg)
    return value


def check_io(value: IO) -> IO:
    """Return what the clock does while it is real I/O that a loop waits for.

    Args:
        value: One of `IO`.

    Raises:
        ValueError: It is none of them.
    """
    if value not in get_args(IO):
        allowed = ", ".join(repr(each) for each in get_args(IO))
        msg = f"io must be one of {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def check_max_jumps(value: int | None) -> int:
    """Return how often time may be moved.

    Args:
        value: A number; None for any number.

    Raises:
        ValueError: It is no whole number from 1.
    """
    if value is None:
        return NEVER
    if type(value) is not int or value < 1:
        msg = f"max_jumps must be a whole number from 1, or None, not {value!r}"
        raise ValueError(msg)
    return value


def start_ns(start: datetime | str | float | None) -> int:
    """Return the instant at which the wall starts, as nanoseconds of the Unix epoch.

    Args:
        start: A datetime, in UTC if it names no zone; a text in ISO 8601; "now";
            seconds of the Unix epoch; None for the beginning of the year 2000.

    Raises:
        TypeError: It is of another kind.
        ValueError: It is no date, or not finite.
    """
    if start is None:
        start = _DEFAULT_START
    elif start == "now":
        start_ns: int = REAL["time_ns"]()
        return start_ns
    elif isinstance(start, str):
        start = _parsed(start)
    if isinstance(start, datetime):
        aware = start.replace(tzinfo=UTC) if start.tzinfo is None else start
        return (aware - UNIX_EPOCH) // _MICROSECOND * 1000
    if isinstance(start, bool) or not isinstance(start, int | float):
        msg = f"start must be a datetime, an ISO string, seconds or None, not {start!r}"
        raise TypeError(msg)
    if not math.isfinite(start):
        msg = f"start must be a finite number of seconds, not {start!r}"
        raise ValueError(msg)
    return to_ns(start)


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        msg = f"start must be an ISO 8601 date or 'now', not {text!r}"
        raise ValueError(msg) from None
