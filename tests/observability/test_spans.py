"""Each execution of a primitive is a span, in its place, with what is known of it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from pytest_tta.faults import first
from tests.span_memory import attributes, remembering
from tta_primitives import (
    MapPrimitive,
    SequentialPrimitive,
    WorkflowContext,
    WorkflowPrimitive,
    step,
)
from tta_primitives.door import emit
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    FallbackPrimitive,
    HedgePrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "sk-proj-0123456789abcdefghij"


@step
async def load(value: Any) -> Any:
    return value


@step
async def save(value: Any) -> Any:
    return value


async def test_span_tells_path_primitive_and_ids_of_the_run():
    """Paths and classes are on all spans, what belongs to the run on its root."""
    context = WorkflowContext("order-7", "checkout", "session-3", tags={"tier": "gold"})
    with remembering() as memory:
        await (load >> save).execute(1, context)
    root, loaded, saved = memory.spans
    assert attributes(root) == {
        "tta.path": "sequential",
        "tta.primitive": "SequentialPrimitive",
        "tta.correlation_id": "order-7",
        "tta.run_id": context.run_id,
        "tta.workflow_id": "checkout",
        "tta.session_id": "session-3",
        "tta.tag.tier": "gold",
    }
    assert attributes(loaded) == {
        "tta.path": "sequential/load",
        "tta.primitive": "StepPrimitive",
    }
    assert (root.kind, root.status.status_code) == (SpanKind.INTERNAL, StatusCode.UNSET)
    assert memory.parent_of("load") == memory.parent_of("save") == "sequential"
    assert memory.parent_of("sequential") is None
    assert root.start_time <= loaded.start_time <= saved.end_time <= root.end_time


async def test_same_step_twice_has_two_paths_and_one_name():
    """Names are for grouping; the path tells which one it was."""
    with remembering() as memory:
        await SequentialPrimitive(load, load).execute(1, WorkflowContext())
    paths = [attributes(span)["tta.path"] for span in memory.all_named("load")]
    assert paths == ["sequential/load", "sequential/load#2"]


async def test_parallel_branches_are_children_of_the_parallel(tta):
    """Also while they overlap, and so are the spans that their code makes."""
    with remembering() as memory:

        @step
        async def slow(value):
            with memory.tracer.start_as_current_span("of slow"):
                await asyncio.sleep(2)

        @step
        async def quick(value):
            await asyncio.sleep(1)
            with memory.tracer.start_as_current_span("of quick"):
                pass

        await ((slow | quick) >> load).execute(1, WorkflowContext())
    parents = {span.name: memory.parent_of(span.name) for span in memory.spans}
    assert parents == {
        "sequential": None,
        "parallel": "sequential",
        "slow": "parallel",
        "quick": "parallel",
        "of slow": "slow",
        "of quick": "quick",
        "load": "sequential",
    }


async def test_primitive_called_inside_a_span_of_the_user_is_its_child():
    """The tree is that of OpenTelemetry, not only that of primitives."""
    with remembering() as memory:

        @step
        async def outer(value, context):
            with memory.tracer.start_as_current_span("transaction"):
                return await load.execute(value, context)

        with memory.tracer.start_as_current_span("request"):
            await outer.execute(1, WorkflowContext(traceparent=PARENT))
    assert memory.parent_of("load") == "transaction"
    assert memory.parent_of("transaction") == "outer"
    assert memory.parent_of("outer") == "request"


async def test_root_continues_the_callers_trace():
    """The parent is the span of `traceparent`, where no span is current."""
    context = WorkflowContext(traceparent=PARENT, tracestate="vendor=1")
    with remembering() as memory:
        await (load >> save).execute(1, context)
    root = memory.named("sequential")
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert root.parent.is_remote
    assert {f"{span.context.trace_id:032x}" for span in memory.spans} == {
        "0af7651916cd43dd8448eb211c80319c"
    }
    assert root.context.trace_state.to_header() == "vendor=1"


@pytest.mark.parametrize("parent", ["", "junk", "00-" + "0" * 32 + "-" + "0" * 16, 7])
async def test_malformed_parent_begins_a_trace(parent):
    """A bad header never fails a run."""
    with remembering() as memory:
        assert await load.execute(1, WorkflowContext(traceparent=parent)) == 1
    assert memory.named("load").parent is None


async def test_nothing_is_current_after_a_run():
    """Neither after a result nor after an error."""

    @step
    async def bad(value):
        raise ValueError("no")

    with remembering() as memory:
        await load.execute(1, WorkflowContext())
        assert not trace.get_current_span().get_span_context().is_valid
        with pytest.raises(ValueError, match="no"):
            await bad.execute(1, WorkflowContext())
        assert not trace.get_current_span().get_span_context().is_valid
    assert [span.name for span in memory.spans] == ["load", "bad"]


async def test_attempts_have_numbers_and_the_retry_tells_its_events(tta):
    """Each attempt is a span of its own; what the retry did is on the retry."""
    tta.faults.at("load").fail(ConnectionError("reset"), when=first(1))
    with remembering() as memory:
        await RetryPrimitive(load, initial_delay=2, jitter="none").execute(
            1, WorkflowContext()
        )
    failed, passed = memory.all_named("load")
    assert attributes(failed)["tta.attempt"] == 1
    assert attributes(passed)["tta.attempt"] == 2
    assert attributes(failed)["error.type"] == "ConnectionError"
    assert "tta.status" not in attributes(passed)
    retry = memory.named("retry")
    assert retry.status.status_code is StatusCode.UNSET
    assert [(event.name, dict(event.attributes)) for event in retry.events] == [
        ("retry.attempt", {"attempt": 1}),
        (
            "retry.scheduled",
            {"delay": 2.0, "attempt": 1, "error.type": "ConnectionError"},
        ),
        ("retry.attempt", {"attempt": 2}),
    ]


async def test_events_of_a_primitive_of_ones_own_may_have_any_name(tta):
    """One that is called as ours, with other details, breaks no request."""

    @step
    async def own(value: int, context: WorkflowContext) -> int:
        emit(context, "retry.attempt", note="mine")
        return value

    with remembering() as memory:
        assert await own.execute(1, WorkflowContext()) == 1
    assert [event.name for event in memory.named("own").events] == ["retry.attempt"]


async def test_error_is_written_down_where_it_arose_and_nowhere_else(tta):
    """The spans above have its type; its text and traceback cost too much."""
    tta.faults.at("load").fail(ConnectionError("reset by peer"))
    workflow = RetryPrimitive(load >> save, max_retries=1, initial_delay=0)
    with remembering() as memory, pytest.raises(ConnectionError, match="reset"):
        await workflow.execute(1, WorkflowContext())
    told = {span.name for span in memory.spans if _exceptions(span)}
    assert told == {"load"}
    for span in memory.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "ConnectionError"
        assert attributes(span)["tta.status"] == "failed"
    one = _exceptions(memory.all_named("load")[0])[0]
    assert one["exception.type"] == "ConnectionError"
    assert one["exception.message"] == "reset by peer"
    assert "Traceback" in one["exception.stacktrace"]
    described = {span.name: span.status.description for span in memory.spans}
    assert described["load"] == "ConnectionError: reset by peer"
    assert described["retry"] == "ConnectionError"


async def test_another_error_from_above_is_written_down_there():
    """A wrapper that raises an error of its own is where that one arose."""

    class Translates(WorkflowPrimitive[int, int]):
        def __init__(self, inner):
            self._inner = inner

        async def execute(self, input_data: int, context: WorkflowContext) -> int:
            try:
                return await self._inner.execute(input_data, context)
            except KeyError as error:
                raise LookupError("unknown customer") from error

    @step
    async def bad(value):
        raise KeyError("customer")

    with remembering() as memory, pytest.raises(LookupError, match="unknown"):
        await Translates(bad).execute(1, WorkflowContext())
    assert [e["exception.type"] for e in _exceptions(memory.named("bad"))] == [
        "KeyError"
    ]
    (outer,) = _exceptions(memory.named("translates"))
    assert outer["exception.type"] == "LookupError"
    assert "KeyError" in outer["exception.stacktrace"]


async def test_group_of_errors_that_are_told_is_not_told_again(tta):
    """Each branch has told its own."""
    tta.faults.at("load").fail(ValueError("a"))
    tta.faults.at("save").fail(ValueError("b"))
    both = (load | save).named("both")
    with remembering() as memory, pytest.raises(ExceptionGroup, match="branches"):
        await both.execute(1, WorkflowContext())
    assert _exceptions(memory.named("both")) == []
    assert memory.named("both").status.status_code is StatusCode.ERROR
    assert attributes(memory.named("both"))["error.type"] == "ExceptionGroup"


async def test_shared_error_of_two_runs_is_told_in_both():
    """One error object that is raised again is new to another trace."""
    error = ValueError("always the same")

    @step
    async def bad(value):
        raise error

    with remembering() as memory:
        for _ in range(2):
            with pytest.raises(ValueError, match="same"):
                await bad.execute(1, WorkflowContext())
    assert [len(_exceptions(span)) for span in memory.spans] == [1, 1]


def _exceptions(span) -> list[dict[str, Any]]:
    return [dict(e.attributes) for e in span.events if e.name == "exception"]


async def test_timeout_is_an_error_and_what_it_cancels_is_not(tta):
    """Who was cancelled has failed in nothing."""

    @step
    async def forever(value):
        await asyncio.sleep(1000)

    with remembering() as memory, pytest.raises(TimeoutError, match="forever"):
        await TimeoutPrimitive(forever, timeout_seconds=5).execute(1, WorkflowContext())
    inner, outer = memory.named("forever"), memory.named("timeout")
    assert attributes(inner)["tta.status"] == "cancelled"
    assert inner.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(inner)
    assert attributes(outer)["tta.status"] == "timed_out"
    assert outer.status.status_code is StatusCode.ERROR
    expected = "tta_primitives.errors.TimeoutExceededError"
    assert attributes(outer)["error.type"] == expected


async def test_cancelled_run_closes_all_its_spans(tta):
    """Whoever cancels a task leaves no span open and none current."""

    @step
    async def forever(value):
        await asyncio.sleep(1000)

    with remembering() as memory:
        task = asyncio.create_task((load >> forever).execute(1, WorkflowContext()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    ended = {span.name: attributes(span).get("tta.status") for span in memory.spans}
    assert ended == {"sequential": "cancelled", "load": None, "forever": "cancelled"}


async def test_coroutine_that_is_dropped_says_nothing_about_contexts(caplog, tta):
    """It is closed in another context, where its token is worth nothing."""
    with remembering() as memory:

        @step
        async def waits(value):
            await asyncio.sleep(1000)

        coroutine = waits.execute(1, WorkflowContext())

        async def begin() -> None:
            coroutine.send(None)

        await asyncio.create_task(begin())
        coroutine.close()
        gc.collect()
    assert [attributes(span)["tta.status"] for span in memory.spans] == ["cancelled"]
    assert caplog.text == ""


class Words(WorkflowPrimitive[str, str]):
    def __init__(self, tracer) -> None:
        self._tracer = tracer

    async def execute(self, input_data: str, context: WorkflowContext) -> str:
        return input_data

    async def stream(
        self, input_data: str, context: WorkflowContext
    ) -> AsyncIterator[str]:
        for word in input_data.split():
            with self._tracer.start_as_current_span(f"makes {word}"):
                found = await load.execute(word, context)
            yield found


async def test_stream_is_current_inside_and_not_in_its_consumer():
    """What the consumer does between two chunks is no part of the stream."""
    with remembering() as memory:
        words = Words(memory.tracer)
        async for word in (save >> words).stream("a b", WorkflowContext()):
            assert not trace.get_current_span().get_span_context().is_valid
            with memory.tracer.start_as_current_span(f"takes {word}"):
                pass
    assert memory.parent_of("words") == "sequential"
    assert memory.parent_of("makes a") == memory.parent_of("makes b") == "words"
    assert memory.parent_of("takes a") is None
    assert attributes(memory.named("words"))["tta.stream"] is True


async def test_stream_that_is_consumed_by_many_tasks_ends_clean(caplog):
    """Each chunk is asked for in another context, and the end in yet another."""
    with remembering() as memory:
        words = Words(memory.tracer).stream("a b", WorkflowContext())
        assert await asyncio.create_task(anext(words)) == "a"
        assert await asyncio.create_task(anext(words)) == "b"
        await asyncio.create_task(words.aclose())
    assert attributes(memory.named("words"))["tta.status"] == "cancelled"
    assert memory.parent_of("makes b") == "words"
    assert caplog.text == ""


async def test_items_of_a_map_are_children_of_the_map():
    """Whichever of its workers has them."""
    with remembering() as memory:
        await MapPrimitive(load, max_concurrency=3).execute(
            list(range(10)), WorkflowContext()
        )
    parents = {span.parent.span_id for span in memory.all_named("load")}
    assert parents == {memory.named("map").context.span_id}
    assert len(memory.all_named("load")) == 10


async def test_hedged_attempts_are_children_of_the_hedge(tta):
    """The one that lost is cancelled."""
    delays = iter([10, 1])

    @step
    async def uneven(value):
        await asyncio.sleep(next(delays))
        return value

    with remembering() as memory:
        await HedgePrimitive(uneven, delay=2).execute(1, WorkflowContext())
    lost, won = memory.all_named("uneven")
    assert lost.parent.span_id == memory.named("hedge").context.span_id
    assert won.parent.span_id == memory.named("hedge").context.span_id
    assert attributes(lost)["tta.status"] == "cancelled"


async def test_fallback_and_cache_tell_what_they_did(tta):
    """Events of primitives are events of their spans."""
    tta.faults.at("load").fail(ConnectionError("down"), when=first(1))
    workflow = FallbackPrimitive(load, [CachePrimitive(save, ttl=60)])
    with remembering() as memory:
        await workflow.execute("x", WorkflowContext())
    names = {s.name: [e.name for e in s.events] for s in memory.spans}
    assert names["fallback"] == ["fallback.used"]
    assert names["cache"] == ["cache.miss"]
    (used,) = memory.named("fallback").events
    assert dict(used.attributes) == {"index": 1, "error.type": "ConnectionError"}


async def test_task_that_outlives_its_run_stays_in_its_trace():
    """A worker that was begun in one run and serves another belongs to the other."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def work() -> None:
        while (job := await queue.get()) is not None:
            value, context, done = job
            done.set_result(await load.execute(value, context))

    workers: list[asyncio.Task[None]] = []

    @step
    async def hands_over(value, context):
        if not workers:
            workers.append(asyncio.create_task(work()))
        done = asyncio.get_running_loop().create_future()
        queue.put_nowait((value, context, done))
        return await done

    with remembering() as memory:
        for _ in range(2):
            await hands_over.execute(1, WorkflowContext())
        queue.put_nowait(None)
        await workers[0]
    roots = memory.all_named("hands_over")
    loads = memory.all_named("load")
    assert [one.parent.span_id for one in loads] == [
        one.context.span_id for one in roots
    ]


async def test_run_that_is_not_sampled_makes_no_span_and_asks_once():
    """The decision of the root holds for all below, and goes on to others."""
    asked: list[str] = []

    class Counts(type(ALWAYS_OFF)):
        def should_sample(self, context, trace_id, name, *more, **about):
            asked.append(name)
            return super().should_sample(context, trace_id, name, *more, **about)

    headers: dict[str, str] = {}

    @step
    async def sends(value, context):
        headers.update(context.to_headers())

    with remembering(Counts(ALWAYS_OFF._decision)) as memory:
        await (load >> (load | save) >> sends).execute(1, WorkflowContext())
        assert not trace.get_current_span().get_span_context().is_valid
    assert asked == ["sequential"]
    assert memory.spans == []
    assert headers["traceparent"].endswith(("-00", "-02"))


async def test_run_inside_of_a_span_that_is_not_sampled_asks_nobody():
    """Asking the sampler for each run would be the most of its cost."""
    asked: list[str] = []

    class Never(type(ALWAYS_OFF)):
        def should_sample(self, context, trace_id, name, *more, **about):
            asked.append(name)
            return super().should_sample(context, trace_id, name, *more, **about)

    with (
        remembering(Never(ALWAYS_OFF._decision)) as memory,
        memory.tracer.start_as_current_span("request"),
    ):
        await (load >> save).execute(1, WorkflowContext())
    assert asked == ["request"]


@pytest.mark.parametrize(("flags", "count"), [("01", 1), ("00", 0)])
async def test_callers_decision_is_kept(flags, count):
    """With the SDK's usual samplers, who has begun the trace decides."""
    context = WorkflowContext(traceparent=PARENT[:-2] + flags)
    with remembering(ParentBased(TraceIdRatioBased(0.5))) as memory:
        await load.execute(1, context)
    assert len(memory.spans) == count


async def test_no_input_and_no_output_is_told():
    """Unless somebody wants it."""
    with remembering() as memory:
        await (load >> save).execute("customer 4711", WorkflowContext())
    assert "4711" not in memory.text()


async def test_content_is_told_if_wanted_short_and_without_secrets():
    """Strings as they are, other data as JSON."""
    given = {"name": "Ann", "password": "hunter2", "key": SECRET, "long": "x" * 500}
    with remembering(content_length=80) as memory:
        await load.execute(given, WorkflowContext())
        await save.execute(f"my key is {SECRET}", WorkflowContext())
    told = attributes(memory.named("load"))
    expected = (
        '{"name": "Ann", "password": "[redacted]", "key": "[redacted]", "long": "'
    )
    assert told["tta.input"].startswith(expected)
    assert len(told["tta.input"]) == 83
    assert told["tta.output"] == told["tta.input"]
    assert attributes(memory.named("save"))["tta.input"] == "my key is [redacted]"


async def test_secrets_are_in_no_span():
    """Not those of inputs, of ids and tags that callers send, of errors and events."""

    class Leaks(WorkflowPrimitive[str, str]):
        async def execute(self, input_data: str, context: WorkflowContext) -> str:
            emit(context, "login", password="hunter2", note=f"with {SECRET}")
            cause = OSError(f"Authorization: Bearer {SECRET}")
            raise ValueError(f"refused: api_key={SECRET}") from cause

    headers = {
        "x-correlation-id": SECRET,
        "baggage": f"user={SECRET}",
        "authorization": f"Bearer {SECRET}",
    }
    context = WorkflowContext.from_headers(headers)
    context.tags["api_key"] = "hunter2"
    context.session_id = f"token={SECRET}"
    with (
        remembering(content_length=200) as memory,
        pytest.raises(ValueError, match="refused"),
    ):
        await RetryPrimitive(Leaks(), max_retries=1, initial_delay=0).execute(
            f"my key: {SECRET}", context
        )
    text = memory.text()
    assert len(memory.spans) == 3
    for secret in (SECRET, "hunter2", SECRET[8:]):
        assert secret not in text


async def test_unprintable_error_changes_nothing():
    """The workflow raises it; the span has its type."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot be printed")

    @step
    async def bad(value):
        raise Unprintable

    with remembering() as memory, suppress(Unprintable):
        await bad.execute(1, WorkflowContext())
    assert "Unprintable" in attributes(memory.named("bad"))["error.type"]
    assert len(_exceptions(memory.named("bad"))) == 1


async def test_failed_runs_leave_no_garbage():
    """No span keeps an error, and no error a span."""

    @step
    async def bad(value):
        raise ValueError("no")

    workflow = RetryPrimitive(load >> bad, max_retries=2, initial_delay=0)

    async def fail() -> None:
        try:
            await workflow.execute(1, WorkflowContext())
        except ValueError:
            return

    with remembering():
        await fail()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await fail()
            assert gc.collect() < 20
        finally:
            gc.enable()
