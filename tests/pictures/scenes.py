"""The scenes of the timing diagrams: each runs a primitive, and shows what it did."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.pictures.recording import bar_of, bars_at, events_of, recorded
from tests.pictures.timing import Bar, Curve, Lane, Mark, Timing
from tta_primitives import ParallelPrimitive, WorkflowContext, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from typing import Any

    from pytest_tta.trace.spans import Span, Trace
    from tests.pictures.timing import Kind
    from tta_primitives import WorkflowPrimitive

__all__ = [
    "breaker",
    "bulkhead",
    "cache",
    "fallback",
    "hedge",
    "parallel",
    "rate_limit",
    "retry",
    "saga",
    "single_flight",
    "timeout",
]


def steps(name: str, *script: tuple[float, object]) -> WorkflowPrimitive[Any, Any]:
    """Return a step that goes through a script: seconds, and what comes then.

    An error is raised, anything else returned; the last line is repeated.
    """
    calls = 0

    @step(name=name)
    async def scripted(value: object) -> object:
        nonlocal calls
        seconds, outcome = script[min(calls, len(script) - 1)]
        calls += 1
        await asyncio.sleep(seconds)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return scripted


async def ask(workflow: WorkflowPrimitive[Any, Any], value: object = "a") -> None:
    """Execute a workflow, however it ends."""
    with suppress(Exception):
        await workflow.execute(value, WorkflowContext())


def retry() -> Timing:
    """Two failures, the pauses between, and the success."""
    down = ConnectionError("down")
    fetch = steps("fetch", (0.5, down), (0.5, down), (0.5, "ok"))
    made = RetryPrimitive(fetch, initial_delay=0.5, jitter="none")
    trace = recorded(lambda: ask(made))
    attempts = [
        bar_of(span, f"attempt {span.execution}") for span in trace.spans_at("fetch")
    ]
    pauses = [
        Bar(at, at + detail["delay"], "waiting", f"{detail['delay']:g} s")
        for at, _, detail in events_of(trace, "retry.scheduled")
    ]
    return Timing(
        "Two attempts fail, the third succeeds, with growing pauses between them",
        'RetryPrimitive(fetch, initial_delay=0.5, jitter="none")',
        [
            Lane("retry", bars_at(trace, "retry", is_outer=True)),
            Lane("fetch", [*attempts, *pauses]),
        ],
        end=3,
        step=0.5,
    )


def timeout() -> Timing:
    """A step that is cancelled at the limit, and cleans up."""

    @step(name="slow")
    async def slow(value: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await cleanup.execute(value, WorkflowContext())

    cleanup = steps("cleanup", (0.5, None))
    trace = recorded(lambda: ask(TimeoutPrimitive(slow, timeout_seconds=2)))
    [whole] = bars_at(trace, "slow")
    [last] = bars_at(trace, "cleanup")
    return Timing(
        "A slow step is cancelled at the limit, and cleans up before the error comes",
        "TimeoutPrimitive(slow, timeout_seconds=2)",
        [
            Lane("timeout", bars_at(trace, "timeout", is_outer=True)),
            Lane(
                "slow",
                [
                    Bar(whole.begin, last.begin, "running", "runs"),
                    Bar(last.begin, whole.end, "cancelled", "finally"),
                ],
            ),
        ],
        end=3,
        step=0.5,
        limits=[(2, "limit")],
    )


def fallback() -> Timing:
    """Alternatives, one after the other."""
    primary = steps("primary", (1.0, ConnectionError("down")))
    backup = steps("backup", (0.6, ConnectionError("down")))
    remembered = steps("remembered", (0.4, "ok"))
    made = FallbackPrimitive(primary, [backup, remembered])
    trace = recorded(lambda: ask(made))
    names = ("fallback", "primary", "backup", "remembered")
    return Timing(
        "The primary and the first alternative fail, the second alternative answers",
        "FallbackPrimitive(primary, [backup, remembered])",
        [
            Lane(name, bars_at(trace, name, is_outer=name == "fallback"))
            for name in names
        ],
        end=2.5,
        step=0.5,
    )


def cache() -> Timing:
    """A value that is loaded, fresh, stale, refreshed, and gone."""
    price = steps("price", (4, None))
    made = CachePrimitive(price, ttl=30, stale_ttl=20)
    asked = (0, 14, 44, 62, 108)

    async def scene() -> None:
        start = asyncio.get_running_loop().time()
        for at in asked:
            await asyncio.sleep(start + at - asyncio.get_running_loop().time())
            await ask(made)
        await asyncio.sleep(10)

    trace = recorded(scene)
    loads = bars_at(trace, "price")
    words = {"cache.miss": "miss", "cache.hit": "hit", "cache.stale": "stale"}
    tones = {"miss": "calm", "hit": "good", "stale": "late"}
    calls = [
        Mark(at, words[name], tones[words[name]], side="above")
        for at, name, _ in events_of(trace, *words)
    ]
    entry: list[Bar] = []
    ends = [*[load.end for load in loads[1:]], 130.0]
    for load, replaced in zip(loads, ends, strict=True):
        stale = load.end + 30
        entry.append(Bar(load.end, min(stale, replaced), "fresh", "fresh"))
        if replaced > stale:
            entry.append(Bar(stale, min(stale + 20, replaced), "stale", "stale"))
    return Timing(
        "An entry is fresh for its ttl; a call while it is stale gets the old value at "
        "once, and a new one is loaded in the background",
        "CachePrimitive(price, ttl=30, stale_ttl=20)",
        [
            Lane("calls", marks=calls, is_code=False),
            Lane("entry", entry, is_code=False),
            Lane("price", loads),
        ],
        end=130,
        step=10,
    )


def single_flight() -> Timing:
    """Four who ask at once; the first is cancelled, and one load serves the others."""
    price = steps("price", (2, "ok"))
    made = CachePrimitive(price, ttl=60)

    async def scene() -> None:
        tasks = []
        for _ in range(4):
            tasks.append(asyncio.create_task(ask(made)))
            await asyncio.sleep(0.3)
        tasks[0].cancel()
        await asyncio.wait(tasks)

    trace = recorded(scene)
    callers = [
        Lane(f"caller {number}", [bar_of(span, is_outer=True)], is_code=False)
        for number, span in enumerate(trace.spans_at("cache"), start=1)
    ]
    return Timing(
        "Four callers share one load; the first one leaves, and the load goes on",
        "CachePrimitive(price, ttl=60)",
        [*callers, Lane("price", bars_at(trace, "price"))],
        end=2.5,
        step=0.5,
    )


def breaker() -> Timing:
    """A service that fails, is left alone, and comes back."""
    down = ConnectionError("down")
    service = steps("service", *[(0.5, down)] * 3, (0.5, down), (0.5, "ok"))
    made = CircuitBreakerPrimitive(service, failure_threshold=3, recovery_timeout=5)
    asked = (0, 1, 2, 3.4, 4.6, 5.8, 8, 9.4, 11.2, 14, 15.5, 16.5)

    async def scene() -> None:
        start = asyncio.get_running_loop().time()
        for at in asked:
            await asyncio.sleep(start + at - asyncio.get_running_loop().time())
            await ask(made)

    trace = recorded(scene)
    rejected = [
        Mark(at, "", "bad", "cross")
        for at, _, _ in events_of(trace, "breaker.rejected")
    ]
    calls = [bar_of(span, "") for span in trace.spans_at("service")]
    states = _circuit(trace, 17)
    probes = [
        Mark((bar.begin + bar.end) / 2, "half_open", "late", "none", "above")
        for bar in states
        if bar.kind == "half_open"
    ]
    return Timing(
        "Three failures open the circuit; calls are rejected until a probe succeeds",
        "CircuitBreakerPrimitive(service, failure_threshold=3, recovery_timeout=5)",
        [
            Lane("state", states, probes, is_code=False),
            Lane("service", calls),
            Lane("rejected", marks=rejected, is_code=False),
        ],
        end=17,
        step=1,
    )


def _circuit(trace: Trace, end: float) -> list[Bar]:
    """Return the states that a circuit was in, from the start."""
    states: dict[str, Kind] = {
        "breaker.opened": "open",
        "breaker.half_opened": "half_open",
        "breaker.closed": "closed",
    }
    changes: list[tuple[float, Kind]] = [
        (0.0, "closed"),
        *[(at, states[name]) for at, name, _ in events_of(trace, *states)],
        (end, "closed"),
    ]
    return [
        Bar(begin, after, kind, "" if kind == "half_open" else kind)
        for (begin, kind), (after, _) in pairwise(changes)
    ]


def bulkhead() -> Timing:
    """Five calls, for two slots and a queue of two."""
    work = steps("work", (2, None))
    made = BulkheadPrimitive(work, max_concurrency=2, max_queue=2)

    async def scene() -> None:
        tasks = []
        for _ in range(5):
            tasks.append(asyncio.create_task(ask(made)))
            await asyncio.sleep(0.3)
        await asyncio.wait(tasks)

    trace = recorded(scene)
    lanes = [
        Lane(f"call {number}", *_admitted(span), is_code=False)
        for number, span in enumerate(trace.spans_at("bulkhead"), start=1)
    ]
    return Timing(
        "Two calls run, two wait in order, and one is rejected at once",
        "BulkheadPrimitive(work, max_concurrency=2, max_queue=2)",
        lanes,
        end=5,
        step=0.5,
    )


def _admitted(span: Span) -> tuple[list[Bar], list[Mark]]:
    """Return how a call waited and ran, or that it was rejected."""
    if not span.children:
        words = f"{type(span.error).__name__}: nothing was executed"
        return [], [Mark(span.started_at, words, "bad", "cross")]
    [run] = span.children
    bars = [bar_of(run, "runs")]
    if run.started_at > span.started_at:
        bars.append(Bar(span.started_at, run.started_at, "waiting", "waits"))
    return bars, []


def rate_limit() -> Timing:
    """A burst, and then a call each time that there is a token."""
    call = steps("call", (0, None))
    made = RateLimitPrimitive(call, rate=2, burst=4)
    asked = (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 3.25, 3.5)

    async def scene() -> None:
        tasks, start = [], asyncio.get_running_loop().time()
        for at in asked:
            await asyncio.sleep(start + at - asyncio.get_running_loop().time())
            tasks.append(asyncio.create_task(ask(made)))
        await asyncio.wait(tasks)

    trace = recorded(scene)
    admitted = [span.started_at for span in trace.spans_at("call")]
    waits = [
        Bar(span.started_at, span.children[0].started_at, "waiting", "waits")
        for span in trace.spans_at("rate_limit")
        if span.children[0].started_at > span.started_at
    ]
    return Timing(
        "A full bucket lets a burst through; later calls wait for their tokens",
        "RateLimitPrimitive(call, rate=2, burst=4)",
        [
            Lane("tokens", curve=Curve(_tokens(admitted, 2, 4, 5), 4), is_code=False),
            Lane("admitted", marks=_counted(admitted), is_code=False),
            *[
                Lane(name, [bar], is_code=False)
                for name, bar in zip(("fifth call", "sixth call"), waits, strict=True)
            ],
        ],
        end=5,
        step=0.5,
    )


def _counted(moments: list[float]) -> list[Mark]:
    """Return a mark for each moment, with the number of calls that came then."""
    return [
        Mark(at, f"{count} calls" if count > 1 else "", "good", "tick", "above")
        for at, count in Counter(moments).items()
    ]


def _tokens(
    taken: list[float], rate: float, burst: float, end: float
) -> list[tuple[float, float]]:
    """Return how many tokens there were, from when tokens were taken."""
    points, now, level = [(0.0, burst)], 0.0, burst
    for at in [*taken, end]:
        full = now + (burst - level) / rate
        if full < at:
            points.append((full, burst))
        level = min(burst, level + (at - now) * rate)
        now = at
        points.append((at, level))
        if at < end:
            level -= 1
            points.append((at, level))
    return points


def hedge() -> Timing:
    """A slow execution, and a second one that answers first."""
    llm = steps("llm", (10, "late"), (0.5, "answer"))
    made = HedgePrimitive(llm, delay=2)
    trace = recorded(lambda: ask(made))
    first, second = [bar_of(span) for span in trace.spans_at("llm")]
    return Timing(
        "After the delay a second execution starts; it answers, the first is cancelled",
        "HedgePrimitive(llm, delay=2)",
        [
            Lane("hedge", bars_at(trace, "hedge", is_outer=True)),
            Lane("llm", [first]),
            Lane("llm, again", [second]),
        ],
        end=3,
        step=0.5,
        limits=[(2, "delay")],
    )


def saga() -> Timing:
    """Three steps, the last of which fails, and what undoes the others."""
    made = SagaPrimitive(
        [
            (steps("charge", (0.7, "ok")), steps("refund", (0.5, None))),
            (steps("reserve", (0.5, "ok")), steps("release", (0.3, None))),
            steps("ship", (0.8, ConnectionError("no courier"))),
        ]
    )
    trace = recorded(lambda: ask(made))
    names = ("charge", "reserve", "ship", "release", "refund")
    return Timing(
        "When the last step fails, the ones before are undone in reverse order",
        "SagaPrimitive([(charge, refund), (reserve, release), ship])",
        [
            Lane("saga", bars_at(trace, "saga", is_outer=True)),
            *[Lane(name, bars_at(trace, name)) for name in names],
        ],
        end=3,
        step=0.5,
    )


def parallel() -> Timing:
    """Three branches, one of which fails."""
    names = ("weather", "traffic", "news")
    scripts = {"weather": (2.4, "ok"), "traffic": (1.2, OSError()), "news": (3, "ok")}
    made = ParallelPrimitive(*[steps(name, scripts[name]) for name in names])
    trace = recorded(lambda: ask(made))
    return Timing(
        "One branch fails; the others are cancelled before its error is raised",
        "weather | traffic | news",
        [
            Lane("parallel", bars_at(trace, "parallel", is_outer=True)),
            *[Lane(name, bars_at(trace, name)) for name in names],
        ],
        end=2,
        step=0.5,
    )
