"""Rate limit: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import outcome_of, settle, took

if TYPE_CHECKING:
    from tests.comparison.cases import Finding, Function

__all__ = ["RATE_LIMIT"]


class RateLimit(Library):
    """What a rate limit may be asked for: so many calls in so many seconds."""

    @classmethod
    def waiting(cls, function: Function, rate: int, period: float) -> Function:
        """Let calls beyond the rate wait."""
        raise LacksError

    @classmethod
    def rejecting(cls, function: Function, rate: int, period: float) -> Function:
        """Reject calls beyond the rate."""
        raise LacksError

    @classmethod
    def weighed(cls, function: Function, rate: int, period: float) -> Function:
        """Let a call count as much as its value says, and wait for it."""
        raise LacksError

    @classmethod
    def impatient(cls, function: Function, rate: int, period: float) -> Function:
        """Let calls wait for 0.1 s at most; reject at once what would take longer."""
        raise LacksError

    @classmethod
    def retry_after(cls, error: Any) -> float:
        """Return the seconds after which a rejection says to come back."""
        raise LacksError


class Ours(RateLimit):
    """RateLimitPrimitive."""

    name = OURS

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from tta_primitives import WorkflowContext
        from tta_primitives.recovery import RateLimitPrimitive

        made = RateLimitPrimitive(function, **options)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def waiting(cls, function, rate, period):
        return cls._made(function, rate=rate, period=period)

    @classmethod
    def rejecting(cls, function, rate, period):
        return cls._made(function, rate=rate, period=period, max_wait=0)

    @classmethod
    def weighed(cls, function, rate, period):
        return cls._made(
            function, rate=rate, period=period, cost=lambda value, context: value
        )

    @classmethod
    def impatient(cls, function, rate, period):
        return cls._made(function, rate=rate, period=period, max_wait=0.1)

    @classmethod
    def retry_after(cls, error):
        return error.retry_after


class Aiolimiter(RateLimit):
    """`AsyncLimiter`."""

    name = distribution = "aiolimiter"

    @classmethod
    def waiting(cls, function, rate, period):
        from aiolimiter import AsyncLimiter

        limiter = AsyncLimiter(rate, period)

        async def limited(value=None):
            async with limiter:
                return await function(value)

        return limited

    @classmethod
    def weighed(cls, function, rate, period):
        from aiolimiter import AsyncLimiter

        limiter = AsyncLimiter(rate, period)

        async def limited(value=1):
            await limiter.acquire(value)
            return await function(value)

        return limited


class Hyx(RateLimit):
    """`tokenbucket`."""

    name = distribution = "hyx"

    @classmethod
    def rejecting(cls, function, rate, period):
        from hyx.ratelimit import tokenbucket

        return tokenbucket(max_executions=rate, per_time_secs=period)(function)


class Cashews(RateLimit):
    """`@cache.slice_rate_limit`."""

    name = distribution = "cashews"

    @classmethod
    def rejecting(cls, function, rate, period):
        from cashews import Cache

        cache = Cache()
        cache.setup("mem://")
        return cache.slice_rate_limit(limit=rate, period=period, key=uuid4().hex)(
            function
        )


RATE_LIMIT = Area("Rate limit", Ours, Aiolimiter, Hyx, Cashews)


async def same(value: object = None) -> object:
    """Return the value."""
    return value


@RATE_LIMIT.case("10 in 0.2 s: after the first ten, no more than the rate", 79)
async def rates_are_kept(library: type[RateLimit]) -> Finding:
    """Knock at every chance for 0.5 s; count who comes in."""
    call = library.rejecting(same, 10, 0.2)
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.5
    admitted = 0
    while loop.time() < end:
        admitted += not isinstance(await outcome_of(call()), Exception)
        await asyncio.sleep(0.001)
    # Ten at once, and then one every 20 ms, or ten at a time in a window.
    return verdict(admitted <= 36, f"{admitted} in 0.5 s")


@RATE_LIMIT.case("Who waits comes in at the rate", 79)
async def waiting_keeps_the_rate(library: type[RateLimit]) -> Finding:
    """Let twenty begin together, at ten in 0.1 s."""
    call = library.waiting(same, 10, 0.1)
    _, seconds = await took(asyncio.gather(*[call(n) for n in range(20)]))
    return verdict(seconds > 0.085, f"all 20 within {seconds:.2f} s")


@RATE_LIMIT.case("A call of cost 10 is not overtaken by those of cost 1", 79)
async def waiting_is_fair(library: type[RateLimit]) -> Finding:
    """Let the large one wait first, and sixty small ones after it."""
    order: list[object] = []

    async def note(value: object) -> None:
        order.append(value)

    call = library.weighed(note, 10, 0.05)
    await call(10)
    tasks = [asyncio.create_task(call(10))]
    await settle()
    for _ in range(60):
        tasks.append(asyncio.create_task(call(1)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    place = order[1:].index(10) + 1
    return verdict(place == 1, f"it is served as number {place}")


@RATE_LIMIT.case("A cost beyond the capacity is an error, not a wait for ever", 79)
async def impossible_costs_are_errors(library: type[RateLimit]) -> Finding:
    """Ask for eleven of ten."""
    call = library.weighed(same, 10, 0.05)
    outcome = await outcome_of(asyncio.wait_for(call(11), 0.5))
    return verdict(isinstance(outcome, ValueError), f"{type(outcome).__name__}")


@RATE_LIMIT.case("A wait that would be too long is rejected at once", 80)
async def long_waits_are_rejected(library: type[RateLimit]) -> Finding:
    """Queue for a second where 0.1 s are allowed; ask when to come back."""
    call = library.impatient(same, 1, 1)
    await call(1)
    outcome, seconds = await took(call(2))
    after = library.retry_after(outcome)
    is_kept = seconds < 0.5 and 0.8 < after <= 1
    return verdict(is_kept, f"after {seconds:.1f} s, come back in {after:.1f} s")


@RATE_LIMIT.case("A rejection says when to come back", 80)
async def rejections_carry_the_time(library: type[RateLimit]) -> Finding:
    """Ask the rejection of a second call in a second."""
    call = library.rejecting(same, 1, 1)
    await call(1)
    after = library.retry_after(await outcome_of(call(2)))
    return verdict(0.8 < after <= 1, f"in {after:.1f} s")


@RATE_LIMIT.case("Who is cancelled while it waits takes nothing from the others", 81)
async def cancelled_waiters_take_nothing(library: type[RateLimit]) -> Finding:
    """Cancel the first in the queue; the second comes in its place."""
    call = library.waiting(same, 1, 0.1)
    await call(1)
    first = asyncio.create_task(outcome_of(call(2)))
    await settle()
    second = asyncio.create_task(call(3))
    await settle()
    first.cancel()
    _, seconds = await took(second)
    return verdict(seconds < 0.16, f"after {seconds:.1f} s instead of 0.1 s")
