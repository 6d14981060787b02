"""Let the wall clock, `time.time()` and `datetime.now()`, follow a clock."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Literal

from pytest_tta.clock import frozen, functions, trampolines

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_tta.clock.clock import VirtualClock

__all__ = ["Engine", "Wall", "best_engine"]

Engine = Literal["time-machine", "freezegun", "time.time"]
"""What shows the wall: time-machine everything; freezegun what it has patched;
else trampolines `time.time` and `time.time_ns` alone."""

_NOTE = (
    "without time-machine only time.time() and time.time_ns() show virtual time, "
    "datetime.now() shows real time; install time-machine"
)


class Wall:
    """Show the wall of a clock while it is active.

    Args:
        clock: Whose `wall_ns` is shown.
        engine: What shows it; None takes the best that is there.

    """

    __slots__ = ("_clock", "_engine", "_stop", "engine")

    def __init__(self, clock: VirtualClock, engine: Engine | None = None) -> None:
        """Patch nothing yet."""
        self._clock = clock
        self._engine: Engine | None = engine
        self._stop: Callable[[], None] | None = None
        self.engine: Engine | None = None

    @property
    def note(self) -> str | None:
        """Say what does not follow, or None if everything does."""
        return _NOTE if self.engine == "time.time" else None

    def start(self) -> None:
        """Begin to show the clock's wall; the clock is, or becomes, the active one."""
        engine = best_engine() if self._engine is None else self._engine
        self.engine = engine
        if engine == "time-machine":
            from pytest_tta.clock import travel

            traveller = travel.start(self._clock)
            self._stop = lambda: travel.stop(traveller)
        elif engine == "time.time":
            trampolines.install_wall()
            functions.set_wall(self._clock)
            self._stop = lambda: functions.set_wall(None)
        frozen.enter(self._clock, self._zone if engine == "time-machine" else None)

    def stop(self) -> None:
        """Show real time again."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
        frozen.leave()

    def _zone(self, offset: dt.timedelta) -> AbstractContextManager[None]:
        from pytest_tta.clock import travel

        return travel.travelling(self._clock, travel.zone_name(offset))


def best_engine() -> Engine:
    """Choose what shows the wall here and now.

    A freeze of freezegun's that is under way has patched everything already, and
    time-machine refuses to start beside it.
    """
    if frozen.is_freezing():
        return "freezegun"
    return "time-machine" if _has_time_machine() else "time.time"


@cache
def _has_time_machine() -> bool:
    """Tell whether a time-machine with a stack of travellers (3.0) is installed."""
    try:
        importlib.import_module("pytest_tta.clock.travel")
    except (ImportError, AttributeError):
        return False
    return True
