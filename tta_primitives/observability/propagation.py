"""Where a run joins a trace, and how it passes the trace on: W3C Trace Context.

A run's root takes its parent from the OpenTelemetry span that is current, which a web
framework's instrumentation may have made, and else from the context's `traceparent`.
While workflows are traced, `context.to_headers()` and `context.to_dict()` tell the span
that is current where they are called.

The header is that of https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives.context import Trace
from tta_primitives.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tta_primitives.context import WorkflowContext

__all__ = ["current_trace", "joined"]

# Those that the header knows: sampled, and that the trace id is random.
_FLAGS = 3


def current_trace() -> Callable[[], Trace | None]:
    """Return the function that tells the current span as W3C headers do.

    Raises:
        ModuleNotFoundError: OpenTelemetry is not installed.
    """
    with needs("otel", "tracing", "opentelemetry"):
        from opentelemetry.trace import get_current_span

    def current() -> Trace | None:
        where = get_current_span().get_span_context()
        if not where.is_valid:
            return None
        flags = where.trace_flags & _FLAGS
        return Trace(
            f"00-{where.trace_id:032x}-{where.span_id:016x}-{flags:02x}",
            where.trace_state.to_header() or None,
        )

    return current


def joined(
    context: WorkflowContext,
    surroundings: Any,  # noqa: ANN401 - OpenTelemetry's context
) -> Any:  # noqa: ANN401 - as above
    """Return OpenTelemetry's context, in the caller's span that `traceparent` names.

    What is malformed is ignored: the run begins a trace of its own.

    Args:
        context: The run's.
        surroundings: OpenTelemetry's context where no span is current.
    """
    traceparent, tracestate = context.traceparent, context.tracestate
    if not isinstance(traceparent, str):
        return surroundings
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )

    headers = {"traceparent": traceparent}
    if isinstance(tracestate, str):
        headers["tracestate"] = tracestate
    return TraceContextTextMapPropagator().extract(headers, surroundings)
