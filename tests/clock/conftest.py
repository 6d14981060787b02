"""What the tests of the simulated loop share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[SimulationLoop]:
    """Make a loop with a clock of its own."""
    made = SimulationLoop(VirtualClock())
    yield made
    made.close()
