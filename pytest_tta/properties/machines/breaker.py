"""The state machine of a circuit breaker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pytest_tta.properties.machines.machine import Machine
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_tta.properties.machines.world import Caller, Load

__all__ = ["CircuitBreakerMachine"]

_SLACK = 1e-6
_LIMITS = ("threshold", "rate")
_SLICES = 10  # A window slides in steps of a tenth.


class _Ended(NamedTuple):
    """A call that has ended, in a closed circuit.

    Attributes:
        part: In which tenth of a window it did, since time began.
        is_ok: Whether it succeeded.
        is_slow: Whether it took too long.
    """

    part: int
    is_ok: bool
    is_slow: bool


class CircuitBreakerMachine(Machine):
    """Find what a circuit breaker does wrong: counting, breaks, probes, late votes.

    The model: so many failures in a row open it, or so large a part of the calls in the
    window that failed or were slow; while it is open everything is rejected; after the
    break so many probes at a time are admitted, of which one that fails or is slow
    opens it again and enough that succeed close it. A probe that is cancelled gives its
    place back, and what was admitted in one period has no vote in another.

        class TestBreaker(CircuitBreakerMachine):
            def make(self, step):
                return CircuitBreakerPrimitive(step, failure_threshold=2)

        TestBreakerCase = TestBreaker.TestCase
    """

    _known: ClassVar[dict[str, Any]] = {
        "failure_threshold": None,
        "failure_rate": None,
        "minimum_calls": 10,
        "window": 30.0,
        "slow_call_duration": None,
        "slow_call_rate": None,
        "recovery_timeout": 30.0,
        "half_open_max_calls": 1,
        "success_threshold": 1,
        "half_open_timeout": None,
    }

    def __init__(self) -> None:
        super().__init__()
        self._state = "closed"
        # Which period it is, and the one in which each call was admitted.
        self._period = 0
        self._admitted: dict[Caller, int] = {}
        self._came: dict[Caller, float] = {}
        self._ends: list[_Ended] = []
        self._failures = self._successes = self._openings = 0
        self._break = self._until = 0.0
        # The probes under way, and when each must give way to another.
        self._probes: dict[Caller, float] = {}

    def _moments(self) -> Sequence[float]:
        first = self._break_seconds(0)
        names = ["half_open_timeout", "slow_call_duration"]
        if self._is_rolling():
            names.append("window")
        asked = [self._seconds(name) for name in names]
        times = [one for one in asked if one is not None]
        return (first, first / 2, 2 * first, *times, *(one / 2 for one in times))

    def _seconds(self, name: str) -> float | None:
        """Return an option that is a time; None if it is not given."""
        value: Any = self.options[name]
        is_delta = isinstance(value, timedelta)
        return value.total_seconds() if is_delta else value  # type: ignore[no-any-return]

    def _is_rolling(self) -> bool:
        rates = (self.options["failure_rate"], self.options["slow_call_rate"])
        return rates != (None, None)

    def _break_seconds(self, openings: int) -> float:
        ask = self.options["recovery_timeout"]
        found: Any = ask(openings) if callable(ask) else ask
        return found.total_seconds() if isinstance(found, timedelta) else float(found)

    def _begin(self, state: str) -> None:
        self._state = state
        self._period += 1
        self._failures = self._successes = 0
        self._probes.clear()
        self._ends.clear()

    def _open(self) -> None:
        self._break = self._break_seconds(self._openings)
        self._openings += 1
        self._until = self.now + self._break
        self._begin("open")

    def _admit(self, caller: Caller) -> None:
        if self._state == "open" and self._until <= self.now + _SLACK:
            self._begin("half_open")
        if self._state == "open":
            caller.expect("rejected", f"it is open until {self._until:g} s")
        elif self._state == "half_open" and not self._has_room():
            most = self.options["half_open_max_calls"]
            caller.expect("rejected", f"it is half-open, and {most} probes are out")
        else:
            self._let_in(caller)

    def _has_room(self) -> bool:
        """Tell whether one more probe is admitted; the oldest may have to give way."""
        if len(self._probes) < self.options["half_open_max_calls"]:
            return True
        oldest, until = next(iter(self._probes.items()))
        if until > self.now + _SLACK:
            return False
        del self._probes[oldest]
        return True

    def _let_in(self, caller: Caller) -> None:
        self._admitted[caller] = self._period
        self._came[caller] = self.now
        if self._state == "half_open":
            limit = self._seconds("half_open_timeout") or self._break
            self._probes[caller] = self.now + limit
        caller.expect("inside", f"the circuit was {self._state} when it came")

    def _ended(self, load: Load, result: object, *, is_ok: bool) -> None:
        caller = load.caller
        has_vote = self._leave(caller)
        caller.expect(
            "returned" if is_ok else "failed", "the step has answered", result
        )
        is_slow = self._is_slow(caller)
        if has_vote and self._state == "closed":
            self._count(is_ok=is_ok, is_slow=is_slow)
        elif has_vote:
            self._judge(is_ok=is_ok and not is_slow)

    def _is_slow(self, caller: Caller) -> bool:
        limit = self._seconds("slow_call_duration")
        return limit is not None and self.now - self._came[caller] > limit + _SLACK

    def _count(self, *, is_ok: bool, is_slow: bool) -> None:
        """Count a call; open if it went wrong, and that is too much."""
        part = int(self.now / ((self._seconds("window") or 1.0) / _SLICES))
        self._ends.append(_Ended(part, is_ok, is_slow))
        self._failures = 0 if is_ok else self._failures + 1
        if (not is_ok or is_slow) and self._is_too_much(part):
            self._open()

    def _is_too_much(self, part: int) -> bool:
        """Tell whether failures in a row, or a rate in the window, open it."""
        threshold, rate = (self.options[f"failure_{one}"] for one in _LIMITS)
        if threshold is None and rate is None:
            threshold = 5
        if threshold is not None and self._failures >= threshold:
            return True
        recent = [one for one in self._ends if one.part > part - _SLICES]
        if len(recent) < self.options["minimum_calls"]:
            return False
        failed = sum(not one.is_ok for one in recent) / len(recent)
        slow = sum(one.is_slow for one in recent) / len(recent)
        slow_rate = self.options["slow_call_rate"]
        is_failing = rate is not None and failed >= rate
        return is_failing or (slow_rate is not None and slow >= slow_rate)

    def _judge(self, *, is_ok: bool) -> None:
        """Draw the consequence of a probe."""
        if not is_ok:
            self._open()
            return
        self._successes += 1
        if self._successes >= self.options["success_threshold"]:
            self._openings = 0
            self._begin("closed")

    def _gone(self, caller: Caller) -> None:
        self._leave(caller)

    def _leave(self, caller: Caller) -> bool:
        """Take a call out; tell whether it has a vote."""
        if self._admitted[caller] != self._period:
            return False
        if self._state == "half_open":
            return self._probes.pop(caller, None) is not None
        return True

    def _passed(self) -> None:
        pass  # It goes from one state to another only when somebody calls.

    def _compare(self) -> None:
        __tracebackhide__ = True
        super()._compare()
        primitive = self.primitive
        if not isinstance(primitive, CircuitBreakerPrimitive):
            return
        if primitive.state != self._state:
            msg = f"{primitive!r} is {primitive.state!r} and must be {self._state!r}"
            raise AssertionError(msg)
