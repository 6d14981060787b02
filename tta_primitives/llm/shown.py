"""What may be shown of a primitive's options: nothing that lets anybody in."""

from __future__ import annotations

from collections.abc import Mapping

from tta_primitives.keys import digest

__all__ = ["mark", "public", "without_secrets"]

# What is told of these would be a key as likely as not.
_HIDDEN = frozenset({"extra_headers", "extra_query"})


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query."""
    head, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{slashes}{host.rpartition('@')[2]}{slash}{path}" if slashes else head


def public(name: str, value: object) -> object:
    """Return an option as it may be shown: of a header, only a mark of its value."""
    if name in _HIDDEN and isinstance(value, Mapping):
        return {str(key): f"#{mark(inner)}" for key, inner in value.items()}
    return value


def mark(value: object) -> str:
    """Return a few digits that differ for values that do."""
    return digest(repr(value))[:8]
