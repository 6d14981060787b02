"""The peers that are raced, each as a function that makes its contestant.

Each imports its library inside, so that one that is not installed is merely absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.benchmarks.measure import awaiting, race
from tests.benchmarks.table import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.measure import Block, Pace, Times

__all__ = [
    "BREAKER",
    "BULKHEAD",
    "CACHE",
    "FALLBACK",
    "ONE_STEP",
    "RATE_LIMIT",
    "RETRY",
    "RETRY_AT_ONCE",
    "TIMEOUT",
    "compared",
    "installed",
    "raced",
    "runnable",
    "three_steps",
]

Function: TypeAlias = Callable[[Any], Awaitable[Any]]
Maker: TypeAlias = Callable[[Function], Function]


def installed(
    makers: Mapping[str, Maker], function: Function
) -> dict[str, Function | None]:
    """Make what can be made of a function; None for a peer that is not installed."""
    made: dict[str, Function | None] = {}
    for name, make in makers.items():
        try:
            made[name] = make(function)
        except ImportError:
            made[name] = None
    return made


def raced(
    blocks: dict[str, Block],
    makers: Mapping[str, Maker],
    function: Function,
    argument: object,
    pace: Pace,
) -> tuple[Times, dict[str, float | None]]:
    """Race blocks beside the peers; return the times and the ratios of the peers.

    Args:
        blocks: Ours by name; what `reference` does is what all are compared with.
        makers: The peers.
        function: What each peer is put around.
        argument: What it is called with.
        pace: How patiently.
    """
    made = installed(makers, function)
    theirs = {n: awaiting(f, argument) for n, f in made.items() if f is not None}
    times = race({**blocks, **theirs}, pace)
    ratios = {n: times.ratio(n, "reference") if n in times else None for n in made}
    return times, ratios


def compared(  # noqa: PLR0917 - as above, in its order
    ours: Block,
    reference: Block,
    makers: Mapping[str, Maker],
    function: Function,
    argument: object,
    pace: Pace,
) -> Figures:
    """Race ours and the peers; all figures are ratios to the reference."""
    blocks = {"reference": reference, "ours": ours}
    times, ratios = raced(blocks, makers, function, argument, pace)
    return Figures(times.ratio("ours", "reference"), ratios)


def _hyx_retry(function: Function) -> Function:
    from hyx.retry import retry

    return retry(on=ConnectionError, attempts=4, backoff=0)(function)


def _tenacity(function: Function) -> Function:
    from tenacity import retry, stop_after_attempt, wait_none

    return retry(stop=stop_after_attempt(4), wait=wait_none())(function)


def _tenacity_at_once(function: Function) -> Function:
    from tenacity import retry, stop_after_attempt, wait_none

    async def no_sleep(_seconds: float) -> None:
        pass

    options = {"stop": stop_after_attempt(4), "wait": wait_none(), "sleep": no_sleep}
    return retry(**options)(function)


def _stamina(function: Function) -> Function:
    import stamina

    return stamina.retry(
        on=ConnectionError, attempts=4, wait_initial=0, wait_max=0, wait_jitter=0
    )(function)


def _backoff(function: Function) -> Function:
    import backoff

    return backoff.on_exception(
        backoff.constant, ConnectionError, max_tries=4, interval=0, jitter=None
    )(function)


def runnable(function: Function) -> Any:
    """Return a langchain step."""
    from langchain_core.runnables import RunnableLambda

    # It takes a plain function for the synchronous side besides.
    return RunnableLambda(lambda value: value, afunc=function)


def _langchain(function: Function) -> Function:
    return runnable(function).ainvoke


def three_steps(function: Function) -> Function:
    """Return a chain of three langchain steps."""
    one = runnable(function)
    return (one | one | one).ainvoke


def _langchain_retry(function: Function) -> Function:
    guarded = runnable(function).with_retry(
        wait_exponential_jitter=False, stop_after_attempt=4
    )
    return guarded.ainvoke


def _hyx_fallback(function: Function) -> Function:
    from hyx.fallback import fallback

    async def other(*_: object, **__: object) -> None:
        pass

    return fallback(other)(function)


def _langchain_fallbacks(function: Function) -> Function:
    return runnable(function).with_fallbacks([runnable(function)]).ainvoke


def _asyncio_timeout(function: Function) -> Function:
    async def limited(value: object) -> object:
        async with asyncio.timeout(30):
            return await function(value)

    return limited


def _asyncio_wait_for(function: Function) -> Function:
    return lambda value: asyncio.wait_for(function(value), 30)


def _hyx_timeout(function: Function) -> Function:
    from hyx.timeout import timeout

    async def limited(value: object) -> object:
        # As a decorator it is three times as slow.
        async with timeout(30):
            return await function(value)

    return limited


def _hyx_breaker(function: Function) -> Function:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker()(function)


def _aiobreaker(function: Function) -> Function:
    from aiobreaker import CircuitBreaker

    return CircuitBreaker()(function)


def _purgatory(function: Function) -> Function:
    from purgatory import AsyncCircuitBreakerFactory

    return AsyncCircuitBreakerFactory()("bench")(function)


def _redress_breaker(function: Function) -> Function:
    from redress import AsyncPolicy, CircuitBreaker

    policy = AsyncPolicy(circuit_breaker=CircuitBreaker())
    # It takes functions without arguments.
    return lambda value: policy.call(lambda: function(value))


def _backon_breaker(function: Function) -> Function:
    from backon import CircuitBreaker

    breaker = CircuitBreaker()
    return lambda value: breaker.async_call(function, value)


def _hyx_bulkhead(function: Function) -> Function:
    from hyx.bulkhead import bulkhead

    return bulkhead(max_concurrency=10_000, max_capacity=20_000)(function)


def _semaphore(function: Function) -> Function:
    slots = asyncio.Semaphore(10_000)

    async def limited(value: object) -> object:
        async with slots:
            return await function(value)

    return limited


def _aiolimiter(function: Function) -> Function:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(1e9, 1)

    async def limited(value: object) -> object:
        async with limiter:
            return await function(value)

    return limited


def _async_lru(function: Function) -> Function:
    from async_lru import alru_cache

    return alru_cache(maxsize=1_000_000, ttl=3600)(function)


def _aiocache(function: Function) -> Function:
    from aiocache import cached

    return cached(ttl=3600)(function)


def _cashews(function: Function) -> Function:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=1_000_000)

    async def load(value: object) -> object:
        return await function(value)

    return cache(ttl=3600)(load)


ONE_STEP = {"langchain": _langchain}
RETRY = {
    "hyx": _hyx_retry,
    "backoff": _backoff,
    "tenacity": _tenacity,
    "stamina": _stamina,
    "langchain": _langchain_retry,
}
RETRY_AT_ONCE = {**RETRY, "tenacity": _tenacity_at_once}
FALLBACK = {"hyx": _hyx_fallback, "langchain": _langchain_fallbacks}
TIMEOUT = {
    "asyncio.timeout": _asyncio_timeout,
    "asyncio.wait_for": _asyncio_wait_for,
    "hyx": _hyx_timeout,
}
BREAKER = {
    "hyx": _hyx_breaker,
    "aiobreaker": _aiobreaker,
    "purgatory": _purgatory,
    "redress": _redress_breaker,
    "backon": _backon_breaker,
}
BULKHEAD = {"hyx": _hyx_bulkhead, "asyncio.Semaphore": _semaphore}
RATE_LIMIT = {"aiolimiter": _aiolimiter}
CACHE = {"async_lru": _async_lru, "aiocache": _aiocache, "cashews": _cashews}
