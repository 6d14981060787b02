"""Stand on time-machine's stack of travellers and show a clock's wall."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import time_machine

from pytest_tta.clock import active, functions

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from types import FrameType

    from pytest_tta.clock.clock import VirtualClock

__all__ = ["ClockTraveller", "travelling", "zone_name"]

_TRAMPOLINES = vars(functions)
_real_time_ns = time_machine.escape_hatch.time.time_ns


class ClockTraveller(time_machine.Traveller):
    """Tell time-machine what time it is: the clock's wall, for the clock's test.

    Threads that do not belong to the test, and packages that keep real time, see
    what they would see without the clock.
    """

    def __init__(self, clock: VirtualClock, zone: str | None = None) -> None:
        """Show the wall of `clock`, in the time zone of that POSIX name."""
        super().__init__(0, zone, tick=False)
        self._clock = clock
        stack = time_machine.traveller_stack
        self._outer = stack[-1].time_ns if stack else _real_time_ns

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        clock = self._clock
        if active.clock is not clock or not clock.threads.owns_current():
            return self._outer()
        if _asked_by_tool():
            return self._outer()
        return functions.read(clock.wall_ns())


def _asked_by_tool() -> bool:
    # Two up: whoever called time.time(), which being C has no frame of its own.
    caller: FrameType | None = sys._getframe(2)
    if caller is not None and caller.f_globals is _TRAMPOLINES:
        caller = caller.f_back
    name = None if caller is None else caller.f_globals.get("__name__")
    return type(name) is str and functions.is_kept_real(name)


def zone_name(offset: dt.timedelta) -> str:
    """Write an offset from UTC as POSIX wants it in TZ: `<+0530>-05:30:00`."""
    seconds = round(offset.total_seconds())
    if not seconds:
        return "UTC"
    minutes, second = divmod(abs(seconds), 60)
    hour, minute = divmod(minutes, 60)
    east = "+" if seconds > 0 else "-"
    west = "-" if seconds > 0 else "+"
    return f"<{east}{hour:02}{minute:02}>{west}{hour:02}:{minute:02}:{second:02}"


@contextmanager
def travelling(clock: VirtualClock, zone: str | None = None) -> Iterator[None]:
    """Show the clock's wall to everything that asks for the date or time.

    Args:
        clock: The clock.
        zone: A POSIX time zone for local time; None leaves local time alone.

    """
    traveller = start(clock, zone)
    try:
        yield
    finally:
        stop(traveller)


def start(clock: VirtualClock, zone: str | None = None) -> ClockTraveller:
    """Put a traveller for `clock` on top of the stack."""
    traveller = ClockTraveller(clock, zone)
    _TRAVEL.start()
    time_machine.traveller_stack[-1] = traveller
    traveller._start()
    return traveller


def stop(traveller: ClockTraveller) -> None:
    """Take `traveller` off the stack, wherever in it it stands."""
    stack = time_machine.traveller_stack
    if stack[-1] is not traveller:
        # Somebody's own travel goes on; it has to end on the top.
        stack.remove(traveller)
        stack.append(traveller)
    _TRAVEL.stop()


# time-machine patches with the first of the stack and restores with the last.
_TRAVEL = time_machine.travel(0, tick=False)
