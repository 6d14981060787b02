"""Keep the time of tests: exact, virtual, and in the test's hands."""

from __future__ import annotations

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.clock.errors import (
    ClockDeadlock,
    ClockError,
    ClockHeld,
    ClockPaused,
    ClockRunaway,
    ClockSpin,
)
from pytest_tta.clock.loop import VirtualLoop
from pytest_tta.clock.sleeps import SleepLog, SleepRecord

__all__ = [
    "ClockDeadlock",
    "ClockError",
    "ClockHeld",
    "ClockPaused",
    "ClockRunaway",
    "ClockSpin",
    "SleepLog",
    "SleepRecord",
    "VirtualClock",
    "VirtualLoop",
]
