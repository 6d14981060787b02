"""The clock of these tests: virtual, so that delays are exact and cost nothing."""

from __future__ import annotations

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Events
from tta_primitives.door import listening


@pytest.fixture
def clock():
    """A clock that starts at 0 and moves when everybody waits."""
    return VirtualClock()


@pytest.fixture
def events():
    """The events that primitives emit during the test, as (name, detail)."""
    observer = Events()
    with listening(observers=(observer,)):
        yield observer
