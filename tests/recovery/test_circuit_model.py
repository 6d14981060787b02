"""A circuit breaker under random callers, ends and cancellations, beside a model.

The same machine drives one breaker of its own process, and two that share a Redis.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom
from tta_primitives import WorkflowContext
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitIsolatedError,
    CircuitOpenError,
)
from tta_primitives.recovery import CircuitBreakerPrimitive

WINDOW = 10  # So that a slice is a second, here and on the server's clock.
SLOW = 2
OPTIONS = {
    "row": {"failure_threshold": 3},
    "rate": {"failure_rate": 0.5, "minimum_calls": 4, "window": WINDOW},
    "slow": {
        "failure_threshold": 4,
        "failure_rate": 0.75,
        "minimum_calls": 3,
        "window": WINDOW,
        "slow_call_duration": SLOW,
        "slow_call_rate": 0.5,
    },
    "both": {
        "failure_threshold": 2,
        "failure_rate": 0.4,
        "minimum_calls": 5,
        "window": WINDOW,
    },
}
ENDS = {
    "ok": None,
    "fails": Boom(),
    "ignored": KeyError("ignored"),
    "rejected": BulkheadFullError("full"),
}


def pause(opening):
    """Return how long a break is."""
    return min(20, 5 * 2**opening)


@dataclass(eq=False)
class Ticket:
    """One admitted call of the model."""

    period: int
    began: float
    process: int


@dataclass
class Model:
    """What a breaker is, said plainly: it keeps every call and counts them anew."""

    options: dict
    most: int
    needed: int
    timeout: float | None
    state: str = "closed"
    period: int = 0
    openings: int = 0
    until: float = 0
    pause: float = 0
    successes: int = 0
    ended: list = field(default_factory=list)
    probes: list = field(default_factory=list)
    # How many failures in a row each process has heard of; others it cannot reset.
    heard: dict = field(default_factory=dict)

    def enter(self, state):
        self.state = state
        self.period += 1
        self.ended, self.probes, self.successes = [], [], 0
        self.heard = {}

    def open(self, now):
        self.pause = pause(self.openings)
        self.openings += 1
        self.until = now + self.pause
        self.enter("open")

    def close(self):
        self.openings = 0
        self.enter("closed")

    def isolate(self):
        if self.state != "isolated":
            self.openings = 0
            self.enter("isolated")

    def admit(self, now, process):
        ticket = Ticket(self.period, now, process)
        if self.state == "closed":
            self.heard[process] = self.in_a_row()
            return ticket
        if self.state == "open" and now >= self.until:
            self.enter("half_open")
        if self.state != "half_open":
            return None
        ticket.period = self.period
        if len(self.probes) >= self.most:
            oldest = self.probes[0]
            if now < oldest.began + (self.timeout or self.pause):
                return None
            self.probes.remove(oldest)
        self.probes.append(ticket)
        return ticket

    def end(self, ticket, how, now):
        is_current = ticket.period == self.period
        is_probe = ticket in self.probes
        if is_probe:
            self.probes.remove(ticket)
        if how not in {"ok", "fails"} or not is_current:
            return
        slow = "slow_call_rate" in self.options and now - ticket.began > SLOW
        failed = how == "fails"
        if self.state == "half_open" and is_probe:
            self.end_probe(now, is_bad=failed or slow)
        elif self.state == "closed":
            self.end_call(ticket, now, failed=failed, slow=slow)

    def end_probe(self, now, *, is_bad):
        if is_bad:
            self.open(now)
            return
        self.successes += 1
        if self.successes >= self.needed:
            self.close()

    def end_call(self, ticket, now, *, failed, slow):
        # A success of a process that knows of no failure is not told to the others.
        is_told = failed or slow or "window" in self.options
        if is_told or self.heard.get(ticket.process):
            self.ended.append((now, failed, slow))
            self.heard[ticket.process] = self.in_a_row()
        if (failed or slow) and self.is_too_bad(now):
            self.open(now)

    def in_a_row(self):
        row = 0
        for _, failed, _ in self.ended:
            row = row + 1 if failed else 0
        return row

    def is_too_bad(self, now):
        options = self.options
        threshold = options.get("failure_threshold")
        if threshold and self.in_a_row() >= threshold:
            return True
        # The window slides by the second.
        recent = [one for one in self.ended if int(one[0]) > int(now) - WINDOW]
        if "window" not in options or len(recent) < options["minimum_calls"]:
            return False
        failures = sum(failed for _, failed, _ in recent)
        slow = sum(slow for _, _, slow in recent)
        return failures / len(recent) >= options["failure_rate"] or slow / len(
            recent
        ) >= options.get("slow_call_rate", 2)


@dataclass(eq=False)
class Call:
    """One call under way, which the test ends by hand."""

    task: asyncio.Task
    done: asyncio.Future
    ticket: Ticket


class BreakerMachine(RuleBasedStateMachine):
    """Callers come, are admitted or rejected, and their calls end in every way."""

    processes = 1

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.clock.__enter__()
        self.loop = self.clock.new_loop()
        self.begun: list[asyncio.Future] = []
        self.calls: list[Call] = []
        self.admitted = 0
        self.rejected = 0

    @initialize(
        kind=st.sampled_from(sorted(OPTIONS)),
        most=st.integers(1, 3),
        needed=st.integers(1, 3),
        timeout=st.sampled_from([None, 3]),
    )
    def build(self, kind, most, needed, timeout) -> None:
        """Choose the options."""
        options = OPTIONS[kind]
        self.model = Model(options, most, needed, timeout)
        self.breakers = [
            CircuitBreakerPrimitive(
                self.serve,
                recovery_timeout=pause,
                half_open_max_calls=most,
                success_threshold=needed,
                half_open_timeout=timeout,
                ignore=KeyError,
                **options,
                **self.sharing(),
            )
            for _ in range(self.processes)
        ]

    def sharing(self):
        return {}

    async def serve(self, _):
        done = self.loop.create_future()
        self.begun.append(done)
        return await done

    @property
    def now(self):
        return self.loop.time()

    def settle(self) -> None:
        """Let everything run that can run without time passing."""
        self.loop.run_until_complete(self.quiet())

    async def quiet(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @rule(process=st.integers(0, 1))
    def call(self, process) -> None:
        """A caller is admitted and waits, or is rejected at once."""
        self.begin(process % self.processes)

    @rule(
        process=st.integers(0, 1),
        how=st.sampled_from([*sorted(ENDS), "fails", "fails"]),
        times=st.integers(1, 4),
        takes=st.sampled_from([0, 0, SLOW, SLOW + 0.25]),
    )
    def call_and_end(self, process, how, times, takes) -> None:
        """Some callers come one after the other, each when the last is answered."""
        for _ in range(times):
            if self.begin(process % self.processes):
                call = self.calls.pop()
                self.loop.run_until_complete(asyncio.sleep(takes))
                self.finish_call(call, how)

    def begin(self, process):
        """Begin a call; tell whether it is admitted."""
        ticket = self.model.admit(self.now, process)
        self.begun.clear()
        execution = self.breakers[process].execute("x", WorkflowContext())
        task = self.loop.create_task(execution)
        self.settle()
        if ticket is None:
            error = task.exception()
            is_isolated = self.model.state == "isolated"
            kind = CircuitIsolatedError if is_isolated else CircuitOpenError
            assert type(error) is kind
            left = self.model.until - self.now
            is_open = self.model.state == "open"
            assert error.retry_after == (pytest.approx(left) if is_open else None)
            self.rejected += 1
        else:
            assert not task.done()
            self.admitted += 1
            self.calls.append(Call(task, self.begun.pop(), ticket))
        assert self.begun == []
        self.check(process)
        return ticket is not None

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from([*sorted(ENDS), "fails", "ok", "fails"]))
    def end(self, data, how) -> None:
        """A call ends: its caller gets what the step gave, whatever that does."""
        self.finish_call(self.taken(data), how)

    def finish_call(self, call, how) -> None:
        error = ENDS[how]
        self.model.end(call.ticket, how, self.now)
        if error is None:
            call.done.set_result(how)
        else:
            call.done.set_exception(error)
        self.settle()
        if error is None:
            assert call.task.result() == how
        else:
            assert call.task.exception() is error
        self.check(call.ticket.process, is_told=how in {"ok", "fails"})

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """A caller leaves; that says nothing, and its place is free."""
        call = self.taken(data)
        self.model.end(call.ticket, "cancelled", self.now)
        call.task.cancel()
        self.settle()
        assert call.task.cancelled()

    def taken(self, data):
        call = data.draw(st.sampled_from(self.calls), label="call")
        self.calls.remove(call)
        return call

    @precondition(lambda self: (self.admitted + self.rejected) % 5 == 4)
    @rule(process=st.integers(0, 1), state=st.sampled_from(["isolated", "closed"]))
    def set_by_hand(self, process, state) -> None:
        """All calls are rejected; or admitted, and the past is forgotten."""
        process %= self.processes
        breaker = self.breakers[process]
        if state == "closed":
            self.loop.run_until_complete(breaker.close())
            self.model.close()
        else:
            self.loop.run_until_complete(breaker.isolate())
            self.model.isolate()
        self.check(process)

    @rule(seconds=st.sampled_from([0.25, 1, 2.5, 5, 9, 10]))
    def wait(self, seconds) -> None:
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.model.state == "open")
    @rule()
    def wait_for_the_break(self) -> None:
        """Time passes until the next call is a probe."""
        left = max(0, self.model.until - self.now)
        self.loop.run_until_complete(asyncio.sleep(left))

    def check(self, process, *, is_told=True) -> None:
        """The breaker that has just been asked stands as the model does."""

    @invariant()
    def counts_agree(self) -> None:
        """Calls under way, admitted and rejected are those of the model."""
        if not hasattr(self, "model"):
            return
        stats = [breaker.stats for breaker in self.breakers]
        assert sum(one.calls for one in stats) == self.admitted
        assert sum(one.rejected for one in stats) == self.rejected
        assert len(self.model.probes) <= self.model.most

    def teardown(self) -> None:
        for call in self.calls:
            call.task.cancel()
        self.settle()
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.run_until_complete(self.finish())
        self.loop.close()
        self.clock.__exit__(None, None, None)

    async def finish(self) -> None:
        """Close what the test has opened."""


class LocalMachine(BreakerMachine):
    """One breaker in one process: it stands as the model does at every moment."""

    @invariant()
    def states_agree(self) -> None:
        """The state, the break that is left, and the probes under way."""
        if not hasattr(self, "model"):
            return
        model, [breaker] = self.model, self.breakers
        # What ends here is told here: nothing is unheard of.
        model.heard = dict.fromkeys([0], 1)
        assert breaker.state == model.state
        left = breaker.stats.retry_after
        if model.state == "open":
            assert left == pytest.approx(max(0, model.until - self.now))
        else:
            assert left is None
        episode = breaker._circuit.episode
        if model.state == "half_open":
            assert len(episode.probes) == len(model.probes)
        if model.state == "closed" and "failure_threshold" in model.options:
            assert episode.failures == model.in_a_row()


class SharedMachine(BreakerMachine):
    """Two breakers on one Redis: whichever is asked stands as the model does."""

    processes = 2

    def sharing(self):
        if not hasattr(self, "server"):
            self.server = FakeServer()
            self.clients = []
        client = FakeAsyncRedis(server=self.server)
        self.clients.append(client)
        return {"storage": client, "namespace": "model"}

    async def quiet(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def check(self, process, *, is_told=True) -> None:
        if is_told and self.model.state != "closed":
            # A vote that changes nothing may not have been told.
            assert self.breakers[process].state in {self.model.state, "closed"}

    @invariant()
    def states_agree(self) -> None:
        """What lies in Redis is what the model says."""
        if not hasattr(self, "model"):
            return
        model, client = self.model, self.clients[0]
        found = self.loop.run_until_complete(client.hgetall("tta:breaker:model"))
        record = {key.decode(): value.decode() for key, value in found.items()}
        assert record.get("state", "closed") == model.state
        probes = [key for key in record if key.startswith("probe:")]
        assert len(probes) == len(model.probes)
        assert int(record.get("openings", 0)) == model.openings
        if model.state == "closed" and "failure_threshold" in model.options:
            assert int(record.get("failures", 0)) == model.in_a_row()
        if found:
            assert self.loop.run_until_complete(client.pttl("tta:breaker:model")) > 0

    async def finish(self) -> None:
        for client in getattr(self, "clients", ()):
            await client.aclose()


TestLocalModel = LocalMachine.TestCase
TestLocalModel.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLocalModel.__doc__ = "Whatever happens in whatever order, breaker and model agree."

TestSharedModel = SharedMachine.TestCase
TestSharedModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSharedModel.__doc__ = "Whatever happens in whatever order, Redis and model agree."
