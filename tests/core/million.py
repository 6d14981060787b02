"""Long-lived primitives, a service that fails at random, and callers who come and go.

What lives in a process for weeks is made once here and kept through all the rounds: one
cache, one breaker, one bulkhead. Each round has an event loop of its own, as threads
and workers have. The service is a pure function of its input, so that a wrong answer
is seen as such.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.chance import seeded
from tta_primitives.errors import (
    ExecutionRejectedError,
    FallbackExhaustedError,
    TimeoutExceededError,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryBudget,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)
from tta_primitives.resilient import resilient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tta_primitives import WorkflowPrimitive

__all__ = ["Fleet"]

ALLOWED = (
    ConnectionError,
    ValueError,
    ExecutionRejectedError,
    FallbackExhaustedError,
    TimeoutExceededError,
    ExceptionGroup,
)
AT_A_TIME = 200


class Service:
    """What all workflows call: quick, slow, hanging, failing, by chance.

    Attributes:
        inside: Calls that are under way.
        done: What sagas have done and not undone, by input.
    """

    def __init__(self, chance: Random) -> None:
        self.inside = 0
        self.done: Counter[int] = Counter()
        self._chance = chance

    async def answer(self, number: int) -> int:
        self.inside += 1
        try:
            await self._take_time()
            self._fail()
            return number * 3 + 1
        finally:
            self.inside -= 1

    async def _take_time(self) -> None:
        how = self._chance.random()
        if how < 0.6:
            return
        if how < 0.93:
            await asyncio.sleep(self._chance.random() / 5)
        elif how < 0.95:
            await asyncio.sleep(60)
        else:
            await self._clean_up_slowly()

    async def _clean_up_slowly(self) -> None:
        try:
            await asyncio.sleep(self._chance.random())
        finally:
            await asyncio.sleep(0.01)

    def _fail(self) -> None:
        how = self._chance.random()
        if how < 0.08:
            raise ConnectionError
        if how < 0.1:
            raise ValueError

    async def reserve(self, number: int) -> int:
        result = await self.answer(number)
        self.done[number] += 1
        return result

    async def release(self, record: Any) -> None:
        await asyncio.sleep(0.001)
        self.done[record.input] -= 1

    async def confirm(self, result: int) -> int:
        await self.answer(result)
        self.done[(result - 1) // 3] -= 1  # Confirmed: nothing is left to undo.
        return result


@dataclass
class Fleet:
    """Workflows that live for the whole soak, and who calls them.

    Args:
        seed: Decides everything.
    """

    seed: int
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = Random(self.seed)
        self.service = Service(self._chance)
        self.now = 0.0
        budget = RetryBudget(ratio=0.5)
        call = step(self.service.answer, name="call")
        quick = TimeoutPrimitive(call, timeout_seconds=0.5)
        self.cache = CachePrimitive(
            RetryPrimitive(quick, budget=budget),
            ttl=0.5,
            max_size=100,
            stale_ttl=0.3,
            stale_if_error=2,
            early_refresh=0.1,
            ttl_jitter=0.2,
            negative_ttl=0.1,
            negative_on=ValueError,
        )
        self.breaker = CircuitBreakerPrimitive(
            quick, failure_threshold=3, recovery_timeout=0.3
        )
        self.rated = CircuitBreakerPrimitive(
            quick,
            failure_rate=0.4,
            minimum_calls=10,
            window=1,
            recovery_timeout=0.2,
            half_open_max_calls=2,
            success_threshold=2,
            slow_call_duration=0.1,
            slow_call_rate=0.9,
        )
        self.bulkhead = BulkheadPrimitive(
            quick, max_concurrency=10, max_queue=20, max_wait=0.2
        )
        self.limiters = [
            RateLimitPrimitive(
                quick,
                rate=15,
                algorithm=algorithm,
                max_wait=0.3,
                key=lambda number, _: number % 7,
            )
            for algorithm in ("token_bucket", "leaky_bucket", "sliding_window")
        ]
        self.hedge = HedgePrimitive(quick, delay=0.05, max_hedges=2, budget=budget)
        self.saga = SagaPrimitive(
            [(self.service.reserve, self.service.release), self.service.confirm]
        )
        self.stack = resilient(
            call,
            total_timeout=2,
            attempt_timeout=0.4,
            cache={"ttl": 1, "max_size": 50, "namespace": "stack"},
            rate_limit={"rate": 500, "max_wait": 0.1},
            bulkhead={"max_concurrency": 20, "max_queue": 50},
            fallbacks=[call],
        )
        fallback = FallbackPrimitive(self.breaker, [self.hedge, call])
        self.workflows: list[WorkflowPrimitive[Any, Any]] = [
            self.cache,
            self.breaker,
            self.rated,
            self.bulkhead,
            *self.limiters,
            self.hedge,
            TimeoutPrimitive(self.saga, timeout_seconds=1),
            self.stack,
            fallback,
            RetryPrimitive(self.rated, budget=budget, max_retries=2),
        ]
        self.both = quick | self.cache
        self.each = MapPrimitive(self.bulkhead, max_concurrency=3)

    def round(self, calls: int) -> list[str]:
        """Make calls on a loop of their own; return what is left over afterwards."""
        clock = VirtualClock(loop_start=self.now, max_jumps=None)
        with seeded(self._chance.getrandbits(32)):
            left = clock.run(self._round(calls))
        self.now += clock.elapsed + 1
        return left

    async def _round(self, calls: int) -> list[str]:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        todo = iter(range(calls))
        async with asyncio.TaskGroup() as callers:
            for _ in range(AT_A_TIME):
                callers.create_task(self._caller(todo))
        await asyncio.sleep(120)  # Refreshes in the background have hung till now.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return [*complaints, *map(str, others), *self._held()]

    async def _caller(self, todo: Iterator[int]) -> None:
        for _ in todo:
            await self._call()

    async def _call(self) -> None:
        """Call one workflow with one number; perhaps leave before it answers."""
        chance = self._chance
        number = chance.randrange(150)
        kind = chance.randrange(len(self.workflows) + 2)
        patience = chance.random() / 2 if chance.random() < 0.2 else None
        try:
            async with asyncio.timeout(patience):
                right = await self._ask(kind, number)
        except TimeoutError as error:
            is_ours = isinstance(error, TimeoutExceededError)
            self.ended["timed out" if is_ours else "left"] += 1
        except ALLOWED as error:
            self.ended[type(error).__name__] += 1
        else:
            self.ended["answered"] += 1
            if not right:
                self.wrong.append((kind, number))

    async def _ask(self, kind: int, number: int) -> bool:
        context = WorkflowContext()
        answer = number * 3 + 1
        if kind < len(self.workflows):
            return await self.workflows[kind].execute(number, context) == answer
        if kind == len(self.workflows):
            return await self.both.execute(number, context) == (answer, answer)
        several = await self.each.execute([number] * 3, context)
        return list(several) == [answer] * 3

    def _held(self) -> list[str]:
        """Return what is held although nobody calls."""
        bulkhead = self.bulkhead.stats
        held = {
            "calls inside": self.service.inside,
            "slots": bulkhead.active,
            "places in the queue": bulkhead.queued,
            "waiting for a limit": sum(one.stats.waiting for one in self.limiters),
            "loads": len(self.cache._flights),
            "not undone": sum(map(abs, self.service.done.values())),
        }
        return [f"{what}: {count}" for what, count in held.items() if count]
