"""The clock of these tests: virtual, so that waits are exact and cost nothing."""

from __future__ import annotations

import pytest

from pytest_tta.clock.clock import VirtualClock


@pytest.fixture
def clock():
    """A clock that starts at 0 and moves when everybody waits."""
    return VirtualClock()
