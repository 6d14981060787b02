"""Name what can go wrong with virtual time.

ClockError
├── ClockDeadlock    everybody waits and nothing can wake anybody
├── ClockRunaway     time was moved again and again without an end
├── ClockSpin        callbacks run for ever while a timer waits
├── ClockPaused      everybody waits for time, and time moves by hand only
└── ClockHeld        real work outside the loop holds time for too long
"""

from __future__ import annotations

__all__ = [
    "ClockDeadlock",
    "ClockError",
    "ClockHeld",
    "ClockPaused",
    "ClockRunaway",
    "ClockSpin",
]


class ClockError(Exception):
    """Report that virtual time cannot go on; the base of all clock errors."""


class ClockDeadlock(ClockError):
    """Report that every task waits and nothing is left that could wake one."""


class ClockRunaway(ClockError):
    """Report that time was moved `max_jumps` times without the run ending."""


class ClockSpin(ClockError):
    """Report that callbacks keep running at one instant while a timer waits."""


class ClockPaused(ClockError):
    """Report that every task waits for time, which moves by hand only."""


class ClockHeld(ClockError):
    """Report that real work outside the loop held time for too long."""
