"""Strategies for the options of every primitive that has some.

A policy is what a constructor takes by keyword: `CachePrimitive(step, **policy)`. The
plainest is the one whose primitive is least to be noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.properties.drawing import dictionaries
from pytest_tta.properties.needed import needed_hypothesis
from pytest_tta.properties.strategies import retry_policies, timeouts
from tta_primitives.arguments import seconds
from tta_primitives.performance.cache import CachePrimitive
from tta_primitives.recovery.bulkhead import BulkheadPrimitive
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.hedge import HedgePrimitive
from tta_primitives.recovery.rate_limit import RateLimitPrimitive
from tta_primitives.recovery.retry import RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from hypothesis.strategies import DrawFn, SearchStrategy

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["policies"]

Policy: TypeAlias = dict[str, Any]

_MILLISECONDS = 1000
_ERRORS = (ConnectionError, TimeoutError, OSError)


def policies(
    kind: type[WorkflowPrimitive[Any, Any]], *, max_seconds: float | timedelta = 60.0
) -> SearchStrategy[Policy]:
    """Generate keyword arguments for a primitive: `kind(step, **policy)`.

    The plainest policies are the longest limits, the most slots and the highest rates,
    no hedge before the last moment, a ttl of 0, no retry; and every option left out
    that has a default. A fallback needs its `fallbacks=` besides.

    Args:
        kind: The class of the primitive: a breaker, bulkhead, cache, fallback, hedge,
            rate limit, retry or timeout; or a subclass with the same options.
        max_seconds: No duration is longer.

    Raises:
        TypeError: `kind` is no such class, or `max_seconds` is no duration.
        ValueError: `max_seconds` is less than a millisecond.
    """
    longest = seconds("max_seconds", max_seconds)
    if longest * _MILLISECONDS < 1:
        msg = f"max_seconds={max_seconds!r} must be at least 0.001"
        raise ValueError(msg)
    for known, made in _MADE.items():
        if isinstance(kind, type) and issubclass(kind, known):
            return made(longest)
    names = ", ".join(sorted(one.__name__ for one in _MADE))
    msg = f"kind={kind!r} must be a class of primitives with a policy: {names}"
    raise TypeError(msg)


def _retry(longest: float) -> SearchStrategy[Policy]:
    return retry_policies(max_seconds=longest)


def _timeout(longest: float) -> SearchStrategy[Policy]:
    return dictionaries({"timeout_seconds": timeouts(max_seconds=longest)}, {})


def _bulkhead(longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    slots, places = _falling(8, 1), st.none() | _falling(8, 0)
    limits = timeouts(max_seconds=longest)
    has_limit = st.booleans()

    def policy(draw: DrawFn) -> Policy:
        found: Policy = {"max_concurrency": draw(slots), "max_queue": draw(places)}
        # Where nobody can wait, a limit for waiting is refused.
        if found["max_queue"] != 0 and draw(has_limit):
            found["max_wait"] = draw(limits)
        return found

    return _composite(policy)


def _rate_limit(longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    rates, periods = _falling(100, 1), timeouts(max_seconds=longest)
    algorithms = st.sampled_from(("token_bucket", "leaky_bucket", "sliding_window"))
    bursts, waits = _falling(20, 1), st.integers(0, int(longest * _MILLISECONDS))
    chosen = st.booleans()

    def policy(draw: DrawFn) -> Policy:
        found: Policy = {"rate": draw(rates)}
        if draw(chosen):
            found["period"] = draw(periods)
        if draw(chosen):
            found["algorithm"] = draw(algorithms)
        # A sliding window has no burst: no period has more than its rate.
        if found.get("algorithm") != "sliding_window" and draw(chosen):
            found["burst"] = draw(bursts)
        if draw(chosen):
            found["max_wait"] = draw(waits) / _MILLISECONDS
        return found

    return _composite(policy)


def _breaker(longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    limits = timeouts(max_seconds=longest)
    plain = {
        "failure_threshold": _falling(10, 1),
        "recovery_timeout": limits,
        "half_open_max_calls": st.integers(1, 3),
        "success_threshold": st.integers(1, 3),
        "half_open_timeout": limits,
    }
    rates = st.integers(0, 9).map(lambda tenths: 1 - tenths / 10)
    rolling = {"minimum_calls": _falling(10, 1), "window": limits}
    chosen, options = st.booleans(), dictionaries({}, plain)
    windows = dictionaries({}, rolling)

    def policy(draw: DrawFn) -> Policy:
        found: Policy = draw(options)
        by_failures, by_slowness = draw(chosen), draw(chosen)
        if by_failures:
            found["failure_rate"] = draw(rates)
        if by_slowness:
            found["slow_call_duration"] = draw(limits)
            found["slow_call_rate"] = draw(rates)
        # What is measured over a window has a meaning only for rates.
        return {**found, **draw(windows)} if by_failures or by_slowness else found

    return _composite(policy)


def _hedge(longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    most = int(longest * _MILLISECONDS)
    delays = st.integers(0, most).map(lambda n: (most - n) / _MILLISECONDS)
    return dictionaries(
        {"delay": delays},
        {"max_hedges": st.integers(1, 3), "hedge_on": st.sampled_from(_ERRORS)},
    )


def _cache(longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    most = int(longest * _MILLISECONDS)
    times = st.integers(0, most).map(lambda n: n / _MILLISECONDS)
    optional = {
        "max_size": _falling(64, 1),
        "stale_ttl": times,
        "stale_if_error": times,
        "ttl_jitter": st.integers(0, 10).map(lambda n: n / 10),
        "single_flight": st.booleans(),
        "copy": st.sampled_from(("auto", "deep", "none")),
    }
    plain, chosen = dictionaries({"ttl": times}, optional), st.booleans()
    errors, parts = st.sampled_from(_ERRORS), st.integers(0, 9)

    def policy(draw: DrawFn) -> Policy:
        found: Policy = draw(plain)
        if found["ttl"] and draw(chosen):
            # A part of the ttl: before it has begun there is nothing to refresh.
            found["early_refresh"] = round(found["ttl"] * draw(parts) / 10, 6)
        if draw(chosen):
            found["negative_ttl"] = draw(times)
            if found["negative_ttl"]:
                found["negative_on"] = draw(errors)
        return found

    return _composite(policy)


def _fallback(_longest: float) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    return dictionaries(
        {},
        {
            "fallback_on": st.sampled_from((Exception, *_ERRORS)),
            "isolate_input": st.booleans(),
            "restart_stream": st.booleans(),
        },
    )


_MADE: dict[
    type[WorkflowPrimitive[Any, Any]], Callable[[float], SearchStrategy[Policy]]
] = {
    BulkheadPrimitive: _bulkhead,
    CachePrimitive: _cache,
    CircuitBreakerPrimitive: _breaker,
    FallbackPrimitive: _fallback,
    HedgePrimitive: _hedge,
    RateLimitPrimitive: _rate_limit,
    RetryPrimitive: _retry,
    TimeoutPrimitive: _timeout,
}


def _falling(most: int, least: int) -> SearchStrategy[int]:
    """Generate counts, the highest being the plainest."""
    st = needed_hypothesis().strategies
    counts: SearchStrategy[int] = st.integers(0, most - least).map(lambda n: most - n)
    return counts


def _composite(policy: Callable[[DrawFn], Policy]) -> SearchStrategy[Policy]:
    st = needed_hypothesis().strategies
    found: SearchStrategy[Policy] = st.composite(policy)()
    return found
