"""A rate limit under random callers, costs and cancellations, beside a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Rejected
from tests.recovery.rate_tools import tenant
from tta_primitives import WorkflowContext
from tta_primitives.errors import RateLimitExceededError
from tta_primitives.recovery import RateLimitPrimitive

RATE = 4
PAUSE = 2
KEYS = ["ada", "bob"]
BEFORE = Fraction(-(10**6))


def exact(seconds):
    """Return what a float of the clock stands for, in whole nanoseconds."""
    return Fraction(round(seconds * 10**9), 10**9)


@dataclass
class Place:
    """A call that the model has waiting."""

    number: int
    cost: int
    limit: Fraction | None
    is_bad: bool


@dataclass
class Key:
    """What the model knows of a key: all that has started, and who waits."""

    starts: list[tuple[Fraction, int]] = field(default_factory=list)
    # When penalties were given, and until when.
    penalties: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    queue: list[Place] = field(default_factory=list)


class Model:
    """What a rate limit does, by going through all that ever happened, each time."""

    def __init__(self, algorithm):
        self.algorithm = algorithm
        self.keys = {key: Key() for key in KEYS}
        self.now = Fraction(0)

    def due(self, key, now, cost):
        """Return when a call may start that nobody is ahead of."""
        closed = max((until for _, until in key.penalties), default=now)
        return max(now, closed, getattr(self, f"_{self.algorithm}")(key, now, cost))

    def _events(self, key):
        starts = [(at, 1, cost) for at, cost in key.starts]
        penalties = [(at, 2, until) for at, until in key.penalties]
        # What starts and is told to wait in one moment started first.
        return sorted(starts + penalties)

    def _token_bucket(self, key, now, cost):
        full_at = BEFORE
        for at, kind, value in self._events(key):
            if kind == 1:
                full_at = max(full_at, at) + Fraction(value, RATE)
            else:
                full_at = max(full_at, value + Fraction(RATE - 1, RATE))
        return full_at - Fraction(RATE - cost, RATE)

    def _leaky_bucket(self, key, now, cost):
        free_at = BEFORE
        for at, kind, value in self._events(key):
            if kind == 1:
                free_at = max(free_at, at) + Fraction(value, RATE)
            else:
                free_at = max(free_at, value)
        return free_at

    def _sliding_window(self, key, now, cost):
        closed = max((until for _, until in key.penalties), default=now)
        moments = {now, closed, *(at + 1 for at, _ in key.starts)}
        for moment in sorted(moments):
            inside = sum(taken for at, taken in key.starts if at + 1 > moment)
            if moment >= max(now, closed) and inside + cost <= RATE:
                return moment
        raise AssertionError

    def due_behind(self, key, now, cost):
        """Return when a call may start that comes after all who wait."""
        started = len(key.starts)
        for place in key.queue:
            now = self.due(key, now, place.cost)
            key.starts.append((now, place.cost))
        due = self.due(key, now, cost)
        del key.starts[started:]
        return due

    def run(self, until):
        """Let time pass; yield who starts and who is turned away, and when."""
        while True:
            waiting = [key for key in self.keys.values() if key.queue]
            first = min(waiting, key=self._next, default=None)
            if first is None or self._next(first) > until:
                self.now = until
                return
            self.now = self._next(first)
            yield from self._start(first, self.now)

    def _next(self, key):
        return self.due(key, self.now, key.queue[0].cost)

    def _start(self, key, now):
        bad = 0
        while key.queue and self.due(key, now, key.queue[0].cost) <= now:
            place = key.queue.pop(0)
            key.starts.append((now, place.cost))
            bad += place.is_bad
            yield "start", place.number, now
        for _ in range(bad):
            yield from self.penalize(key, now)

    def penalize(self, key, now):
        """Close a key; yield who is turned away."""
        key.penalties.append((now, now + PAUSE))
        started, at, staying = len(key.starts), now, []
        for place in key.queue:
            due = self.due(key, at, place.cost)
            if place.limit is not None and due >= place.limit:
                yield "late", place.number, due - now
            else:
                staying.append(place)
                at = due
                key.starts.append((at, place.cost))
        del key.starts[started:]
        key.queue = staying


class RateMachine(RuleBasedStateMachine):
    """Callers come, wait, leave and start; some are told by the server to slow down.

    The model knows nothing of tasks, timers or units: it has the list of all starts,
    and reckons from the first one each time.
    """

    algorithm: ClassVar[str]
    callers = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.clock.__enter__()
        self.loop = self.clock.new_loop()
        self.limit = RateLimitPrimitive(
            self.step,
            rate=RATE,
            algorithm=self.algorithm,
            cost=lambda value, context: value[1],
            key=tenant,
        )
        self.model = Model(self.algorithm)
        self.tasks: dict[int, asyncio.Task] = {}
        self.key_of: dict[int, str] = {}
        self.seen: list[tuple[int, Fraction]] = []
        self.expected: list[tuple[int, Fraction]] = []
        self.numbers = 0

    async def step(self, value):
        number, _, is_bad = value
        self.seen.append((number, self.now))
        if is_bad:
            raise Rejected(status_code=429, retry_after=PAUSE)

    @property
    def now(self):
        return exact(self.loop.time())

    def settle(self) -> None:
        """Let everything run that can run without time passing."""
        self.loop.run_until_complete(self._quiet())

    async def _quiet(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def follow(self, happened) -> None:
        """Check what the model says has happened."""
        for what, number, when in happened:
            if what == "start":
                self.expected.append((number, when))
            else:
                error = self.tasks[number].exception()
                assert isinstance(error, RateLimitExceededError)
                assert exact(error.retry_after) == when

    @rule(
        target=callers,
        key=st.sampled_from(KEYS),
        cost=st.integers(1, RATE),
        patience=st.none() | st.sampled_from([0.25, 1, 3]),
        is_bad=st.sampled_from([False] * 5 + [True]),
    )
    def call(self, key, cost, patience, is_bad):
        """A call starts at once, waits, or is told how long it would have to."""
        number, now = self.numbers, self.now
        self.numbers += 1
        self.key_of[number] = key
        state = self.model.keys[key]
        limit = None if patience is None else now + exact(patience)
        deadline = None if limit is None else float(limit)
        context = WorkflowContext(session_id=key, deadline=deadline)
        coroutine = self.limit.execute((number, cost, is_bad), context)
        task = self.tasks[number] = self.loop.create_task(coroutine)
        due = self.model.due_behind(state, now, cost)
        self.settle()
        if due > now and limit is not None and due >= limit:
            error = task.exception()
            assert isinstance(error, RateLimitExceededError)
            assert exact(error.retry_after) == due - now
        else:
            state.queue.append(Place(number, cost, limit, is_bad))
            self.follow(self.model.run(now))
        return number

    @rule(number=consumes(callers))
    def cancel(self, number) -> None:
        """A caller leaves; those behind it move up."""
        self.tasks[number].cancel()
        self.settle()
        self.leave(number)
        self.follow(self.model.run(self.now))

    def leave(self, number) -> None:
        state = self.model.keys[self.key_of[number]]
        if any(place.number == number for place in state.queue):
            assert self.tasks[number].cancelled()
            state.queue = [p for p in state.queue if p.number != number]

    @rule(number=consumes(callers))
    def cancel_when_it_starts(self, number) -> None:
        """A caller leaves in the very tick in which it could have started."""
        state = self.model.keys[self.key_of[number]]
        if not (state.queue and state.queue[0].number == number):
            return
        due = self.model.due(state, self.now, state.queue[0].cost)
        self.loop.call_at(float(due), self.tasks[number].cancel)
        # Others may start before, of the other key.
        happened = list(self.model.run(due - Fraction(1, 10**9)))
        self.loop.run_until_complete(asyncio.sleep(float(due) - self.loop.time()))
        self.settle()
        self.follow(happened)
        self.model.now = due
        self.leave(number)
        self.follow(self.model.run(due))

    @rule(seconds=st.sampled_from([0.05, 0.25, 0.3, 1, 2.5]))
    def wait(self, seconds) -> None:
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.settle()
        self.follow(self.model.run(self.now))

    @invariant()
    def starts_are_those_of_the_model(self) -> None:
        """Who started, when, and in which order for each key; and who still waits."""
        for key in KEYS:
            seen, expected = (
                [one for one in starts if self.key_of[one[0]] == key]
                for starts in (self.seen, self.expected)
            )
            assert seen == expected
        waiting = sum(len(key.queue) for key in self.model.keys.values())
        assert self.limit.stats.waiting == waiting
        assert self.limit.stats.admitted == len(self.expected)

    @invariant()
    def what_is_kept_is_what_waits(self) -> None:
        """No place is forgotten, and no more timers than queues are set."""
        for key, lane in self._lanes():
            queue = self.model.keys[key].queue
            assert [place.cost for place in lane.waiting or ()] == [
                place.cost for place in queue
            ]
            assert lane.queued == sum(place.cost for place in queue)
            assert (lane._timer is not None) == bool(queue)

    def _lanes(self):
        every = self.limit._by_loop._by_loop.values()
        return [pair for lanes in every for pair in lanes.by_key.items()]

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.settle()
        for task in self.tasks.values():
            if not task.cancelled():
                task.exception()
        self.loop.run_until_complete(asyncio.sleep(10))
        assert (self.limit.stats.waiting, self.limit.stats.keys) == (0, 0)
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()
        self.clock.__exit__(None, None, None)


class TokenBucketMachine(RateMachine):
    """The model of a token bucket."""

    algorithm = "token_bucket"


class LeakyBucketMachine(RateMachine):
    """The model of a leaky bucket."""

    algorithm = "leaky_bucket"


class SlidingWindowMachine(RateMachine):
    """The model of a sliding window."""

    algorithm = "sliding_window"


MACHINES = [TokenBucketMachine, LeakyBucketMachine, SlidingWindowMachine]
SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("machine", MACHINES)
def test_limit_and_model_agree(machine):
    """Whatever happens in whatever order."""
    run_state_machine_as_test(machine, settings=SETTINGS)
