"""Spans that other code has made, without secrets: the last look before they are sent.

An instrumented HTTP client writes URLs and headers down, and `start_as_current_span`
the text of whatever error passes through. Spans of primitives are clean from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tta_primitives.observability.redaction import Redactor

__all__ = ["cleaner"]


def cleaner(redact: Redactor, own_scope: str) -> Callable[[Any], Any]:
    """Return what makes a span of the SDK one without secrets.

    Args:
        redact: Takes them out.
        own_scope: The name of the instrumentation whose spans are clean already.
    """
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, Status

    def clean(span: ReadableSpan) -> ReadableSpan:
        scope = span.instrumentation_scope
        if scope is not None and scope.name == own_scope:
            return span
        status = span.status
        if status.description:
            status = Status(status.status_code, redact.text(status.description))
        return ReadableSpan(
            name=redact.text(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=redact(span.attributes or {}),
            events=[
                Event(one.name, redact(one.attributes or {}), one.timestamp)
                for one in span.events
            ],
            links=[
                Link(one.context, redact(one.attributes or {})) for one in span.links
            ],
            kind=span.kind,
            status=status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )

    return clean
