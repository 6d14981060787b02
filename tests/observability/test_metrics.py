"""What workflows do is counted, and told to Prometheus."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from pytest_tta.faults import first
from tta_primitives import ConditionalPrimitive, WorkflowContext, step
from tta_primitives.door import emit
from tta_primitives.observability import metrics
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    FallbackPrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tta_primitives.observability.metrics import Metrics

SECRET = "sk-planted-0123456789abcdef"


@pytest.fixture(params=[True, False], ids=["files", "memory"])
def counted(
    request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Metrics]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = metrics.start(
        "shop", port=0, registry=CollectorRegistry(), share=request.param
    )
    yield found
    found.shutdown()


def told(found: Metrics | str) -> dict[str, float]:
    """Return all series of ours, as they are exported."""
    text = found if isinstance(found, str) else found.render()[1].decode()
    series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            series[f"{sample.name}{{{labels}}}"] = sample.value
    return series


def calls(found: Metrics) -> dict[str, float]:
    """Return how many calls ended how, by path."""
    name = "tta_primitive_duration_seconds_count"
    return {
        re.sub(r".*path=(.*),status=(.*)}", r"\1 \2", key): value
        for key, value in told(found).items()
        if key.startswith(name)
    }


def scraped(found: Metrics) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{found.port}/metrics") as answer:
        return answer.read().decode()


async def run(workflow: Any, value: Any = 1) -> Any:
    return await workflow.execute(value, WorkflowContext())


async def refused(workflow: Any, value: Any = 1) -> None:
    with pytest.raises(Exception, match=r".*"):
        await run(workflow, value)


@step
async def llm(question: Any) -> Any:
    return question


async def test_calls_are_counted_by_how_they_end(tta, counted) -> None:
    """Each path has its own numbers, and siblings of one name share them."""
    tta.faults.at("sequential/llm#2").fail(ConnectionError("reset"), when=first(1))
    workflow = llm >> llm
    await refused(workflow)
    await run(workflow)
    assert calls(counted) == {
        "sequential failed": 1,
        "sequential ok": 1,
        "sequential/llm failed": 1,
        "sequential/llm ok": 3,
    }


async def test_durations_are_those_of_the_loop(tta, counted) -> None:
    """They fall into buckets from a cache's microseconds to an agent's minutes."""

    @step
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    for seconds in (0.0, 0.3, 45.0, 3600.0):
        await run(slow, seconds)
    series = told(counted)
    name = "tta_primitive_duration_seconds"
    assert series[f"{name}_sum{{path=slow,status=ok}}"] == pytest.approx(3645.3)
    buckets = [
        series[f"{name}_bucket{{le={le},path=slow,status=ok}}"]
        for le in ("0.0001", "0.25", "0.5", "30.0", "60.0", "120.0", "+Inf")
    ]
    assert buckets == [1, 1, 2, 2, 3, 3, 4]


async def test_what_is_running_is_seen(counted) -> None:
    """A gauge says how many calls are inside of a primitive right now."""
    release = asyncio.Event()

    @step
    async def held(_: object) -> None:
        await release.wait()

    tasks = [asyncio.ensure_future(run(held)) for _ in range(3)]
    await asyncio.sleep(0)
    key = "tta_primitive_in_flight{path=held}"
    assert told(counted)[key] == 3
    tasks[0].cancel()
    release.set()
    await asyncio.wait(tasks)
    assert told(counted)[key] == 0
    assert calls(counted) == {"held cancelled": 1, "held ok": 2}


async def _retries(tta) -> None:
    tta.faults.at("retry/llm").fail(ConnectionError("reset"))
    await refused(RetryPrimitive(llm, max_retries=2, jitter="none"))


async def _gives_up(tta) -> None:
    tta.faults.at("retry/llm").fail(TypeError("no"))
    await refused(RetryPrimitive(llm))


async def _falls_back(tta) -> None:
    tta.faults.at("fallback/llm").fail(ConnectionError("reset"))
    await run(FallbackPrimitive(llm, [lambda _: "plan b"]))


async def _caches(tta) -> None:
    cache = CachePrimitive(llm, ttl=60, max_size=1)
    for value in (1, 1, 2):
        await run(cache, value)


async def _breaks(tta) -> None:
    tta.faults.at("circuit_breaker/llm").fail(ConnectionError("reset"))
    breaker = CircuitBreakerPrimitive(llm, failure_threshold=1)
    await refused(breaker)
    await refused(breaker)


async def _times_out(tta) -> None:
    await refused(TimeoutPrimitive(lambda _: asyncio.sleep(9), timeout_seconds=1))


async def _queues(tta) -> None:
    pause = step(lambda _: asyncio.sleep(2), name="pause")
    bulkhead = BulkheadPrimitive(pause, max_concurrency=1, max_queue=1)
    await asyncio.gather(*[run(bulkhead) for _ in range(3)], return_exceptions=True)


async def _limits(tta) -> None:
    await run(limit := RateLimitPrimitive(llm, rate=1, burst=1, max_wait=0))
    await refused(limit)


async def _branches(tta) -> None:
    await run(ConditionalPrimitive(lambda value: value > 5, llm, llm))


async def _compensates(tta) -> None:
    async def undo(_: object) -> None:
        """Undo nothing."""

    tta.faults.at("saga/refuse").fail(ConnectionError("reset"))
    await refused(SagaPrimitive([(llm, undo), (llm.named("refuse"), undo)]))


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (
            _retries,
            {
                "tta_retry_attempts_total{path=retry}": 3,
                "tta_retries_total{path=retry}": 2,
                "tta_retries_ended_total{path=retry,reason=exhausted}": 1,
                "tta_wait_seconds_sum{by=retry,path=retry}": 1.5,
            },
        ),
        (_gives_up, {"tta_retries_ended_total{path=retry,reason=not_retryable}": 1}),
        (_falls_back, {"tta_fallbacks_total{index=1,path=fallback}": 1}),
        (
            _caches,
            {
                "tta_cache_requests_total{path=cache,result=hit}": 1,
                "tta_cache_requests_total{path=cache,result=miss}": 2,
                "tta_cache_evictions_total{path=cache}": 1,
            },
        ),
        (
            _breaks,
            {
                "tta_circuit_state{path=circuit_breaker,state=closed}": 0,
                "tta_circuit_state{path=circuit_breaker,state=open}": 1,
                "tta_circuit_changes_total{path=circuit_breaker,state=open}": 1,
                "tta_rejections_total{by=breaker,path=circuit_breaker}": 1,
            },
        ),
        (_times_out, {"tta_timeouts_total{outcome=expired,path=timeout}": 1}),
        (
            _queues,
            {
                "tta_wait_seconds_sum{by=bulkhead,path=bulkhead}": 2,
                "tta_rejections_total{by=bulkhead,path=bulkhead}": 1,
            },
        ),
        (_limits, {"tta_rejections_total{by=rate_limit,path=rate_limit}": 1}),
        (_branches, {"tta_routes_total{path=conditional,route=else}": 1}),
        (
            _compensates,
            {
                "tta_compensations_total{outcome=started,path=saga}": 1,
                "tta_compensations_total{outcome=done,path=saga}": 1,
            },
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_events_are_counted(
    tta, counted, happens: Callable, expected: dict
) -> None:
    """Each has its metric, under the path of the primitive that told it."""
    await happens(tta)
    series = told(counted)
    found = {key: series.get(key) for key in expected}
    assert found == expected


async def test_a_circuit_is_seen_before_anything_happens(counted) -> None:
    """A closed circuit is a series, too: an alert can tell it from one that is gone."""
    await run(CircuitBreakerPrimitive(llm))
    series = told(counted)
    assert series["tta_circuit_state{path=circuit_breaker,state=closed}"] == 1
    assert series["tta_circuit_state{path=circuit_breaker,state=open}"] == 0


async def test_tokens_are_counted_by_model(counted) -> None:
    """They have no path: who pays looks at models."""

    class Model(type(llm)):
        pass

    async def answers(_: object, context: WorkflowContext) -> str:
        usage = {
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "small",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 30,
            "gen_ai.usage.cache_read.input_tokens": 2,
        }
        emit(context, "llm.usage", **usage)
        return "yes"

    await run(step(answers))
    series = {k: v for k, v in told(counted).items() if "llm" in k}
    assert series == {
        "tta_llm_tokens_total{direction=input,model=small,provider=openai}": 12,
        "tta_llm_tokens_total{direction=cached_input,model=small,provider=openai}": 2,
        "tta_llm_tokens_total{direction=output,model=small,provider=openai}": 30,
        "tta_llm_answers_total{finish_reason=stop,model=small,provider=openai}": 1,
    }


async def test_too_many_paths_are_counted_together(tmp_path, caplog) -> None:
    """Names made of input fill no memory, and one warning says so."""
    found = metrics.start(
        "shop", port=None, registry=CollectorRegistry(), share=False, max_paths=3
    )
    try:
        for number in range(6):
            await run(llm.named(f"user-{number}"))
        assert calls(found) == {
            "user-0 ok": 1,
            "user-1 ok": 1,
            "user-2 ok": 1,
            "(other) ok": 3,
        }
        assert len(caplog.messages) == 1
        assert "Do not make names of primitives" in caplog.text
    finally:
        found.shutdown()


async def test_too_many_models_are_counted_together(counted, caplog) -> None:
    """A model whose name comes from a request does not make a series of its own."""

    async def answers(model: str, context: WorkflowContext) -> None:
        emit(context, "llm.usage", **{"gen_ai.request.model": model})

    told_of = step(answers)
    for number in range(1300):
        await run(told_of, f"model-{number}")
    models = {key for key in told(counted) if key.startswith("tta_llm_tokens_total")}
    assert len(models) < 1300
    assert any("(other)" in key for key in models)
    assert len(caplog.messages) == 1


async def test_routes_that_come_from_input_fill_no_memory(counted) -> None:
    """Those beyond the bound are counted together, and none of them is kept."""

    async def routes(_: object, context: WorkflowContext) -> None:
        for number in range(5000):
            emit(context, "route.taken", route=f"user-{number}")

    await run(step(routes, name="router"))
    kept = [key for key in told(counted) if key.startswith("tta_routes_total")]
    node = counted.observer._paths["router"]
    assert len(node.events) < 5000
    assert len(node.events) <= len(kept)
    assert any("(other)" in key for key in kept)


async def test_name_that_cannot_be_encoded_breaks_no_scrape(counted) -> None:
    """A model's name may hold half a character; all the other series are told."""

    async def answers(model: str, context: WorkflowContext) -> None:
        emit(context, "llm.usage", **{"gen_ai.request.model": model})

    await run(step(answers), "a\ud800b")
    kept = [key for key in told(counted) if "tta_llm_tokens_total" in key]
    assert len(kept) == 3


async def test_workflows_made_for_each_request_are_not_kept(counted) -> None:
    """A step that holds a session is let go of with its request."""
    for _ in range(50):
        await run(step(lambda value: value, name="query") >> llm)
    gc.collect()
    roots = counted.observer._roots
    assert len(roots) <= 1
    assert calls(counted)["sequential/query ok"] == 50


def test_threads_lose_no_count(counted) -> None:
    """Loops in several threads count at once, without a lock, and exactly."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    async def many() -> None:
        for _ in range(3000):
            await run(llm)

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert calls(counted) == {"llm ok": 12_000}
    assert told(counted)["tta_primitive_in_flight{path=llm}"] == 0


async def test_secrets_are_in_no_metric(tta, counted) -> None:
    """Inputs, errors, headers and ids are no labels; names and models are cleaned."""

    async def fails(value: dict, context: WorkflowContext) -> None:
        emit(context, "llm.usage", **{"gen_ai.request.model": SECRET})
        emit(context, "route.taken", route=SECRET)
        raise ConnectionError(value["key"])

    headers = {"x-correlation-id": SECRET, "baggage": f"token={SECRET}"}
    context = WorkflowContext.from_headers(headers)
    workflow = RetryPrimitive(step(fails), max_retries=1) >> llm.named(SECRET)
    with pytest.raises(ConnectionError, match=SECRET):
        await workflow.execute({"key": SECRET}, context)
    text = await asyncio.to_thread(scraped, counted)
    assert SECRET not in text
    assert "tta_retries_total" in text


async def test_a_registry_of_the_users_is_served(tmp_path) -> None:
    """What the app counts itself is in the same scrape."""
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(3)
    found = metrics.start("shop", port=0, registry=registry, share=False)
    try:
        await run(llm)
        series = told(await asyncio.to_thread(scraped, found))
        assert series["orders_total{}"] == 3
        assert series["tta_processes{service=shop}"] == 1
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            metrics.start("shop", port=0, registry=registry, share=False)
    finally:
        found.shutdown()
    assert next(iter(registry.collect())).name == "orders"


def test_nothing_is_left_after_shutdown(counted) -> None:
    """No thread, no socket, no file; and it may be called twice."""
    before = {thread.name for thread in threading.enumerate()}
    assert "tta-metrics" in before
    port, directory = counted.port, counted.directory
    counted.shutdown()
    counted.shutdown()
    after = {thread.name for thread in threading.enumerate()}
    assert not {name for name in after if name.startswith("tta-metrics")}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
    assert directory is None or not directory.exists()


def test_the_last_one_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    """The folder of a service is gone with its last process, and comes again."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        found = metrics.start("shop", port=None, registry=CollectorRegistry())
        assert found.directory.exists()
        found.shutdown()
        assert not found.directory.exists()


async def test_without_locks_of_files_each_process_has_its_own(monkeypatch) -> None:
    """As on Windows, where nobody can tell which processes are alive."""
    monkeypatch.setattr("tta_primitives.observability.group.fcntl", None)
    found = metrics.start("shop", port=0, registry=CollectorRegistry())
    try:
        assert found.directory is None
        await run(llm)
        assert calls(found) == {"llm ok": 1}
    finally:
        found.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70_000}, "prometheus_port=70000 must be from 0 to 65535"),
        ({"buckets": (1, 1)}, "must be seconds in rising order"),
        ({"buckets": (1, float("inf"))}, "without inf"),
        ({"max_paths": 0}, "max_paths=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    """What is wrong is said at the call, before anything is started."""
    with pytest.raises(ValueError, match=message):
        metrics.start("shop", **options)


def test_without_the_library_it_says_what_to_install(monkeypatch) -> None:
    """One sentence, with the command."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    message = re.escape("pip install 'tta-dev-primitives[prometheus]'")
    with pytest.raises(ModuleNotFoundError, match=message):
        metrics.start("shop", port=None)
