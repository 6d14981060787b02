"""What can be wrong with a tape."""

from __future__ import annotations

__all__ = ["TapeError"]


class TapeError(ValueError):
    """Report a tape that cannot be read, or must not be written."""
