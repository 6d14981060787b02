"""The headers in which providers tell how much may still be asked."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from pytest_tta.wire.providers.identity import DAY

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["anthropic_limits", "openai_limits", "told_wait"]

Header = tuple[str, str]

_YEAR = 366 * 86400.0


def told_wait(headers: Iterable[Header]) -> float:
    """Return the seconds that headers tell to wait; 1 if they tell none.

    Args:
        headers: Names in lower case, and values.
    """
    told = dict(headers)
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(told[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, _YEAR)
    return 1.0


def openai_limits(*, wait: float | None = None) -> tuple[Header, ...]:
    """Return OpenAI's headers, whose resets are durations such as `6m0s`.

    Args:
        wait: Seconds until the next request may come; None if it may come at once.
    """
    left = "9999" if wait is None else "0"
    reset = "6ms" if wait is None else _duration(wait)
    return (
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", left),
        ("x-ratelimit-remaining-tokens", "1999000"),
        ("x-ratelimit-reset-requests", reset),
        ("x-ratelimit-reset-tokens", "30ms"),
    )


def anthropic_limits(*, wait: float | None = None) -> tuple[Header, ...]:
    """Return Anthropic's headers, whose resets are moments in RFC 3339.

    Args:
        wait: As for `openai_limits`.
    """
    moment = DAY + timedelta(seconds=math.ceil(wait or 0.0))
    reset = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    limits = (
        ("requests", "4000", "3999"),
        ("tokens", "2400000", "2399000"),
        ("input-tokens", "2000000", "1999000"),
        ("output-tokens", "400000", "400000"),
    )
    return tuple(
        (f"anthropic-ratelimit-{what}-{name}", value)
        for what, limit, left in limits
        for name, value in (
            ("limit", limit),
            ("remaining", "0" if wait is not None and what == "requests" else left),
            ("reset", reset),
        )
    )


def _duration(seconds: float) -> str:
    """Return a duration as Go prints it: `120ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{round(rest, 3):g}s"
