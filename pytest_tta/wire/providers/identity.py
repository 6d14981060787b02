"""Ids and dates that are the same in every run."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["CREATED", "DAY", "made_id"]

# The day on which the clock of a test begins, unless it is told another.
DAY = datetime(2000, 1, 1, tzinfo=UTC)
CREATED = int(DAY.timestamp())


def made_id(prefix: str, number: int, part: int = 0) -> str:
    """Return an id of 24 digits after the provider's prefix.

    Args:
        prefix: Such as `call_`.
        number: Which request it belongs to, from 1.
        part: Which thing of the answer it names.
    """
    return f"{prefix}{number:018d}{part:06d}"
