"""A run joins its caller's trace, and what it calls joins the run's."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    use_span,
)

from tests.span_memory import remembering
from tta_primitives import WorkflowContext, step
from tta_primitives.context import Trace, carry_trace
from tta_primitives.observability.propagation import current_trace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "vendor=1"


def traced(span) -> str:
    place = span.context
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


@step
async def sends(value, context):
    return context.to_headers(), context.to_dict()


async def test_step_passes_its_own_span_on():
    """Not that of the caller, nor that of the run's root."""
    with remembering() as memory:
        headers, data = await (step(lambda v: v) >> sends).execute(
            1, WorkflowContext(traceparent=PARENT, tracestate=STATE)
        )
    expected = traced(memory.named("sends"))
    assert headers["traceparent"] == expected
    assert headers["tracestate"] == STATE
    assert (data["traceparent"], data["tracestate"]) == (expected, STATE)
    assert expected.startswith("00-0af7651916cd43dd8448eb211c80319c-")


async def test_span_of_the_user_inside_of_a_step_is_passed_on():
    """It is the one that is current where headers are asked for."""
    with remembering() as memory:

        @step
        async def asks(value, context):
            with memory.tracer.start_as_current_span("request"):
                return context.to_headers()

        headers = await asks.execute(1, WorkflowContext(traceparent=PARENT))
    assert headers["traceparent"] == traced(memory.named("request"))


async def test_headers_join_two_services():
    """The trace of the one that is called goes on below the step that called it."""
    with remembering() as memory:

        @step
        async def serves(value):
            return value

        @step
        async def calls(value, context):
            headers = context.to_headers()

            async def other_process() -> None:
                with use_span(trace.INVALID_SPAN):
                    there = WorkflowContext.from_headers(headers)
                    await serves.execute(value, there)

            await other_process()

        await calls.execute(1, WorkflowContext())
    assert memory.parent_of("serves") == "calls"
    assert memory.named("serves").parent.is_remote


async def test_without_tracing_the_callers_trace_is_passed_on():
    """A service that does not trace must not break the traces of those that do."""
    context = WorkflowContext(traceparent=PARENT, tracestate=STATE)
    headers, data = await sends.execute(1, context)
    assert (headers["traceparent"], headers["tracestate"]) == (PARENT, STATE)
    assert (data["traceparent"], data["tracestate"]) == (PARENT, STATE)


async def test_without_a_trace_none_is_passed_on():
    """There is nothing to join."""
    headers, data = await sends.execute(1, WorkflowContext())
    assert list(headers) == ["x-correlation-id"]
    assert data["traceparent"] is None


async def test_where_no_span_is_current_the_callers_trace_is_passed_on():
    """For instance where a context is made and sent, but no workflow runs."""
    context = WorkflowContext(traceparent=PARENT)
    with remembering():
        assert context.to_headers()["traceparent"] == PARENT
        context = WorkflowContext.from_dict(context.to_dict())
    assert context.traceparent == PARENT


@pytest.mark.parametrize(("flags", "shown"), [(0, "00"), (1, "01"), (3, "03")])
def test_header_has_the_ids_the_flags_and_the_state(flags, shown):
    """As W3C Trace Context writes them, padded with zeros."""
    place = SpanContext(
        0xA, 0xB, is_remote=False, trace_flags=TraceFlags(flags),
        trace_state=TraceState([("vendor", "1")]),
    )  # fmt: skip
    with use_span(NonRecordingSpan(place)):
        found = current_trace()()
    assert found == Trace(f"00-{'0' * 31}a-{'0' * 15}b-{shown}", "vendor=1")


def test_hook_may_be_taken_away():
    """Then contexts tell what they were given."""
    context = WorkflowContext("c", traceparent=PARENT)
    carry_trace(lambda: Trace("other"))
    try:
        assert context.to_headers()["traceparent"] == "other"
    finally:
        carry_trace(None)
    assert context.to_headers()["traceparent"] == PARENT
