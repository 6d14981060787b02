"""What the tests of observability share."""

from __future__ import annotations

from tests.otlp_receiver import receiver

__all__ = ["receiver"]
