"""What a call costs at run time, as a multiple of `await f(x)`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pytest_tta.trace import TraceRecorder
from tests.benchmarks import peers
from tests.benchmarks.measure import awaiting, calling, race
from tests.benchmarks.peers import compared, raced
from tests.benchmarks.table import Figures, Rows, measured
from tta_primitives import (
    MapPrimitive,
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    step,
)
from tta_primitives.door import Observer, listening, remove_observer
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.measure import Block, Pace

__all__ = ["ROWS", "bare", "executing", "flaky", "suspends"]

ROWS = Rows("Runtime (bare = await f(x) of an async def)")

_DICT = {"model": "small", "prompt": "hello", "temperature": 0.5}


async def bare(value: Any) -> Any:
    """Return the value: what everything is compared with."""
    return value


async def answers(_value: object) -> str:
    """Return what needs no copy."""
    return "an answer"


async def suspends(value: Any) -> Any:
    """Return the value after one turn of the loop."""
    await asyncio.sleep(0)
    return value


def flaky() -> Callable[[Any], Any]:
    """Return a step that fails twice before each success."""
    calls = 0

    async def sometimes(value: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3:
            msg = "not yet"
            raise ConnectionError(msg)
        return value

    return sometimes


def executing(workflow: Any, value: Any = 1) -> Block:
    """Return the block of `await workflow.execute(value, context)`."""
    return awaiting(workflow.execute, value, WorkflowContext())


@ROWS.row("step", "one step through the door, nobody listening", "x bare", 3)
def one_step(pace: Pace) -> Figures:
    """Race a step with the function itself."""
    ours = executing(step(bare))
    return compared(ours, awaiting(bare, 1), peers.ONE_STEP, bare, 1, pace)


@ROWS.row("chain", "each further >> step", "x bare", 2.5)
def further_step(pace: Pace) -> Figures:
    """Race a chain of five steps with one of one step."""
    one = step(bare)
    blocks = {
        "reference": awaiting(bare, 1),
        "one": executing(one),
        "five": executing(SequentialPrimitive(*[one] * 5)),
    }
    times, _ = raced(blocks, {}, bare, 1, pace)
    return Figures(times.extra_ratio("five", "one", "reference") / 4)


@ROWS.row("retry", "Retry, happy path", "x bare", 4)
def retry_happy(pace: Pace) -> Figures:
    """Race a retry around a step that succeeds."""
    ours = executing(RetryPrimitive(bare))
    return compared(ours, awaiting(bare, 1), peers.RETRY, bare, 1, pace)


@ROWS.row("retry-failures", "Retry, 2 failures then ok", "x hand-written loop", 3)
def retry_failures(pace: Pace) -> Figures:
    """Race a retry without delays around a step that fails twice each time."""
    function = flaky()
    ours = executing(RetryPrimitive(function, initial_delay=0))
    loop = awaiting(_hand_written(function), 1)
    return compared(ours, loop, peers.RETRY_AT_ONCE, function, 1, pace)


def _hand_written(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def call(value: Any) -> Any:
        for attempt in range(4):
            try:
                return await function(value)
            except ConnectionError:
                if attempt == 3:
                    raise
        return None

    return call


@ROWS.row("fallback", "Fallback, happy path", "x bare", 4)
def fallback_happy(pace: Pace) -> Figures:
    """Race a fallback whose primary succeeds."""
    ours = executing(FallbackPrimitive(bare, [bare]))
    return compared(ours, awaiting(bare, 1), peers.FALLBACK, bare, 1, pace)


@ROWS.row("timeout", "Timeout, the step does not suspend", "x bare", 20)
def timeout_idle(pace: Pace) -> Figures:
    """Race a timeout around a step that answers at once."""
    ours = executing(TimeoutPrimitive(bare, timeout_seconds=30))
    return compared(ours, awaiting(bare, 1), peers.TIMEOUT, bare, 1, pace)


@ROWS.row("timeout-suspended", "Timeout, one suspension", "x asyncio.timeout", 0.85)
def timeout_suspended(pace: Pace) -> Figures:
    """Race a timeout around a step that waits once with `asyncio.timeout`."""
    ours = executing(TimeoutPrimitive(suspends, timeout_seconds=30))
    reference = awaiting(peers.TIMEOUT["asyncio.timeout"](suspends), 1)
    others = {k: v for k, v in peers.TIMEOUT.items() if k != "asyncio.timeout"}
    return compared(ours, reference, others, suspends, 1, pace)


@ROWS.row("breaker", "Circuit breaker, closed", "x bare", 5)
def breaker_closed(pace: Pace) -> Figures:
    """Race a breaker that counts consecutive failures, and has seen none."""
    ours = executing(CircuitBreakerPrimitive(bare))
    return compared(ours, awaiting(bare, 1), peers.BREAKER, bare, 1, pace)


@ROWS.row("breaker-rate", "Circuit breaker, closed, rolling rate", "x bare", 12)
def breaker_rate(pace: Pace) -> Figures:
    """Race a breaker that keeps the rate of failures in a sliding window."""
    ours = executing(CircuitBreakerPrimitive(bare, failure_rate=0.5))
    return compared(ours, awaiting(bare, 1), {}, bare, 1, pace)


@ROWS.row("bulkhead", "Bulkhead, free", "x bare", 10)
def bulkhead_free(pace: Pace) -> Figures:
    """Race a bulkhead that has a free slot for every call."""
    ours = executing(BulkheadPrimitive(bare, max_concurrency=10_000))
    return compared(ours, awaiting(bare, 1), peers.BULKHEAD, bare, 1, pace)


@ROWS.row("rate-limit", "Rate limit, free", "x bare", 12)
def rate_limit_free(pace: Pace) -> Figures:
    """Race a rate limit that has a token for every call."""
    ours = executing(RateLimitPrimitive(bare, rate=1e9))
    return compared(ours, awaiting(bare, 1), peers.RATE_LIMIT, bare, 1, pace)


@ROWS.row("cache-hit", "Cache hit in memory, str key", "x bare", 8)
def cache_hit(pace: Pace) -> Figures:
    """Race hits whose key is a text."""
    ours = executing(CachePrimitive(bare, ttl=3600), "a question")
    reference = awaiting(bare, "a question")
    return compared(ours, reference, peers.CACHE, bare, "a question", pace)


@ROWS.row("cache-hit-dict", "Cache hit in memory, small dict as key", "x bare", 25)
def cache_hit_dict(pace: Pace) -> Figures:
    """Race hits whose key is made of a dict; async_lru cannot have one."""
    ours = executing(CachePrimitive(answers, ttl=3600), _DICT)
    others = {k: v for k, v in peers.CACHE.items() if k != "async_lru"}
    return compared(ours, awaiting(bare, _DICT), others, answers, _DICT, pace)


@ROWS.row("stack", "step >> Retry(Timeout) >> Fallback", "x bare", 30)
def stack(pace: Pace) -> Figures:
    """Race a small workflow of three links that all succeed."""
    guarded = RetryPrimitive(TimeoutPrimitive(bare, timeout_seconds=30))
    ours = executing(step(bare) >> guarded >> FallbackPrimitive(bare, [bare]))
    others = {"langchain, 3 plain steps": peers.three_steps}
    return compared(ours, awaiting(bare, 1), others, bare, 1, pace)


def _fan_out(count: int, pace: Pace) -> Figures:
    ours = executing(ParallelPrimitive(*[step(bare)] * count))

    async def group(value: Any) -> tuple[Any, ...]:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(bare(value)) for _ in range(count)]
        return tuple([task.result() for task in made])

    async def gather(value: Any) -> tuple[Any, ...]:
        return tuple(await asyncio.gather(*[bare(value) for _ in range(count)]))

    others = {"asyncio.gather": lambda _: gather, "langchain": _abatch(count)}
    return compared(ours, awaiting(group, 1), others, bare, 1, pace)


def _abatch(count: int) -> peers.Maker:
    def make(function: peers.Function) -> peers.Function:
        one = peers.runnable(function)
        return lambda value: one.abatch([value] * count)

    return make


@ROWS.row("parallel-10", "Parallel, 10 branches", "x TaskGroup", 1.1)
def parallel_small(pace: Pace) -> Figures:
    """Race ten branches with a task group of ten."""
    return _fan_out(10, pace)


@ROWS.row("parallel-1000", "Parallel, 1000 branches", "x TaskGroup", 1.1)
def parallel_large(pace: Pace) -> Figures:
    """Race a thousand branches with a task group of a thousand."""
    return _fan_out(1000, pace)


@ROWS.row("map", "map of 1000 items, 10 at a time", "x semaphore + gather", 0.2)
def mapped(pace: Pace) -> Figures:
    """Race a map with the usual semaphore around each of a thousand tasks."""
    items = list(range(1000))

    async def with_semaphore(values: list[int]) -> list[Any]:
        slots = asyncio.Semaphore(10)

        async def one(value: int) -> Any:
            async with slots:
                return await bare(value)

        return await asyncio.gather(*[one(value) for value in values])

    ours = executing(MapPrimitive(bare, max_concurrency=10), items)
    return compared(ours, awaiting(with_semaphore, items), {}, bare, items, pace)


class _Silent(Observer):
    """An observer that hears everything and keeps nothing."""

    def started(self, call: Any, /) -> None:
        pass

    def finished(self, call: Any, /) -> None:
        pass


def _heard(make: Callable[[], Observer]) -> Block:
    """Return the block of a step while a new observer listens."""
    # The very block that it is compared with.
    unheard: Any = executing(step(bare))

    async def block(count: int) -> float:
        with listening(observers=(make(),)):
            taken: float = await unheard(count)
            return taken

    return block


def _per_span(make: Callable[[], Observer], pace: Pace) -> Figures:
    blocks = {
        "bare": awaiting(bare, 1),
        "unheard": executing(step(bare)),
        "heard": _heard(make),
    }
    return Figures(race(blocks, pace).extra_ratio("heard", "unheard", "bare"))


@ROWS.row("observer-none", "observer: none, frames beside the step's own", "frames", 0)
def observer_none(_pace: Pace) -> Figures:
    """Look at what a call returns: the function's own coroutine, or one around it."""
    coroutine = step(bare).execute(1, WorkflowContext())
    coroutine.close()
    return Figures(float(coroutine.cr_code is not bare.__code__))


@ROWS.row("observer-no-op", "observer: no-op, per span", "x bare", 4)
def observer_no_op(pace: Pace) -> Figures:
    """Race an observed step with an unobserved one."""
    return _per_span(_Silent, pace)


@ROWS.row("observer-recorder", "observer: trace recorder, per span", "x bare", 15)
def observer_recorder(pace: Pace) -> Figures:
    """Race a recorded step with an unobserved one."""
    return _per_span(TraceRecorder, pace)


@ROWS.row("prometheus", "with Prometheus, per step", "x bare", 20)
def with_prometheus(pace: Pace) -> Figures:
    """Race a step that is counted, for several processes to be scraped as one."""
    from prometheus_client import CollectorRegistry

    from tta_primitives.observability import metrics

    counted = metrics.start("bench", port=0, registry=CollectorRegistry())
    # It listens in its own block alone.
    remove_observer(counted.observer)
    blocks = {
        "bare": awaiting(bare, 1),
        "counted": _heard(lambda: counted.observer),
        "by hand": awaiting(_counted_by_hand(), 1),
    }
    try:
        times = race(blocks, pace)
    finally:
        counted.shutdown()
    by_hand = times.ratio("by hand", "bare")
    others: dict[str, float | None] = {"prometheus_client by hand": by_hand}
    return Figures(times.ratio("counted", "bare"), others)


def _counted_by_hand() -> Callable[[Any], Any]:
    """Return a function with the same metrics, in memory and bound beforehand."""
    from prometheus_client import CollectorRegistry, Gauge, Histogram

    registry = CollectorRegistry()
    labels = ["path", "status"]
    histogram = Histogram("seconds", "Durations.", labels, registry=registry)
    seconds = histogram.labels("step", "ok")
    running = Gauge("running", "Running.", ["path"], registry=registry).labels("step")

    async def call(value: Any) -> Any:
        began = asyncio.get_running_loop().time()
        running.inc()
        try:
            return await bare(value)
        finally:
            running.dec()
            seconds.observe(asyncio.get_running_loop().time() - began)

    return call


@ROWS.row("context", "context creation", "x bare", 6)
def context_creation(pace: Pace) -> Figures:
    """Race making a context with a bare await."""
    blocks = {"bare": awaiting(bare, 1), "ours": calling(WorkflowContext)}
    eager = _pydantic_context()
    if eager is not None:
        blocks["pydantic"] = calling(eager)
    times = race(blocks, pace)
    other = times.ratio("pydantic", "bare") if eager is not None else None
    return Figures(times.ratio("ours", "bare"), {"pydantic, eager id": other})


def _pydantic_context() -> Callable[[], object] | None:
    try:
        from pydantic import BaseModel, Field
    except ImportError:
        return None
    from uuid import uuid4

    class Eager(BaseModel):
        correlation_id: str = Field(default_factory=lambda: str(uuid4()))
        state: dict[str, object] = Field(default_factory=dict)
        metadata: dict[str, object] = Field(default_factory=dict)

    return Eager


async def _fifty_misses(cached: Callable[[Any], Any]) -> tuple[int, int]:
    """Return how often 50 callers at once made it load, and how many got the value."""
    loads = 0

    async def load(value: Any) -> Any:
        nonlocal loads
        loads += 1
        for _ in range(10):
            await asyncio.sleep(0)
        return value

    call = cached(load)
    callers = [asyncio.ensure_future(call("k")) for _ in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
    callers[0].cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    return loads, answers.count("k")


def _our_cache(function: peers.Function) -> peers.Function:
    cache, context = (
        CachePrimitive(function, ttl=3600, namespace="bench"),
        WorkflowContext(),
    )
    return lambda value: cache.execute(value, context)


def _missing_together(which: int) -> Figures:
    found: dict[str, float | None] = {}
    for name, make in {"ours": _our_cache, **peers.CACHE}.items():
        try:
            found[name] = asyncio.run(_fifty_misses(make))[which]
        except ImportError:
            found[name] = None
    return Figures(measured(found.pop("ours"), "our cache"), found)


@ROWS.row("misses-loads", "50 misses at once, first cancelled: loads", "loads", 1)
def misses_loads(_pace: Pace) -> Figures:
    """Count how often the value is loaded."""
    return _missing_together(0)


@ROWS.row(
    "misses-values",
    "50 misses at once, first cancelled: values",
    "values",
    49,
    is_floor=True,
)
def misses_values(_pace: Pace) -> Figures:
    """Count who gets the value."""
    return _missing_together(1)


def _tracer(*, is_sampled: bool = True) -> Any:
    """Return a tracer of the SDK whose spans are batched and thrown away."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    sampler = ALWAYS_ON if is_sampled else ALWAYS_OFF
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1 << 16))
    return provider.get_tracer("tta_primitives")


def _traced(tracer: Any, steps: int) -> Block:
    """Return the block of a chain while its spans are made."""
    from tta_primitives.observability import Redactor
    from tta_primitives.observability.spans import Spans

    observer = Spans(tracer, Redactor(), content_length=0)
    chain: Any = executing(SequentialPrimitive(*[step(bare)] * steps))

    async def block(count: int) -> float:
        with listening(observers=(observer,)):
            taken: float = await chain(count)
            return taken

    return block


def _span_by_hand(tracer: Any) -> Block:
    """Return the block of a span as one writes it, with the attributes of ours."""
    about = {"tta.path": "sequential/bare", "tta.primitive": "StepPrimitive"}

    async def traced(value: Any) -> Any:
        with tracer.start_as_current_span("bare", attributes=about):
            return await bare(value)

    many: Any = awaiting(traced, 1)

    async def block(count: int) -> float:
        with tracer.start_as_current_span("sequential"):
            taken: float = await many(count)
            return taken

    return block


@ROWS.row("otel", "with OpenTelemetry SDK spans, per step", "x the SDK span", 1.3)
def otel(pace: Pace) -> Figures:
    """Race steps whose spans are made with a function that makes its own."""
    tracer = _tracer()
    blocks = {
        "by hand": _span_by_hand(tracer),
        "two": _traced(tracer, 2),
        "twelve": _traced(tracer, 12),
    }
    return Figures(race(blocks, pace).extra_ratio("twelve", "two", "by hand") / 10)


@ROWS.row("otel-unsampled", "the same, where the trace is not sampled", "x bare", 25)
def otel_unsampled(pace: Pace) -> Figures:
    """Race steps that make no span, because the root of their run makes none."""
    tracer = _tracer(is_sampled=False)
    blocks = {
        "bare": awaiting(bare, 1),
        "two": _traced(tracer, 2),
        "twelve": _traced(tracer, 12),
        "by hand": _span_by_hand(tracer),
    }
    times = race(blocks, pace)
    ours = times.extra_ratio("twelve", "two", "bare") / 10
    return Figures(ours, {"a span by hand": times.ratio("by hand", "bare")})
