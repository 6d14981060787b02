"""What an error says about its HTTP answer: status, headers, and when to come back."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

__all__ = ["header", "is_mute", "retry_after", "status"]

_TELLING = (
    "status_code",
    "status",
    "response",
    "headers",
    "retry_after",
    "retryable",
    "body",
    "code",
    "type",
    "__getattr__",
)


def is_mute(error: Exception) -> bool:
    """Tell quickly that an error has nothing to say beyond its type and its text."""
    return not error.__dict__ and _is_mute_type(type(error))  # type: ignore[arg-type]


@lru_cache(maxsize=512)
def _is_mute_type(kind: Hashable) -> bool:
    is_group = isinstance(kind, type) and issubclass(kind, BaseExceptionGroup)
    return not is_group and not any(hasattr(kind, name) for name in _TELLING)


def status(error: Exception) -> int | None:
    """Return the HTTP status of an error, None if it has none.

    It is read from `.status_code` or `.status` of the error or of its `.response`, as
    the errors of httpx, requests, aiohttp and the LLM vendors' SDKs have it.
    """
    for source in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            value = getattr(source, name, None)
            if isinstance(value, int):
                return value
    return None


def header(error: Exception, name: str) -> str | None:
    """Return a header of the answer that an error carries, None if there is none.

    Args:
        error: With `.response.headers` or `.headers`.
        name: In lower case; headers are matched without regard to case.
    """
    for source in (getattr(error, "response", None), error):
        headers: Any = getattr(source, "headers", None)
        # An `email.message.Message`, as urllib has it, is no Mapping.
        if isinstance(headers, Mapping) or hasattr(headers, "get_all"):
            for key, value in headers.items():
                if isinstance(key, str) and key.lower() == name:
                    return str(value)
    return None


def retry_after(error: Exception) -> float | None:
    """Return the seconds that an error asks to wait, None if it does not ask.

    The sources, in this order: the attribute `retry_after` (seconds, a timedelta, a
    datetime, or text as in the header), the header `retry-after-ms`, and the header
    `Retry-After` (RFC 9110, section 10.2.3: seconds or a date). What cannot be read is
    no hint. A group asks for the longest wait of its leaves.
    """
    if isinstance(error, ExceptionGroup):
        hints = [h for h in map(retry_after, error.exceptions) if h is not None]
        return max(hints, default=None)
    hint = _seconds(getattr(error, "retry_after", None))
    if hint is None and _has_headers(error):
        milliseconds = _number(header(error, "retry-after-ms"))
        if milliseconds is not None:
            return milliseconds / 1000
        hint = _seconds(header(error, "retry-after"))
    return hint


def _has_headers(error: Exception) -> bool:
    return hasattr(error, "response") or hasattr(error, "headers")


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        return _number(value.total_seconds())
    if isinstance(value, datetime):
        return _until(value)
    number = _number(value)
    if number is None and isinstance(value, str):
        return _until(_http_date(value))
    return number


def _number(value: object) -> float | None:
    """Return a finite number of at least 0, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _http_date(text: str) -> datetime | None:
    # Imported here because it costs 3 ms, and hardly any program meets a date.
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until(moment: datetime | None) -> float | None:
    """Return the seconds until a date, 0 if it has passed; without a zone it is UTC."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - _wall_clock())


def _wall_clock() -> float:
    """Return the present as seconds since the epoch: a date has come from outside."""
    return time.time()  # noqa: TID251 - the one date that enters the runtime
