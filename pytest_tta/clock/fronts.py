"""Put a clock behind the object that freezegun's `freeze_time` returns."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any, cast

from pytest_tta.clock.errors import ClockError

if TYPE_CHECKING:
    from pytest_tta.clock.clock import VirtualClock

__all__ = ["ClockReversal", "freezegun_api", "frozen_at", "place_over", "take_away"]

_SECOND = 1_000_000_000
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - freezegun counts in naive UTC
_MICROSECOND = dt.timedelta(microseconds=1)


class ClockReversal(ClockError, ValueError):
    """Report an attempt to move time backwards."""


def freezegun_api() -> Any:  # noqa: ANN401 - freezegun is optional, so untyped here
    """Return the module `freezegun.api`, or None while nobody has imported it."""
    return sys.modules.get("freezegun.api")


class _Front:
    """Stand in for what `freeze_time` returns, with a clock behind it.

    It is put over a live object of freezegun by setting the object's class, so
    that what a user holds already is what moves the clock.
    """

    step_width: float = 0.0

    @property
    def time_to_freeze(self) -> dt.datetime:
        """The present, in naive UTC as freezegun has it."""
        return _to_datetime(_present_ns(self))

    @time_to_freeze.setter
    def time_to_freeze(self, target: dt.datetime) -> None:
        self.move_to(target)

    def __call__(self) -> dt.datetime:
        """Return the present; with `auto_tick_seconds`, tick afterwards."""
        present = self.time_to_freeze
        if self.step_width:
            self.tick()
        return present

    def tick(self, delta: float | dt.timedelta | None = None) -> dt.datetime:
        """Move the clock forward, by a second or by the auto tick's step.

        Args:
            delta: Seconds, or a timedelta.

        Raises:
            ClockReversal: `delta` is negative.

        """
        if delta is None or (self.step_width and not delta):
            delta = self.step_width or 1
        self._move(_to_duration(delta))
        return self.time_to_freeze

    def move_to(self, target_datetime: object) -> None:
        """Move the clock forward to an instant, written as for `freeze_time`.

        Raises:
            ClockReversal: The instant has passed.

        """
        target = _to_ns(freezegun_api()._parse_time_to_freeze(target_datetime))
        distance = target - _present_ns(self)
        # The microsecond that the calendar shows has begun already.
        same = target == _to_ns(self.time_to_freeze)
        self._move(0 if same else distance)

    def _move(self, ns: int) -> None:
        if ns < 0:
            present = _present_ns(self)
            msg = (
                f"time cannot go back from {_to_datetime(present)} to "
                f"{_to_datetime(present + ns)}: timers of the loop have fired "
                "already; move forward, or begin another freeze_time"
            )
            raise ClockReversal(msg)
        clock, _ = _behind(self)
        # Whole seconds apart: a float holds no nanosecond of a decade.
        seconds, rest = divmod(ns, _SECOND)
        clock.jump_forward(seconds)
        if rest:
            clock.jump_forward(rest / _SECOND)


def place_over(front: object, clock: VirtualClock, frozen_ns: int) -> int:
    """Let `front` show and move `clock` instead of its own time.

    Args:
        front: What freezegun's `start` returned.
        clock: The active clock.
        frozen_ns: What the front shows now, in nanoseconds since 1970.

    Returns:
        The epoch that the clock needs to show the same.

    """
    epoch = frozen_ns - _elapsed(clock)
    kind = type(front)
    state = vars(front)
    state.pop("time_to_freeze", None)
    state["_tta_behind"] = (clock, epoch)
    front.__class__ = type(kind.__name__, (_Front, kind), {})
    return epoch


def take_away(front: object) -> None:
    """Give `front` its own time back; it goes on from where the clock is."""
    present = _to_datetime(_present_ns(front))
    front.__class__ = type(front).__mro__[2]
    state = vars(front)
    del state["_tta_behind"]
    state["time_to_freeze"] = present
    if "start" in state:
        # One that ticks counts from the real instant at which it was set.
        state["start"] = freezegun_api().real_datetime.now()


def frozen_at(front: Any) -> int:  # noqa: ANN401 - a freezegun object
    """Return what one of freezegun's own objects shows, in nanoseconds."""
    ticks = isinstance(front, freezegun_api().TickingDateTimeFactory)
    return _to_ns(front() if ticks else front.time_to_freeze)


def _behind(front: object) -> tuple[VirtualClock, int]:
    return cast("tuple[VirtualClock, int]", vars(front)["_tta_behind"])


def _present_ns(front: object) -> int:
    clock, epoch = _behind(front)
    return epoch + _elapsed(clock)


def _elapsed(clock: VirtualClock) -> int:
    return clock.wall_ns() - clock.epoch_ns


def _to_ns(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000


def _to_datetime(ns: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=ns // 1000)


def _to_duration(delta: float | dt.timedelta) -> int:
    if isinstance(delta, dt.timedelta):
        return delta // _MICROSECOND * 1000
    if isinstance(delta, int):
        return delta * _SECOND
    return round(delta * _SECOND)
