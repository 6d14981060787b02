"""The state machine of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from hypothesis import strategies as st
from hypothesis.stateful import rule

from pytest_tta.properties.machines.machine import Machine
from tta_primitives.performance.cache import CachePrimitive
from tta_primitives.recovery.classify import check_filter, matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.properties.machines.world import Caller, Load
    from tta_primitives.performance.policy import TagFunction

__all__ = ["CacheMachine"]

_KEYS = 3
_WINDOWS = ("ttl", "stale_ttl", "stale_if_error", "early_refresh")


class _Entry(NamedTuple):
    """What is kept of one key.

    Attributes:
        value: The value.
        fresh_until: When it becomes stale.
        sure_until: Until when it is fresh for certain: chance may shorten its life.
        tags: What forgets it besides its key.
    """

    value: object
    fresh_until: float
    sure_until: float
    tags: tuple[str, ...]


class _Flight:
    """One load: who waits for it, and what becomes of it.

    Attributes:
        key: Of what.
        waiting: Who is to be answered.
        in_background: Whether it goes on when nobody waits for it.
        is_void: Whether the key was invalidated since, so that it is not kept.
    """

    def __init__(self, key: int, *, in_background: bool) -> None:
        self.key = key
        self.waiting: list[Caller] = []
        self.in_background = in_background
        self.is_void = False


class CacheMachine(Machine):
    """Find what a cache does wrong: stale hits, loads too many, wrong values, leaks.

    The model: a value is returned without a load while it is fresh, and never later
    than `ttl` and the stale windows allow; callers who want the same share one load,
    which is cancelled with the last of them; a load that fails is not kept, or its
    error is for as long as `negative_ttl` says; a load is not kept during which its key
    was invalidated, or a tag that it could have. With `ttl_jitter` a value lives as
    long as its ttl at most, and at least as long as that leaves.

        class TestCache(CacheMachine):
            def make(self, step):
                return CachePrimitive(step, ttl=60)

        TestCacheCase = TestCache.TestCase
    """

    _known: ClassVar[dict[str, Any]] = {
        "ttl": 0.0,
        "stale_ttl": 0.0,
        "stale_if_error": 0.0,
        "early_refresh": 0.0,
        "single_flight": True,
        "negative_ttl": 0.0,
        "negative_on": (),
        "ttl_jitter": 0.0,
        "tags": (),
        "copy": "auto",
        "max_size": 1024,
    }

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[int, _Entry] = {}
        # The loads under way, in the order in which they began.
        self._flights: list[_Flight] = []
        self._kept_errors = check_filter("negative_on", self.options["negative_on"])
        # Until when the error of a key is remembered.
        self._errors: dict[int, float] = {}

    def _read_options(self) -> dict[str, Any]:
        options = super()._read_options()
        if callable(options["ttl"]) or options["max_size"] < _KEYS:
            msg = (
                f"{type(self).__name__} has no model of {self.primitive!r}: it knows a "
                f"ttl in seconds, and a max_size of at least {_KEYS}"
            )
            raise TypeError(msg)
        windows = [options[name] for name in _WINDOWS[1:]]
        if options["ttl_jitter"] and any(windows):
            msg = (
                f"{type(self).__name__} has no model of {self.primitive!r}: it knows "
                f"ttl_jitter only without {', '.join(_WINDOWS[1:])}"
            )
            raise TypeError(msg)
        return options

    def _moments(self) -> Sequence[float]:
        names = (*_WINDOWS, "negative_ttl")
        times = [float(self.options[name]) for name in names if self.options[name]]
        ttl = self.options["ttl"]
        return [*times, *(one / 2 for one in times), 2 * ttl] if ttl else [1.0]

    @rule(key=st.integers(0, _KEYS - 1))
    def invalidate(self, key: int) -> None:
        """Forget what is remembered for an input."""
        primitive = self.primitive
        if not isinstance(primitive, CachePrimitive):
            return
        self._world.run(lambda: primitive.invalidate(key))
        self._entries.pop(key, None)
        self._errors.pop(key, None)
        for flight in self._flights:
            if flight.key == key:
                flight.is_void = True

    @rule(which=st.integers(0, _KEYS - 1))
    def invalidate_tags(self, which: int) -> None:
        """Forget everything that has one of the tags that there are."""
        primitive, tags = self.primitive, self._tags_so_far()
        if not isinstance(primitive, CachePrimitive) or not tags:
            return
        tag = tags[which % len(tags)]
        self._world.run(lambda: primitive.invalidate_tags(tag))
        for key, entry in list(self._entries.items()):
            if tag in entry.tags:
                del self._entries[key]
        # What a load will be tagged with is not known before it has returned.
        for flight in self._flights:
            flight.is_void = True

    def _tags_so_far(self) -> list[str]:
        given = self.options["tags"]
        found = () if callable(given) else given
        for entry in self._entries.values():
            found = (*found, *entry.tags)
        return sorted(set(found))

    def _tags_of(self, key: int, value: object) -> tuple[str, ...]:
        given = self.options["tags"]
        if not callable(given):
            return cast("tuple[str, ...]", given)
        return tuple(cast("TagFunction", given)(key, value))

    def _standing(self, caller: Caller) -> str:
        standing = super()._standing(caller)
        # Who began a load is of no importance: all who want it wait for it.
        return "waiting" if standing == "inside" else standing

    def _admit(self, caller: Caller) -> None:
        key, entry = caller.value, self._entry_for(caller)
        fresh = 0.0 if entry is None else entry.fresh_until - self.now
        if entry is not None and fresh > 0:
            until = f"its value is fresh until {entry.fresh_until:g} s"
            caller.expect("returned", until, entry.value)
            if fresh <= self.options["early_refresh"]:
                self._refresh(key)
        elif entry is not None and -fresh < self.options["stale_ttl"]:
            self._refresh(key)
            caller.expect("returned", "its value may be stale for a while", entry.value)
        elif self._errors.get(key, 0.0) > self.now:
            self._fail(caller, f"its error is kept until {self._errors[key]:g} s")
        else:
            flight = self._flight_of(key)
            if flight is None or not self.options["single_flight"]:
                flight = _Flight(key, in_background=False)
                self._flights.append(flight)
            flight.waiting.append(caller)
            caller.expect("waiting", "there is no fresh value, and it is being loaded")

    def _entry_for(self, caller: Caller) -> _Entry | None:
        """Return what is kept; where chance decides whether it is, what has become."""
        key = caller.value
        entry = self._entries.get(key)
        if entry is None or not entry.sure_until <= self.now < entry.fresh_until:
            return entry
        if caller.task.done():
            self._entries[key] = entry = entry._replace(sure_until=self.now)
            return entry
        del self._entries[key]
        return None

    def _fail(self, caller: Caller, why: str) -> None:
        """Say that a call fails, unless a stale value serves."""
        entry = self._entries.get(caller.value)
        if entry is not None and self._may_replace(entry):
            caller.expect("returned", "a stale value serves", entry.value)
        else:
            caller.expect("failed", why)

    def _flight_of(self, key: int) -> _Flight | None:
        """Return the load that a new caller joins."""
        every = reversed(self._flights)
        return next((one for one in every if one.key == key and not one.is_void), None)

    def _refresh(self, key: int) -> None:
        if self._flight_of(key) is None:
            self._flights.append(_Flight(key, in_background=True))

    def _ended(self, load: Load, result: object, *, is_ok: bool) -> None:
        flight = self._flights.pop(self._index_of(load))
        if not flight.is_void:
            if is_ok:
                self._keep(flight.key, result)
            elif matches(self._kept_errors, _error_of(load)):
                self._errors[flight.key] = self.now + self.options["negative_ttl"]
        for caller in flight.waiting:
            if is_ok:
                caller.expect("returned", "its load has returned", result)
            else:
                self._fail(caller, "its load has failed")

    def _keep(self, key: int, value: object) -> None:
        self._errors.pop(key, None)
        ttl, jitter = self.options["ttl"], self.options["ttl_jitter"]
        if ttl:
            until = round(self.now + ttl, 9)
            sure = until - ttl * jitter if jitter else until
            tags = self._tags_of(key, value)
            self._entries[key] = _Entry(value, until, sure, tags)

    def _may_replace(self, entry: _Entry) -> bool:
        """Tell whether a value may be returned although it could not be loaded."""
        window = self.options["stale_if_error"]
        return bool(window) and self.now - entry.fresh_until < window

    def _index_of(self, load: Load) -> int:
        """Return which flight an execution of the step belongs to."""
        # It is over by now: those of its key that are under way and older than it come
        # before it among the flights as well.
        older = sum(
            one.value == load.value
            for one in self._world.loads
            if one.number < load.number
        )
        places = [i for i, one in enumerate(self._flights) if one.key == load.value]
        return places[older]

    def _gone(self, caller: Caller) -> None:
        for flight in list(self._flights):
            if caller in flight.waiting:
                flight.waiting.remove(caller)
                if not flight.waiting and not flight.in_background:
                    self._flights.remove(flight)

    def _passed(self) -> None:
        pass  # Nothing happens unless somebody calls.

    def _compare(self) -> None:
        __tracebackhide__ = True
        super()._compare()
        loads = sorted(load.value for load in self._world.loads)
        expected = sorted(flight.key for flight in self._flights)
        if loads != expected:
            msg = (
                f"{self.primitive!r} is loading {loads} at {self.now:g} s, and must be "
                f"loading {expected}"
            )
            raise AssertionError(msg)


def _error_of(load: Load) -> Exception:
    error = load.future.exception()
    return error if isinstance(error, Exception) else Exception()
