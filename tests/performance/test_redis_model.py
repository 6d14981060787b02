"""A fleet of caches on one Redis under random callers, cancellations and accidents."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_tta.clock.clock import VirtualClock
from tests.performance.redis_clients import fake_redis
from tta_primitives import WorkflowContext
from tta_primitives.errors import CacheStorageError
from tta_primitives.performance import CachePrimitive

TTL = 10
STALE = 4
KEYS = ["a", "b"]
PROCESSES = [0, 1]
LONGEST_LOAD = 40
"""Shorter than anybody waits for the lease of another."""


class UpstreamError(Exception):
    """What a failing load raises."""


@dataclass
class Upstream:
    """One load that the test ends by hand.

    Attributes:
        truth: What was true of its key when it began.
        is_counted: Whether a lease was to see to it that there is no other.
    """

    key: str
    truth: int
    began: float
    done: asyncio.Future
    is_counted: bool


@dataclass
class Call:
    """A caller, and the least that he may get."""

    key: str
    least: int
    began: float
    task: asyncio.Task
    is_in_trouble: bool


class FleetMachine(RuleBasedStateMachine):
    """What must hold whatever happens in whatever order.

    The truth about a key is a number that only grows; it is raised before the key is
    invalidated. Nobody who asks after an invalidation gets less than it was then, and
    nobody gets what was loaded longer ago than an entry lives. While Redis is there, no
    two loads of a key go on that could both be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.clock.__enter__()
        self.loop = self.clock.new_loop()
        self.client = fake_redis()
        self.execute_command = self.client.execute_command
        self.pipeline = self.client.pipeline
        self.caches = [
            CachePrimitive(
                self.load,
                ttl=TTL,
                stale_ttl=STALE,
                storage=self.client,
                namespace="n",
                tags=lambda key, value: [f"tag:{key}"],
            )
            for _ in PROCESSES
        ]
        self.loads: list[Upstream] = []
        self.calls: list[Call] = []
        self.truth = dict.fromkeys(KEYS, 0)
        self.known = dict.fromkeys(KEYS, 0)
        self.written: dict[tuple[str, int], float] = {}
        self.troubled: set[tuple[str, int]] = set()
        # What was under way when the stamp of its tag was evicted, which alone told
        # that it is outdated.
        self.forgotten: set[tuple[str, int]] = set()
        self.trouble_until = -1.0

    @property
    def now(self) -> float:
        return self.loop.time()

    async def load(self, key):
        done = self.loop.create_future()
        is_counted = self.now > self.trouble_until
        one = Upstream(key, self.truth[key], self.now, done, is_counted)
        self.loads.append(one)
        if not is_counted:
            self.troubled.add((key, one.truth))
        try:
            await done
            self.written[key, one.truth] = self.now
            return [key, one.truth]
        finally:
            self.loads.remove(one)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        """Let everything run that can run without time passing."""
        self.run(self._quiet())
        for call in [call for call in self.calls if call.task.done()]:
            self.calls.remove(call)
            self.check(call)

    async def _quiet(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def check(self, call) -> None:
        if call.task.cancelled():
            return
        error = call.task.exception()
        if error is not None:
            assert isinstance(error, UpstreamError), error
            return
        key, number = call.task.result()
        assert key == call.key
        # Two outages look like one to who did not ask in between.
        is_excused = call.is_in_trouble and (key, number) in self.troubled
        if not (is_excused or (key, number) in self.forgotten):
            assert number >= call.least
        assert call.began - self.written[key, number] < TTL + STALE

    @rule(process=st.sampled_from(PROCESSES), key=st.sampled_from(KEYS))
    def call(self, process, key) -> None:
        """A caller comes."""
        least, cache = self.known[key], self.caches[process]
        task = self.loop.create_task(cache.execute(key, WorkflowContext()))
        in_trouble = self.now <= self.trouble_until
        self.calls.append(Call(key, least, self.now, task, in_trouble))
        self.settle()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """A caller leaves."""
        data.draw(st.sampled_from(self.calls)).task.cancel()
        self.settle()

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), turns=st.integers(0, 12), key=st.sampled_from(KEYS))
    def cancel_in_the_middle(self, data, turns, key) -> None:
        """A caller comes, and one leaves, in the middle of what they do."""
        leaving = data.draw(st.sampled_from(self.calls)).task
        task = self.loop.create_task(self.caches[0].execute(key, WorkflowContext()))
        in_trouble = self.now <= self.trouble_until
        self.calls.append(Call(key, self.known[key], self.now, task, in_trouble))

        async def some_turns() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(some_turns())
        leaving.cancel()
        self.settle()

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), succeeds=st.booleans())
    def end_load(self, data, succeeds) -> None:
        """A load ends, well or badly."""
        self.finish(data.draw(st.sampled_from(self.loads)), succeeds=succeeds)
        self.settle()

    def finish(self, one, *, succeeds=True) -> None:
        if one.done.done():
            return
        if succeeds:
            one.done.set_result(None)
        else:
            one.done.set_exception(UpstreamError())

    @rule(
        process=st.sampled_from(PROCESSES),
        key=st.sampled_from(KEYS),
        how=st.sampled_from(["key", "tag", "clear"]),
    )
    def invalidate(self, process, key, how) -> None:
        """Something has changed; whoever asks from now on is to see it."""
        keys = KEYS if how == "clear" else [key]
        for one in keys:
            self.truth[one] += 1
        for load in self.loads:
            if load.key in keys:
                load.is_counted = False
        cache = self.caches[process]
        try:
            if how == "key":
                self.run(cache.invalidate(key))
            elif how == "tag":
                self.run(cache.invalidate_tags(f"tag:{key}"))
            else:
                self.run(cache.clear())
        except CacheStorageError:
            assert self.now <= self.trouble_until
        else:
            for one in keys:
                self.known[one] = self.truth[one]
        self.settle()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.5, 6, 9]))
    def wait(self, seconds) -> None:
        """Time passes."""
        for part in (*[1] * int(seconds), seconds % 1):
            for one in list(self.loads):
                if self.now - one.began > LONGEST_LOAD - 10:
                    self.finish(one)
            self.run(asyncio.sleep(part))
        self.settle()

    @rule(hangs=st.booleans())
    def lose_redis(self, hangs) -> None:
        """Redis refuses connections, or does not answer."""
        self.trouble_until = float("inf")

        async def fail(*args, **options):
            if hangs:
                await asyncio.sleep(3600)
            raise ConnectionError("down")

        self.client.execute_command = fail
        self.client.pipeline = lambda **options: type(
            "Pipeline", (), {"execute_command": lambda *a, **o: None, "execute": fail}
        )()
        for load in self.loads:
            load.is_counted = False
        self.settle()

    @precondition(lambda self: self.trouble_until == float("inf"))
    @rule()
    def find_redis(self) -> None:
        """It is back, and will be noticed within a second."""
        self.client.execute_command = self.execute_command
        self.client.pipeline = self.pipeline
        self.trouble_until = self.now + 1.5
        self.settle()

    @precondition(lambda self: self.trouble_until < self.now)
    @rule(data=st.data(), what=st.sampled_from(["evict", "plant"]))
    def touch_redis(self, data, what) -> None:
        """Redis evicts something, or somebody writes over it."""
        found = sorted(self.run(self.client.keys("tta:*")))
        if not found:
            return
        key = data.draw(st.sampled_from(found))
        self.run(self.client.delete(key))
        tags = {
            load.key: f"tta:cache-tag:tag:{load.key}".encode() for load in self.loads
        }
        self.forgotten.update(
            (o.key, o.truth) for o in self.loads if tags[o.key] == key
        )
        if what == "plant" and b"cache:n" in key and not key.endswith(b":lease"):
            self.run(self.client.set(key, b"\x80\x04planted"))
        for load in self.loads:
            load.is_counted = False
        self.settle()

    @invariant()
    def no_key_is_loaded_twice(self) -> None:
        """Neither in one process nor in several."""
        counted = [load.key for load in self.loads if load.is_counted]
        assert len(counted) == len(set(counted))

    def teardown(self) -> None:
        """All who wait are answered, and nothing is left."""
        try:
            self.find_redis()
            for _ in range(60):
                for one in list(self.loads):
                    self.finish(one)
                self.run(asyncio.sleep(0.5))
                self.settle()
            assert self.calls == []
            assert asyncio.all_tasks(self.loop) == set()
            assert self.run(self.client.keys("*:lease")) == []
        finally:
            self.loop.close()
            self.clock.__exit__(None, None, None)


FleetMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestFleet = FleetMachine.TestCase
