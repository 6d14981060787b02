"""A cache under random callers, cancellations and invalidations, beside a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive

TTL = 10
STALE = 4
NEGATIVE = 3
MAX_SIZE = 2
KEYS = ["a", "b", "c"]


class UpstreamError(Exception):
    """What a failing load raises."""


@dataclass
class Upstream:
    """One load that the test ends by hand."""

    key: str
    number: int
    done: asyncio.Future
    is_cancelled: bool = False


@dataclass
class Kept:
    """What the model says that the cache remembers of a key."""

    value: int
    written: float


class CacheMachine(RuleBasedStateMachine):
    """Callers come, leave and are answered; loads end well, badly or never.

    The model is a dictionary of values and one of failures, both in order of use, and
    one list of open loads; it knows nothing of tasks.
    """

    callers = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.clock.__enter__()
        self.loop = self.clock.new_loop()
        self.cache = CachePrimitive(
            self.load,
            ttl=TTL,
            stale_ttl=STALE,
            max_size=MAX_SIZE,
            negative_ttl=NEGATIVE,
            negative_on=UpstreamError,
        )
        self.loads: list[Upstream] = []
        self.begun = 0
        self.kept: dict[str, Kept] = {}
        self.failed: dict[str, float] = {}
        # Who waits for which load; loads that are void answer, but are not kept.
        self.waiting: dict[int, list[asyncio.Task]] = {}
        self.open: dict[str, int] = {}
        self.background: set[int] = set()
        self.numbers = 0

    async def load(self, key):
        self.begun += 1
        one = Upstream(key, self.begun, self.loop.create_future())
        self.loads.append(one)
        try:
            return await one.done
        except asyncio.CancelledError:
            one.is_cancelled = True
            raise
        finally:
            self.loads.remove(one)

    def settle(self) -> None:
        """Let everything run that can run without time passing."""
        self.loop.run_until_complete(self._quiet())

    async def _quiet(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def expected(self, key):
        """Return what the model says a call gets: a value, an error, or a load."""
        kept, now = self.kept.get(key), self.loop.time()
        age = now - kept.written if kept else TTL + STALE
        if age < TTL + STALE:
            self.kept[key] = self.kept.pop(key)
            if age >= TTL and key not in self.open:
                self.begin(key, in_background=True)
            return kept.value
        self.kept.pop(key, None)
        until = self.failed.pop(key, 0)
        if now < until:
            self.failed[key] = until
            return UpstreamError
        if key not in self.open:
            self.begin(key)
        return None

    def begin(self, key, *, in_background=False) -> None:
        self.numbers += 1
        self.open[key] = self.numbers
        self.waiting[self.numbers] = []
        if in_background:
            self.background.add(self.numbers)

    @rule(target=callers, key=st.sampled_from(KEYS))
    def call(self, key):
        """A caller is answered at once, or waits for the one load of his key."""
        expected = self.expected(key)
        task = self.loop.create_task(self.cache.execute(key, WorkflowContext()))
        self.settle()
        if expected is None:
            assert not task.done()
            self.waiting[self.open[key]].append(task)
        elif expected is UpstreamError:
            assert isinstance(task.exception(), UpstreamError)
        else:
            assert task.result() == expected
        return task

    @rule(task=consumes(callers))
    def cancel(self, task) -> None:
        """A caller leaves; with the last one a load is cancelled."""
        task.cancel()
        self.settle()
        for number, tasks in list(self.waiting.items()):
            if task in tasks:
                assert task.cancelled()
                tasks.remove(task)
                if not tasks and number not in self.background:
                    self.forget(number)

    def forget(self, number) -> None:
        del self.waiting[number]
        self.background.discard(number)
        for key in [key for key, of in self.open.items() if of == number]:
            del self.open[key]

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), succeeds=st.booleans())
    def end_a_load(self, data, succeeds) -> None:
        """A load ends: everybody who waits for it is answered, and it may be kept."""
        one = data.draw(st.sampled_from(self.loads), label="load")
        is_void = self.open.get(one.key) != one.number
        if succeeds:
            one.done.set_result(one.number)
        else:
            one.done.set_exception(UpstreamError(one.number))
        self.settle()
        for task in self.waiting[one.number]:
            if succeeds:
                assert task.result() == one.number
            else:
                assert task.exception().args == (one.number,)
        self.forget(one.number)
        if not is_void:
            self.keep(one, succeeds=succeeds)

    def keep(self, one, *, succeeds) -> None:
        if not succeeds:
            self.failed.pop(one.key, None)
            self.failed[one.key] = self.loop.time() + NEGATIVE
            while len(self.failed) > MAX_SIZE:
                del self.failed[next(iter(self.failed))]
            return
        self.failed.pop(one.key, None)
        self.kept.pop(one.key, None)
        self.kept[one.key] = Kept(one.number, self.loop.time())
        while len(self.kept) > MAX_SIZE:
            del self.kept[next(iter(self.kept))]

    @rule(key=st.sampled_from(KEYS))
    def invalidate(self, key) -> None:
        """A key is forgotten, and so is what its load will bring."""
        self.loop.run_until_complete(self.cache.invalidate(key))
        self.kept.pop(key, None)
        self.failed.pop(key, None)
        self.open.pop(key, None)

    @rule()
    def clear(self) -> None:
        """Everything is forgotten."""
        self.loop.run_until_complete(self.cache.clear())
        self.kept.clear()
        self.failed.clear()
        self.open.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 3, 4, 10]))
    def wait(self, seconds) -> None:
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @invariant()
    def one_load_for_each_number(self) -> None:
        """The loads under way are those of the model, and memory is bounded."""
        assert sorted(one.number for one in self.loads) == sorted(self.waiting)
        assert (self.begun, len(self.cache._flights)) == (self.numbers, len(self.loads))
        assert len(self.cache._memory) <= MAX_SIZE

    def teardown(self) -> None:
        for one in self.loads:
            one.done.cancel()
        self.settle()
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()
        self.clock.__exit__(None, None, None)


TestCacheModel = CacheMachine.TestCase
TestCacheModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCacheModel.__doc__ = "Whatever happens in whatever order, cache and model agree."
