"""Spans of workflows kept in memory, through the SDK of OpenTelemetry itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tta_primitives.context import carry_trace
from tta_primitives.door import listening
from tta_primitives.observability.propagation import current_trace
from tta_primitives.observability.redaction import Redactor
from tta_primitives.observability.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler


class SpanMemory:
    """A provider of the SDK, and the spans that ended.

    Attributes:
        tracer: For spans that a test makes itself.
        observer: Makes the spans of primitives.
    """

    def __init__(
        self, sampler: Sampler | None = None, *, content_length: int = 0
    ) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("user")
        self.observer = Spans(
            provider.get_tracer("tta_primitives"),
            Redactor(),
            content_length=content_length,
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that ended, in the order in which they began."""
        found = self._exporter.get_finished_spans()
        return sorted(found, key=lambda span: span.start_time or 0)

    def all_named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of this name."""
        return [span for span in self.spans if span.name == name]

    def named(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        (found,) = self.all_named(name)
        return found

    def parent_of(self, name: str) -> str | None:
        """Return the name of the parent of the only span of this name."""
        parent = self.named(name).parent
        if parent is None:
            return None
        by_id = {span.context.span_id: span.name for span in self.spans}
        return by_id.get(parent.span_id, "remote")

    def text(self) -> str:
        """Return all that the spans tell, to look for what must not be there."""
        return "\n".join(span.to_json() for span in self.spans)


@contextmanager
def remembering(
    sampler: Sampler | None = None, *, content_length: int = 0
) -> Iterator[SpanMemory]:
    """Keep the spans of all workflows that run in the block."""
    memory = SpanMemory(sampler, content_length=content_length)
    carry_trace(current_trace())
    try:
        with listening(observers=(memory.observer,)):
            yield memory
    finally:
        carry_trace(None)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span as a plain dict."""
    return dict(span.attributes or {})
