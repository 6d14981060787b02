"""Let freezegun set and move an active clock instead of freezing time beside it.

A `freeze_time` that begins inside a clock patches nothing: it tells the clock
where its wall starts, and what it returns moves the clock. One that began before
keeps its patches, shows the clock's time while the clock is active, and goes on
from there afterwards.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_tta.clock import active, functions
from pytest_tta.clock.fronts import (
    ClockReversal,
    freezegun_api,
    frozen_at,
    place_over,
    take_away,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_tta.clock.clock import VirtualClock

    Zone = Callable[[dt.timedelta], AbstractContextManager[object]]

__all__ = ["ClockReversal", "enter", "is_freezing", "leave", "prepare"]


class _Freeze:
    """Tell about one freeze that the active clock answers for.

    Attributes:
        freeze: freezegun's object whose `start` was called; None if it was
            called before the clock.
        front: What `start` returned.
        light: Whether freezegun patched nothing for it.
        epoch_ns: The clock's epoch before it.
        undo: What to close at its end.

    """

    __slots__ = ("epoch_ns", "freeze", "front", "light", "undo")

    def __init__(self, freeze: Any, front: Any, light: bool, epoch_ns: int) -> None:  # noqa: ANN401, FBT001 - freezegun's objects; fields in order
        self.freeze = freeze
        self.front = front
        self.light = light
        self.epoch_ns = epoch_ns
        self.undo = ExitStack()


class _Session:
    """Answer for freezegun while one clock is active."""

    def __init__(self, clock: VirtualClock, zone: Zone | None) -> None:
        self._clock = clock
        self._zone = zone
        self._freezes: dict[int, _Freeze] = {}

    def adopt_running(self) -> None:
        """Take over the freezes that began before the clock."""
        for depth, front in enumerate(freezegun_api().freeze_factories, start=1):
            shown = frozen_at(front)
            self._freezes[depth] = _Freeze(
                freeze=None, front=front, light=False, epoch_ns=self._clock.epoch_ns
            )
            self._clock.set_epoch(place_over(front, self._clock, shown))
        self._tell_auto_tick()

    def start(self, freeze: Any, real_start: Callable[[Any], Any]) -> object:  # noqa: ANN401 - a freezegun object
        """Begin a freeze inside the clock."""
        light = self._zone is not None and all(f.light for f in self._freezes.values())
        front = _push(freeze) if light else real_start(freeze)
        entry = _Freeze(freeze, front, light, self._clock.epoch_ns)
        self._freezes[_depth()] = entry
        if light and self._zone is not None:
            entry.undo.enter_context(self._zone(freeze.tz_offset))
        self._clock.set_epoch(place_over(front, self._clock, frozen_at(front)))
        self._tell_auto_tick()
        return front

    def stop(self, freeze: Any, real_stop: Callable[[Any], None]) -> None:  # noqa: ANN401 - a freezegun object
        """End the latest freeze; the wall goes on from where it was before it."""
        entry = self._freezes.pop(_depth(), None)
        if entry is not None:
            entry.undo.close()
            take_away(entry.front)
            self._clock.set_epoch(entry.epoch_ns)
        if entry is not None and entry.light:
            _drop(-1)
        else:
            real_stop(freeze)
        self._tell_auto_tick()

    def leave(self) -> None:
        """Hand the freezes that still go on back to freezegun."""
        functions.set_on_read(None)
        entries = sorted(self._freezes.items())
        self._freezes.clear()
        for _, entry in reversed(entries):
            entry.undo.close()
        for _, entry in entries:
            take_away(entry.front)
        light = [(depth, entry) for depth, entry in entries if entry.light]
        for depth, _ in reversed(light):
            _drop(depth - 1)
        for _, entry in light:
            entry.freeze.start()
            freezegun_api().freeze_factories[-1] = entry.front

    def _tell_auto_tick(self) -> None:
        fronts = [entry.front for entry in self._freezes.values()]
        steps = bool(fronts) and bool(fronts[-1].step_width)
        functions.set_on_read(fronts[-1].tick if steps else None)


def _depth() -> int:
    return len(freezegun_api().freeze_factories)


def _push(freeze: Any) -> object:  # noqa: ANN401 - a freezegun object
    """Do of freezegun's `start` what patches nothing."""
    api = freezegun_api()
    front = _new_front(freeze)
    api.freeze_factories.append(front)
    api.tz_offsets.append(freeze.tz_offset)
    api.ignore_lists.append(freeze.ignore)
    api.tick_flags.append(freeze.tick)
    return front


def _new_front(freeze: Any) -> object:  # noqa: ANN401 - a freezegun object
    api, start = freezegun_api(), freeze.time_to_freeze
    if freeze.auto_tick_seconds:
        return api.StepTickTimeFactory(start, freeze.auto_tick_seconds)
    return api.FrozenDateTimeFactory(start)


def _drop(index: int) -> None:
    api = freezegun_api()
    for stack in (
        api.freeze_factories,
        api.tz_offsets,
        api.ignore_lists,
        api.tick_flags,
    ):
        stack.pop(index)


_session: _Session | None = None
_after_last_stop: Callable[[], None] | None = None


def enter(clock: VirtualClock, zone: Zone | None) -> None:
    """Let freezegun drive `clock` from now on.

    Args:
        clock: The clock that becomes active.
        zone: Opens a context in which local time lies at the given offset from
            UTC; None if the wall clock does not follow by itself, so that
            freezegun has to patch.

    """
    global _session  # noqa: PLW0603 - one clock per process
    _session = _Session(clock, zone)
    if is_freezing():
        _session.adopt_running()


def leave() -> None:
    """Give freezegun its own time back."""
    global _session
    session, _session = _session, None
    if session is not None:
        session.leave()


def is_freezing() -> bool:
    """Tell whether freezegun has frozen time."""
    api = freezegun_api()
    return api is not None and bool(api.freeze_factories)


def prepare(replace_again: Callable[[], None]) -> None:
    """Make freezegun ask us, if it is loaded; further calls do nothing.

    Args:
        replace_again: Called when a freeze that began before the trampolines
            were there has put back what it had found.

    """
    global _after_last_stop  # noqa: PLW0603 - one freezegun per process
    api = freezegun_api()
    if api is None or hasattr(api._freeze_time.start, "__tta_wrapped__"):
        return
    if api.freeze_factories:
        _after_last_stop = replace_again
    _know_trampolines(api)
    _wrap(api)


def _know_trampolines(api: Any) -> None:  # noqa: ANN401 - freezegun's module
    """Let freezegun patch our trampolines as it patches the builtins."""
    ours = (functions.TRAMPOLINES, functions.WALL_TRAMPOLINES)
    api._real_time_object_ids.update(id(each) for d in ours for each in d.values())
    api._GLOBAL_MODULES_CACHE.clear()


def _wrap(api: Any) -> None:  # noqa: ANN401 - freezegun's module
    kind = api._freeze_time
    kind.start = _wrapped_start(kind.start)
    kind.stop = _wrapped_stop(kind.stop)
    for name in ("monotonic", "monotonic_ns"):
        fake = f"_get_fake_{name}"
        setattr(api, fake, _wrapped_reading(name, getattr(api, fake)))


def _wrapped_start(real_start: Callable[[Any], Any]) -> Callable[[Any], object]:
    def start(self: Any) -> object:  # noqa: ANN401 - a freezegun object
        if _session is None:
            return real_start(self)
        return _session.start(self, real_start)

    start.__doc__ = real_start.__doc__
    start.__tta_wrapped__ = real_start  # type: ignore[attr-defined]
    return start


def _wrapped_stop(real_stop: Callable[[Any], None]) -> Callable[[Any], None]:
    def stop(self: Any) -> None:  # noqa: ANN401 - a freezegun object
        global _after_last_stop
        if _session is None:
            real_stop(self)
        else:
            _session.stop(self, real_stop)
        if _after_last_stop is not None and not is_freezing():
            again, _after_last_stop = _after_last_stop, None
            again()

    stop.__doc__ = real_stop.__doc__
    return stop


def _wrapped_reading(name: str, frozen: Callable[[], float]) -> Callable[[], float]:
    """Read the loop's time, not freezegun's, where a clock is active."""
    virtual: Callable[[], float] = functions.TRAMPOLINES[name]

    def reading() -> float:
        clock = active.clock
        if clock is None or not clock.threads.owns_current():
            return frozen()
        return virtual()

    return reading
