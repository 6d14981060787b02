"""A bulkhead under random callers, ends and cancellations, beside a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import WorkflowContext
from tta_primitives.errors import BulkheadFullError
from tta_primitives.recovery import BulkheadPrimitive

SLOTS = 2
PLACES = 3
MAX_WAIT = 5


class WorkError(Exception):
    """What a failing execution raises."""


@dataclass
class Waiter:
    """Who the model says waits, and until when."""

    number: int
    ends_at: float


class BulkheadMachine(RuleBasedStateMachine):
    """Callers come with and without a deadline; executions end well, badly or never.

    The model is a set of those who hold a slot and one list of those who wait; it knows
    nothing of tasks and futures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.clock.__enter__()
        self.loop = self.clock.new_loop()
        self.bulkhead = BulkheadPrimitive(
            self.work, max_concurrency=SLOTS, max_queue=PLACES, max_wait=MAX_WAIT
        )
        self.tasks: dict[int, asyncio.Task] = {}
        # Executions that are under way, and the order in which all of them began.
        self.work_ends: dict[int, asyncio.Future] = {}
        self.began: list[int] = []
        # The model.
        self.active: set[int] = set()
        self.waiting: list[Waiter] = []
        self.expected: list[int] = []
        self.rejected = self.abandoned = self.waited = 0

    async def work(self, number):
        self.began.append(number)
        end = self.work_ends[number] = self.loop.create_future()
        try:
            return await end
        finally:
            del self.work_ends[number]

    async def _settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def settle(self) -> None:
        """Let everything run that can run without time passing."""
        self.loop.run_until_complete(self._settle())

    def admit(self, number) -> None:
        self.active.add(number)
        self.expected.append(number)

    def release(self, number) -> None:
        """Give the slot to the one who waits longest."""
        self.active.remove(number)
        if self.waiting:
            self.admit(self.waiting.pop(0).number)

    def turn_away(self, number) -> None:
        self.rejected += 1
        assert isinstance(self.tasks[number].exception(), BulkheadFullError)

    @rule(patience=st.sampled_from([None, 0, 2, 9]))
    def call(self, patience) -> None:
        """A call gets a slot, or waits, or is turned away at once."""
        number, now = len(self.tasks), self.loop.time()
        deadline = None if patience is None else now + patience
        call = self.bulkhead.execute(number, WorkflowContext(deadline=deadline))
        self.tasks[number] = self.loop.create_task(call)
        self.settle()
        ends_at = now + MAX_WAIT if deadline is None else min(deadline, now + MAX_WAIT)
        if len(self.active) < SLOTS:
            self.admit(number)
        elif len(self.waiting) == PLACES or ends_at <= now:
            self.turn_away(number)
        else:
            self.waiting.append(Waiter(number, ends_at))
            self.waited += 1

    @precondition(lambda self: self.active)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data, fails) -> None:
        """An execution ends, and who waits longest gets its slot."""
        number = data.draw(st.sampled_from(sorted(self.active)))
        future = self.work_ends[number]
        if fails:
            future.set_exception(WorkError())
        else:
            future.set_result(number)
        self.settle()
        if fails:
            assert isinstance(self.tasks[number].exception(), WorkError)
        else:
            assert self.tasks[number].result() == number
        self.release(number)

    @precondition(lambda self: self.active or self.waiting)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """A caller leaves, with his slot or his place."""
        waiting = [one.number for one in self.waiting]
        number = data.draw(st.sampled_from(sorted(self.active) + waiting))
        self.tasks[number].cancel()
        if number in waiting:
            # Its place is free before anything else has run.
            self.waiting = [one for one in self.waiting if one.number != number]
            self.abandoned += 1
            self.figures_agree()
        self.settle()
        assert self.tasks[number].cancelled()
        if number in self.active:
            self.release(number)

    @precondition(lambda self: self.active)
    @rule(data=st.data(), turns=st.integers(0, 4))
    def end_and_cancel(self, data, turns) -> None:
        """One ends and the next in line is cancelled some turns of the loop later."""
        number = data.draw(st.sampled_from(sorted(self.active)))
        self.work_ends[number].set_result(number)
        first = self.waiting[0].number if self.waiting else None
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))
        if first is not None:
            self.tasks[first].cancel()
        self.settle()
        self.release(number)
        if first is not None:
            assert self.tasks[first].cancelled()
            if first not in self.began:
                # The slot was handed to it in vain.
                self.expected.pop()
                self.abandoned += 1
            self.release(first)

    @rule(seconds=st.sampled_from([0.5, 2, 5]))
    def pass_time(self, seconds) -> None:
        """Whose time is up is turned away."""
        until = self.loop.time() + seconds
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.settle()
        late = [one for one in self.waiting if one.ends_at <= until]
        self.waiting = [one for one in self.waiting if one.ends_at > until]
        for one in late:
            self.turn_away(one.number)

    @invariant()
    def begins_are_in_order(self) -> None:
        """Executions began in the order that the model says."""
        assert self.began == self.expected
        assert set(self.work_ends) == self.active

    @invariant()
    def figures_agree(self) -> None:
        """The figures of the bulkhead are those of the model."""
        stats = self.bulkhead.stats
        assert (stats.active, stats.queued) == (len(self.active), len(self.waiting))
        assert (stats.calls, stats.rejected) == (len(self.tasks), self.rejected)
        assert stats.waited == self.waited

    @invariant()
    def who_left_is_counted(self) -> None:
        """Those who left while they waited, or were handed a slot in vain."""
        assert self.bulkhead.stats.abandoned == self.abandoned

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.settle()
        stats = self.bulkhead.stats
        assert (stats.active, stats.queued) == (0, 0)
        assert not self.bulkhead._slots.queue
        self.loop.close()
        self.clock.__exit__(None, None, None)


TestBulkheadModel = BulkheadMachine.TestCase
TestBulkheadModel.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBulkheadModel.__doc__ = "Whoever comes, ends or leaves, bulkhead and model agree."
