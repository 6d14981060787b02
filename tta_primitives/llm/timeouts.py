"""How long an SDK may wait for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["limited"]

_PARTS = ("connect", "read", "write", "pool")
_CONNECT = 5.0
"""How long the SDKs themselves wait for a connection, in seconds."""

_GRACE = 0.25
# Whoever enforces a deadline cancels at it. The SDK is told a little later: its error
# must not come before theirs, and it counts from when the connection is there.


def limited(usual: object, remaining: float | None, make: Callable[..., Any]) -> object:
    """Return the limits for one request.

    Args:
        usual: Seconds, None for no limit, or an object with a limit for each part.
        remaining: The seconds until the deadline, None without.
        make: The class of such objects, as the SDK has it.
    """
    parts: dict[str, float | None]
    if usual is None or isinstance(usual, (int, float)):
        seconds = None if usual is None else float(usual)
        connect = _CONNECT if seconds is None else min(seconds, _CONNECT)
        parts = {**dict.fromkeys(_PARTS, seconds), "connect": connect}
    else:
        parts = {name: getattr(usual, name) for name in _PARTS}
    if remaining is not None:
        most = max(0.0, remaining) + _GRACE
        parts = {
            name: most if limit is None else min(limit, most)
            for name, limit in parts.items()
        }
    return make(**parts)
