"""What calls in flight, cache entries and failures weigh."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.benchmarks import peers
from tests.benchmarks.measure import quiet
from tests.benchmarks.table import Figures, Rows, measured
from tta_primitives import WorkflowContext
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.measure import Pace
    from tests.benchmarks.peers import Function, Maker

__all__ = ["ROWS"]

ROWS = Rows("Memory")
_KIB = 1024


async def waits(gate: asyncio.Future[None]) -> None:
    """Wait until the gate opens."""
    await gate


async def fails(_value: object) -> None:
    """Fail."""
    msg = "never"
    raise ConnectionError(msg)


async def _in_flight(call: Function, count: int) -> float:
    """Return the bytes that each of so many calls takes while it waits."""
    gate = asyncio.get_running_loop().create_future()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        # Each awaits the call itself, as a caller does; some peers return no coroutine.
        tasks = [asyncio.ensure_future(_awaited(call, gate)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    gate.set_result(None)
    await asyncio.gather(*tasks)
    return taken / count


async def _awaited(call: Function, gate: asyncio.Future[None]) -> None:
    await call(gate)


def _weighed(ours: Any, makers: Mapping[str, Maker], pace: Pace) -> Figures:
    context = WorkflowContext()
    calls = peers.installed(makers, waits)
    all_calls = {"ours": lambda gate: ours.execute(gate, context), **calls}

    async def weigh() -> dict[str, float | None]:
        await _in_flight(waits, 10)
        bare = await _in_flight(waits, pace.count)
        found: dict[str, float | None] = dict.fromkeys(all_calls)
        for name, call in all_calls.items():
            if call is not None:
                await _in_flight(call, 10)
                found[name] = (await _in_flight(call, pace.count) - bare) / _KIB
        return found

    with quiet():
        found = asyncio.run(weigh())
    return Figures(measured(found.pop("ours"), "our call"), found)


@ROWS.row("flight-retry", "a call in flight: Retry", "KiB", 0.5)
def flight_retry(pace: Pace) -> Figures:
    """Weigh calls that wait inside a retry."""
    return _weighed(RetryPrimitive(waits), peers.RETRY, pace)


@ROWS.row("flight-fallback", "a call in flight: Fallback", "KiB", 0.5)
def flight_fallback(pace: Pace) -> Figures:
    """Weigh calls that wait inside a fallback."""
    return _weighed(FallbackPrimitive(waits, [waits]), peers.FALLBACK, pace)


@ROWS.row("flight-timeout", "a call in flight: Timeout", "KiB", 1)
def flight_timeout(pace: Pace) -> Figures:
    """Weigh calls that wait inside a timeout."""
    limited = TimeoutPrimitive(waits, timeout_seconds=30)
    return _weighed(limited, peers.TIMEOUT, pace)


@ROWS.row("flight-breaker", "a call in flight: circuit breaker", "KiB", 0.5)
def flight_breaker(pace: Pace) -> Figures:
    """Weigh calls that wait inside a circuit breaker."""
    return _weighed(CircuitBreakerPrimitive(waits), peers.BREAKER, pace)


@ROWS.row("flight-bulkhead", "a call in flight: bulkhead", "KiB", 0.5)
def flight_bulkhead(pace: Pace) -> Figures:
    """Weigh calls that have a slot and wait inside of a bulkhead."""
    limited = BulkheadPrimitive(waits, max_concurrency=10_000)
    return _weighed(limited, peers.BULKHEAD, pace)


@ROWS.row("flight-rate-limit", "a call in flight: rate limit", "KiB", 0.5)
def flight_rate_limit(pace: Pace) -> Figures:
    """Weigh calls that were admitted and wait inside of a rate limit."""
    limited = RateLimitPrimitive(waits, rate=1e9)
    return _weighed(limited, peers.RATE_LIMIT, pace)


def _by_hand(function: Function) -> Function:
    """Return what a hedge cannot do without: a task, a timer, and waiting for both."""

    async def call(value: Any) -> Any:
        task = asyncio.ensure_future(function(value))
        timer = asyncio.get_running_loop().call_later(3600, task.cancel)
        try:
            await asyncio.wait([task])
            return task.result()
        finally:
            timer.cancel()

    return call


@ROWS.row("flight-hedge", "a call in flight: hedge", "x task, timer and wait", 1.1)
def flight_hedge(pace: Pace) -> Figures:
    """Weigh calls that wait inside a hedge before its delay is over."""
    hedge = HedgePrimitive(waits, delay=3600)
    found = _weighed(hedge, {"by hand": _by_hand}, pace)
    by_hand = found.peers["by hand"] or 1
    return Figures(found.value / by_hand, note=f"by hand: {by_hand:.2f} KiB")


async def _entries(call: Function, keys: list[str]) -> float:
    tracemalloc.start()
    try:
        await call(keys[0])
        before = tracemalloc.get_traced_memory()[0]
        for key in keys[1:]:
            await call(key)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return taken / (len(keys) - 1)


@ROWS.row("cache-entry", "a cache entry, small string", "B", 220)
def cache_entry(pace: Pace) -> Figures:
    """Weigh entries whose key, of 8 characters, is also the value."""
    keys = [f"k{number:07}" for number in range(5 * pace.count + 1)]
    made = peers.installed({"ours": _our_cache, **peers.CACHE}, _same)
    found: dict[str, float | None] = dict.fromkeys(made)
    for name, call in made.items():
        if call is not None:
            with quiet():
                found[name] = asyncio.run(_entries(call, keys))
    return Figures(measured(found.pop("ours"), "our call"), found)


async def _same(value: object) -> object:
    return value


def _our_cache(function: Function) -> Function:
    cache = CachePrimitive(function, ttl=3600, max_size=1_000_000)
    context = WorkflowContext()
    return lambda value: cache.execute(value, context)


@ROWS.row("garbage", "cyclic garbage per exhausted retry", "objects", 0)
def cyclic_garbage(pace: Pace) -> Figures:
    """Count what only the collector can free after retries that gave up."""
    context = WorkflowContext()
    retry = RetryPrimitive(fails, initial_delay=0)
    made = peers.installed(peers.RETRY_AT_ONCE, fails)
    calls = {"ours": lambda value: retry.execute(value, context), **made}
    found = {
        name: None if call is None else asyncio.run(_garbage(call, pace.count // 10))
        for name, call in calls.items()
    }
    return Figures(measured(found.pop("ours"), "our call"), found)


async def _garbage(call: Function, count: int) -> float:
    await _exhaust(call, 2)
    with quiet():
        gc.disable()
        try:
            await _exhaust(call, count)
            return gc.collect() / count
        finally:
            gc.enable()


async def _exhaust(call: Function, count: int) -> None:
    for _ in range(count):
        with suppress(Exception):  # Each library has an error of its own.
            await call(1)
