"""The state machine of a rate limit."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pytest_tta.properties.machines.machine import Machine, durations
from tta_primitives.context import WorkflowContext
from tta_primitives.recovery.classify import check_filter, matches
from tta_primitives.signature import of_both

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_tta.properties.machines.world import Caller, Load

__all__ = ["RateLimitMachine"]

# Sums of seconds are a little off what they should be.
_SLACK = Fraction(1, 1_000_000)

_Event: TypeAlias = "tuple[Fraction, Fraction | None]"
"""A moment at which a call started, or, with its end, one at which a penalty began."""


class TooManyRequests(ConnectionError):
    """What a server says that wants to be left alone for a while.

    Args:
        seconds: For how long.

    Attributes:
        status_code: 429.
        retry_after: For how long, in seconds.
    """

    status_code = 429

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many requests, come back in {seconds:g} s")
        self.retry_after = seconds


class _Lane:
    """What the model knows of the calls of one key.

    Attributes:
        past: Starts and penalties, in order.
        queue: Who waits, and until when.
    """

    def __init__(self) -> None:
        self.past: list[_Event] = []
        self.queue: dict[Caller, Fraction | None] = {}


class RateLimitMachine(Machine):
    """Find what a rate limit does wrong: too early, too late, out of turn, not at all.

    The model computes from the starts so far, in fractions, when the next call may
    start. Calls of a key start in the order in which they came; one that could not
    start within `max_wait` is rejected at once, or when a penalty makes it too late;
    one that is cancelled while it waits leaves its place to those behind it. A server
    that complains of too many requests closes the limit of that key for a while.

        class TestLimit(RateLimitMachine):
            def make(self, step):
                return RateLimitPrimitive(step, rate=2, period=1)

        TestLimitCase = TestLimit.TestCase
    """

    _known: ClassVar[dict[str, Any]] = {
        "rate": 1.0,
        "period": 1.0,
        "algorithm": "token_bucket",
        "burst": None,
        "cost": 1,
        "max_wait": None,
        "key": None,
        "penalize_on": None,
    }

    def __init__(self) -> None:
        super().__init__()
        self._lanes: dict[object, _Lane] = {}
        self._rate, self._period, self._cost = (
            Fraction(str(self.options[name])) for name in ("rate", "period", "cost")
        )
        algorithm = self.options["algorithm"]
        self._due: Callable[[list[_Event], Fraction], Fraction] = {
            "token_bucket": self._by_tokens,
            "leaky_bucket": self._by_gaps,
            "sliding_window": self._by_window,
        }[algorithm]
        key = self.options["key"]
        self._ask_key = None if key is None else of_both("key", key)
        self._started: dict[Caller, Fraction] = {}

    def _moments(self) -> Sequence[float]:
        period, rate = float(self.options["period"]), self.options["rate"]
        wait = self.options["max_wait"]
        return (period / rate, period, period / 2, *([wait] if wait else []))

    @precondition(lambda self: self._world.loads)
    @rule(which=st.integers(0, 7), seconds=st.runner().flatmap(durations))
    def complain(self, which: int, seconds: float) -> None:
        """Let one of the step's executions fail, with a time to stay away."""
        self._answered(which, TooManyRequests(seconds))

    def _lane_of(self, caller: Caller) -> _Lane:
        ask = self._ask_key
        key = None if ask is None else ask(caller.value, WorkflowContext())
        return self._lanes.setdefault(key, _Lane())

    def _admit(self, caller: Caller) -> None:
        lane, now, wait = self._lane_of(caller), Fraction(self.now), self._wait()
        latest = None if wait is None else now + wait
        if not lane.queue and self._due(lane.past, now) <= now + _SLACK:
            self._start(lane, caller, now)
        elif latest is not None and self._next(lane, now) > latest + _SLACK:
            said = f"it would have to wait for more than {float(wait or 0):g} s"
            caller.expect("rejected", said)
        elif not self._fits(lane, now):
            caller.expect("rejected", "no more calls may wait")
        else:
            caller.expect("waiting", f"{len(lane.queue)} are before it")
            lane.queue[caller] = latest

    def _wait(self) -> Fraction | None:
        wait = self.options["max_wait"]
        return None if wait is None else Fraction(str(wait))

    def _fits(self, lane: _Lane, now: Fraction) -> bool:
        """Tell whether one more may wait: a leaky bucket has room for so many units."""
        burst = self.options["burst"]
        if self.options["algorithm"] != "leaky_bucket" or burst is None:
            return True
        free = self._by_gaps(lane.past, now)
        left = max(Fraction(0), free - max(now, _closed_until(lane.past)))
        inside = left * self._rate / self._period
        waiting = (len(lane.queue) + 1) * self._cost
        return inside + waiting <= Fraction(str(burst)) + _SLACK

    def _start(self, lane: _Lane, caller: Caller, at: Fraction) -> None:
        lane.past.append((at, None))
        self._started[caller] = at
        caller.expect("inside", f"it may start at {float(at):g} s")

    def _next(self, lane: _Lane, now: Fraction) -> Fraction:
        """Return when a call may start after all who wait."""
        past = list(lane.past)
        for _ in lane.queue:
            past.append((self._due(past, now), None))
        return self._due(past, now)

    def _by_tokens(self, past: list[_Event], now: Fraction) -> Fraction:
        """Return when a bucket that fills at the rate has enough for one more."""
        burst = self.options["burst"]
        most = max(Fraction(1), self._rate) if burst is None else Fraction(str(burst))
        tokens, since = most, Fraction(0)
        speed = self._rate / self._period
        for at, until in past:
            tokens = min(most, tokens + (at - since) * speed)
            since = at
            if until is None:
                tokens -= self._cost
            else:  # There is one unit in it when the penalty is over.
                tokens = min(tokens, min(most, Fraction(1)) - (until - at) * speed)
        due = since + (self._cost - tokens) / speed
        return max(now, since, _closed_until(past), due)

    def _by_gaps(self, past: list[_Event], now: Fraction) -> Fraction:
        """Return when what the last one has put in has run out."""
        free = Fraction(0)
        for at, until in past:
            gap = self._cost * self._period / self._rate
            free = at + gap if until is None else max(free, until)
        return max(now, free)

    def _by_window(self, past: list[_Event], now: Fraction) -> Fraction:
        """Return when the last period has room for one more."""
        starts = [at for at, until in past if until is None]
        first = max([now, _closed_until(past), *starts[-1:]])
        many = int(self._rate / self._cost)
        if len(starts) < many:
            return first
        return max(first, starts[-many] + self._period)

    def _ended(self, load: Load, result: object, *, is_ok: bool) -> None:
        load.caller.expect(
            "returned" if is_ok else "failed", "the step has answered", result
        )
        pause = None if is_ok else self._pause(load.future.exception())
        if pause is not None:
            self._close(self._lane_of(load.caller), pause)

    def _pause(self, error: BaseException | None) -> Fraction | None:
        """Return for how long an error closes the limit; None for not at all."""
        asked = getattr(error, "retry_after", None)
        wanted = self.options["penalize_on"]
        if wanted is not None:
            errors = check_filter("penalize_on", wanted)
            if not matches(errors, cast("Exception", error)):
                return None
        if asked is not None:
            return Fraction(asked)
        return None if wanted is None else self._period / self._rate

    def _close(self, lane: _Lane, pause: Fraction) -> None:
        """Let nobody start for a while, and turn away those who cannot wait so long."""
        now = Fraction(self.now)
        lane.past.append((now, now + pause))
        past = list(lane.past)
        for caller, latest in list(lane.queue.items()):
            due = self._due(past, now)
            # To the nanosecond nobody can say which of the two comes first.
            slack = -_SLACK if caller.task.done() else _SLACK
            if latest is not None and due > latest + slack:
                del lane.queue[caller]
                caller.expect("rejected", f"it could start at {float(due):g} s only")
            else:
                past.append((due, None))
        self._passed()

    def _gone(self, caller: Caller) -> None:
        self._lane_of(caller).queue.pop(caller, None)
        self._passed()

    def _passed(self) -> None:
        """Let those start whose time has come."""
        now = Fraction(self.now)
        for lane in self._lanes.values():
            while lane.queue:
                # Not before the one ahead of it has: nobody is passed by.
                due = self._due(lane.past, Fraction(0))
                if due > now + _SLACK:
                    break
                first = next(iter(lane.queue))
                del lane.queue[first]
                self._start(lane, first, due)

    def _check(self, caller: Caller) -> None:
        __tracebackhide__ = True
        super()._check(caller)
        at = self._started.get(caller)
        if at is None:
            return
        began_at = caller.loads[0].began_at
        if abs(Fraction(began_at) - at) > _SLACK:
            self._differs(caller, f"began at {began_at:g} s, not {float(at):g} s")


def _closed_until(past: list[_Event]) -> Fraction:
    """Return when the last penalty is over."""
    return max([until for _, until in past if until is not None], default=Fraction(0))
