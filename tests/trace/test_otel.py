"""Spans that code makes with OpenTelemetry are a part of the trace."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pytest_tta import Harness, S, no
from tests.processes import ROOT
from tests.span_memory import SpanMemory, remembering
from tta_primitives import SequentialPrimitive, WorkflowContext, WorkflowPrimitive, step
from tta_primitives.door import add_observer, listening, remove_observer
from tta_primitives.recovery import RetryPrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Without a provider, as a module of an app has it.
tracer = api.get_tracer("app")


def provided() -> api.Tracer:
    """Return a tracer of the SDK."""
    return TracerProvider(shutdown_on_exit=False).get_tracer("app")


@pytest.fixture(params=["no provider", "sdk"])
def maker(request) -> api.Tracer:
    """Return a tracer, with the SDK and without any provider."""
    return tracer if request.param == "no provider" else provided()


@step
async def load(value):
    return value


async def test_span_inside_of_a_step_is_a_child(tta, maker):
    """With its name, its attributes and its time."""

    @step
    async def fetch(value):
        with maker.start_as_current_span("db query", attributes={"db": "pg"}) as span:
            await asyncio.sleep(1.5)
            span.set_attribute("rows", 3)
            span.add_event("locked", {"table": "orders"})
        return value

    await (fetch >> load).execute(1, WorkflowContext())
    assert tta.trace == S("sequential", S("fetch", S("db query")), S("load"))
    assert tta.trace.outline(events=True).splitlines() == [
        "sequential 1.5s",
        "  fetch 1.5s",
        "    db query 1.5s",
        "      ! locked table='orders'",
        "  load 0s",
    ]
    query = tta.trace.find("db query")
    assert (query.name, query.kind) == ("db query", "OpenTelemetrySpan")
    assert query.path == "sequential/fetch/db query"
    assert query.input == {"db": "pg"}
    assert query.output == {"db": "pg", "rows": 3}
    assert query.parent is tta.trace.find("fetch")


async def test_spans_and_primitives_stand_in_each_other(tta, maker):
    """As they were called, whoever has made them."""

    @step
    async def inner(value):
        with maker.start_as_current_span("statement"):
            return value

    @step
    async def outer(value, context):
        with maker.start_as_current_span("transaction"):
            with maker.start_as_current_span("begin"):
                pass
            await inner.execute(value, context)
            with maker.start_as_current_span("commit"):
                pass

    await outer.execute(1, WorkflowContext())
    assert tta.trace == S(
        "outer",
        S(
            "transaction",
            S("begin"),
            S("inner", S("statement")),
            S("commit"),
        ),
    )
    assert tta.trace != S("outer", S("inner"))


async def test_failed_span_has_its_error(tta, maker):
    """As long as it ends while the error passes through it."""

    @step
    async def fetch(value):
        try:
            with maker.start_as_current_span("db query"):
                raise ConnectionError("reset")
        except ConnectionError:
            with maker.start_as_current_span("clean up"):
                return "none"

    await fetch.execute(1, WorkflowContext())
    assert tta.trace == S(
        "fetch",
        S("db query", status="failed", error=ConnectionError("reset")),
        S("clean up", status="ok"),
    )
    assert "db query 0s failed: ConnectionError" in tta.trace.outline()


async def test_status_without_an_error_is_a_failure_too(tta, maker):
    """Who sets it means it."""

    @step
    async def fetch(value):
        with maker.start_as_current_span("db query") as span:
            span.set_status(api.Status(api.StatusCode.ERROR, "no rows"))

    await fetch.execute(1, WorkflowContext())
    assert tta.trace == S("fetch", S("db query", status="failed", error=None))


async def test_cancelled_span_is_shown_as_such(tta, maker):
    """A timeout around the step cancels what it waits for."""

    @step
    async def fetch(value):
        async with asyncio.timeout(2):
            with maker.start_as_current_span("db query"):
                await asyncio.sleep(10)

    with pytest.raises(TimeoutError, match=r"^$"):
        await fetch.execute(1, WorkflowContext())
    assert tta.trace == S("fetch", S("db query", status="cancelled", duration=2.0))


async def test_parallel_branches_keep_their_spans_apart(tta, maker):
    """Also where they overlap."""

    def slow(name, seconds):
        @step
        async def one(value):
            with maker.start_as_current_span(f"of {name}"):
                await asyncio.sleep(seconds)

        return one.named(name)

    await (slow("a", 2) | slow("b", 1)).execute(1, WorkflowContext())
    assert tta.trace == S("parallel", S("a", S("of a")), S("b", S("of b")))


async def test_repeated_spans_are_counted(tta, maker):
    """Each attempt of a retry makes its own."""
    calls = iter([ConnectionError("reset"), None])

    @step
    async def fetch(value):
        with maker.start_as_current_span("GET /users@v1"):
            if error := next(calls):
                raise error

    await RetryPrimitive(fetch, initial_delay=0).execute(1, WorkflowContext())
    first, second = tta.trace.spans_at("fetch/GET /users-v1")
    assert (first.status, second.status) == ("failed", "ok")
    assert (first.execution, second.execution) == (1, 2)
    assert first.name == "GET /users@v1"
    assert tta.trace == S(
        "retry", S("fetch", S("GET /users-v1")), S("fetch", S("users-v1"))
    )


async def test_span_of_a_thread_is_a_child(tta, maker):
    """What `to_thread` runs belongs to the step."""

    def blocking() -> None:
        with maker.start_as_current_span("in a thread"):
            pass

    @step
    async def fetch(value):
        await asyncio.to_thread(blocking)

    await fetch.execute(1, WorkflowContext())
    assert tta.trace == S("fetch", S("in a thread"))


class Words(WorkflowPrimitive[str, str]):
    def __init__(self, maker) -> None:
        self._maker = maker

    async def execute(self, input_data: str, context: WorkflowContext) -> str:
        return input_data

    async def stream(
        self, input_data: str, context: WorkflowContext
    ) -> AsyncIterator[str]:
        for word in input_data.split():
            with self._maker.start_as_current_span(f"makes {word}"):
                await asyncio.sleep(1)
            yield word


async def test_spans_of_a_consumer_are_not_those_of_the_stream(tta, maker):
    """What is done between two chunks is done by somebody else."""

    @step
    async def reads(value, context):
        async for word in Words(maker).stream(value, context):
            with maker.start_as_current_span(f"takes {word}"):
                pass

    await reads.execute("a b", WorkflowContext())
    assert tta.trace == S(
        "reads",
        S("words", S("makes a"), S("makes b")),
        S("takes a"),
        S("takes b"),
    )


async def test_spans_outside_of_workflows_are_not_recorded(tta, maker):
    """A trace is about workflows."""
    with maker.start_as_current_span("request"):
        await load.execute(1, WorkflowContext())
    with maker.start_as_current_span("afterwards"):
        pass
    assert tta.trace == S("load")


async def test_what_did_not_run_is_asserted_as_ever(tta):
    """Names of spans are names that `no` knows."""

    @step
    async def fetch(value):
        if value:
            with tracer.start_as_current_span("db query"):
                pass

    workflow = SequentialPrimitive(fetch, fetch)
    await workflow.execute(1, WorkflowContext())
    assert tta.trace == S("sequential", S("fetch", ...), S("fetch#2", no("db query")))


async def test_spans_of_primitives_are_not_recorded_twice(tta):
    """Where the app traces its workflows, each of them is in the trace once."""
    with remembering() as memory:

        @step
        async def inner(value):
            return value

        @step
        async def outer(value, context):
            with memory.tracer.start_as_current_span("transaction"):
                return await inner.execute(value, context)

        await outer.execute(1, WorkflowContext())
    assert tta.trace == S("outer", S("transaction", S("inner")))
    assert memory.parent_of("inner") == "transaction"


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_spans_of_the_user_keep_their_place_where_all_workflows_are_traced(is_first):
    """Whether tracing hears of a call before the harness does, or after it."""
    memory = SpanMemory()

    @step
    async def inner(value):
        with memory.tracer.start_as_current_span("statement"):
            return value

    @step
    async def outer(value, context):
        with memory.tracer.start_as_current_span("transaction"):
            return await inner.execute(value, context)

    with ExitStack() as stack:
        if is_first:
            add_observer(memory.observer)
        stack.callback(remove_observer, memory.observer)
        tta = stack.enter_context(Harness())
        if not is_first:
            stack.enter_context(listening(observers=(memory.observer,)))
        tta.run(outer, 1)
    assert tta.trace == S("outer", S("transaction", S("inner", S("statement"))))
    assert memory.parent_of("inner") == "transaction"


async def test_span_of_a_clean_up_is_not_cancelled_itself(tta, maker):
    """It began after the cancellation, and ended as it should."""

    @step
    async def fetch(value):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            with maker.start_as_current_span("clean up"):
                pass
            raise

    task = asyncio.create_task(fetch.execute(1, WorkflowContext()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tta.trace == S("fetch", S("clean up", status="ok"), status="cancelled")


async def test_tracing_without_a_provider_adds_nothing(tta, monkeypatch):
    """Spans of primitives come to nothing there, and are not those of the user."""
    from tta_primitives.observability import initialize_observability

    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with initialize_observability("a", enable_prometheus=False):
        await (load >> load).execute(1, WorkflowContext())
    assert tta.trace == S("sequential", S("load"), S("load#2"))


async def test_exporter_of_the_app_gets_what_it_always_gets(tta):
    """The span goes on to where it would go without the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    mine = provider.get_tracer("app")

    @step
    async def fetch(value):
        with mine.start_as_current_span("db query"):
            mine.start_span("by hand").end()

    await fetch.execute(1, WorkflowContext())
    assert tta.trace == S("fetch", S("db query", S("by hand")))
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["by hand", "db query"]


async def test_decorated_function_is_a_span(tta):
    """As OpenTelemetry allows it, with a tracer that was made at import."""

    @tracer.start_as_current_span("decorated")
    def compute(value):
        return value + 1

    @step
    async def fetch(value):
        return compute(value)

    assert await fetch.execute(1, WorkflowContext()) == 2
    assert tta.trace == S("fetch", S("decorated"))


async def test_span_without_a_provider_is_recording_until_it_ends(tta):
    """Code that asks before it computes attributes computes them."""
    seen = []

    @step
    async def fetch(value):
        with tracer.start_span("by hand") as span:
            seen.append(span.is_recording())
            span.set_attributes({"a": 1})
            span.update_name("other")
        seen.append(span.is_recording())
        span.end()

    await fetch.execute(1, WorkflowContext())
    assert seen == [True, False]
    assert tta.trace.find("by hand").output == {"a": 1}


def test_each_harness_has_its_own_spans(maker):
    """And afterwards OpenTelemetry is as it was."""
    before = [vars(api.NoOpTracer)["start_span"], vars(SDKSpan)["end"]]

    @step
    async def fetch(value):
        with maker.start_as_current_span("db query"):
            return value

    for _ in range(2):
        with Harness() as tta:
            tta.run(fetch, 1)
            assert tta.trace == S("fetch", S("db query"))
    assert [vars(api.NoOpTracer)["start_span"], vars(SDKSpan)["end"]] == before
    asyncio.run(fetch.execute(1, WorkflowContext()))


def test_opentelemetry_may_be_imported_in_the_test():
    """Before that nothing of it is imported, and nothing of the intake."""
    code = """
import asyncio, json, sys
from pytest_tta import Harness, S
from tta_primitives import WorkflowContext, step

async def plain(value):
    return value

async def fetch(value):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    made = TracerProvider(shutdown_on_exit=False).get_tracer("a")
    with made.start_as_current_span("first"):
        return value

found = []
with Harness() as tta:
    tta.run(step(plain), 1)
    found.append("pytest_tta.trace.otel" in sys.modules)
    found.append("opentelemetry" in sys.modules)
    import opentelemetry.trace
    tta.run(step(fetch), 1)
    tta.run(step(fetch), 1)
    found.append(tta.trace.outline(durations=False))
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [
        False,
        False,
        "plain\nfetch\nfetch@2\n  first",
    ]
