"""Turning tracing on: whose provider makes the spans, and where they are sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tta_primitives.context import carry_trace
from tta_primitives.door import add_observer, remove_observer
from tta_primitives.extras import needs
from tta_primitives.observability.cleaning import cleaner
from tta_primitives.observability.environment import (
    milliseconds,
    shown_endpoint,
    whole_number,
)
from tta_primitives.observability.exporting import SpanCounts, SpanQueue
from tta_primitives.observability.propagation import current_trace
from tta_primitives.observability.provider import Switch
from tta_primitives.observability.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tta_primitives.observability.redaction import Redactor

__all__ = ["Tracing", "TracingOptions", "has_own_provider", "start"]

_SCOPE = "tta_primitives"
# The one that was set for this process, if it was one of ours.
_switch: Switch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """How spans are made and sent.

    Attributes:
        service_name: Of the service that the process is a part of.
        endpoint: The URL that spans are sent to; None to send none.
        headers: Sent to the collector with each request.
        timeout: How long one request may take, in seconds.
        resource: More attributes of the service.
        sample_ratio: Which part of the traces that begin here is sampled; None for what
            the environment says, which is all unless it says something.
        queue_size: How many spans may wait; None for the environment, or 2048.
        content_length: How many characters of inputs and outputs are told, 0 for none.
    """

    service_name: str
    endpoint: str | None = None
    # A dataclass shows its fields, and headers are where keys are.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 2.0
    resource: Mapping[str, str] = field(default_factory=dict)
    sample_ratio: float | None = None
    queue_size: int | None = None
    content_length: int = 0


class Tracing:
    """The spans of this process, until `shutdown`.

    Args:
        observer: Makes spans of calls.
        queue: What they wait in to be sent; None if nothing is sent from here.
        provider: The SDK's provider; None if it is the app's.
    """

    def __init__(
        self,
        observer: Spans,
        queue: SpanQueue | None,
        provider: Any,  # noqa: ANN401 - the SDK is not imported here
    ) -> None:
        self._observer = observer
        self._queue = queue
        self._provider = provider

    @property
    def counts(self) -> SpanCounts:
        """What has become of the spans of this process."""
        return SpanCounts() if self._queue is None else self._queue.counts

    def tell_lost(self, hook: Callable[[int], None]) -> None:
        """Tell somebody of spans that were not exported, how many."""
        if self._queue is not None:
            self._queue.on_lost = hook

    def flush(self, timeout: float) -> bool:
        """Send what waits; return whether that was done within so many seconds."""
        return True if self._queue is None else self._queue.flush(timeout)

    def shutdown(self, timeout: float) -> None:
        """Make no more spans, and send what waits within so many seconds."""
        remove_observer(self._observer)
        carry_trace(None)
        if _switch is not None and _switch.inner is self._provider:
            _switch.inner = None
        if self._queue is not None:
            self._queue.close(timeout)


def has_own_provider() -> bool:
    """Tell whether the app has set a global TracerProvider of its own."""
    from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider

    return not isinstance(get_tracer_provider(), (ProxyTracerProvider, Switch))


def start(options: TracingOptions, redact: Redactor) -> Tracing:
    """Make a span for every execution of a primitive from now on.

    Args:
        options: How spans are made and sent.
        redact: Takes secrets out of what they tell.

    Raises:
        ModuleNotFoundError: OpenTelemetry is not installed.
        ValueError: Spans are to be sent, but the app has a provider of its own.
    """
    queue = provider = None
    if options.endpoint is not None:
        queue, provider = _sending(options, redact)
        tracer = provider.get_tracer(_SCOPE)
    else:
        with needs("otel", "tracing", "opentelemetry"):
            from opentelemetry.trace import get_tracer
        tracer = get_tracer(_SCOPE)
    observer = Spans(tracer, redact, content_length=options.content_length)
    if provider is not None:
        _make_global(provider)
    carry_trace(current_trace())
    add_observer(observer)
    return Tracing(observer, queue, provider)


def _sending(options: TracingOptions, redact: Redactor) -> tuple[SpanQueue, Any]:
    """Return a provider of the SDK, and the queue that its spans are sent from."""
    with needs("otel", "sending spans", "opentelemetry"):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    if has_own_provider():
        msg = (
            f"otlp_endpoint={shown_endpoint(options.endpoint or '')!r} has no effect: "
            "the app has set a TracerProvider of its own, which gets the spans. Add an "
            "exporter to that one and leave otlp_endpoint out, or initialize "
            "observability before anybody sets a provider"
        )
        raise ValueError(msg)
    sampler = None
    if options.sample_ratio is not None:
        sampler = ParentBased(TraceIdRatioBased(options.sample_ratio))
    queue = SpanQueue(
        _exporter(options),
        cleaner(redact, _SCOPE),
        max_queue=options.queue_size or whole_number("OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        max_batch=whole_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
        delay_seconds=milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5.0),
    )
    provider = TracerProvider(
        sampler=sampler,
        resource=Resource.create(
            {**options.resource, "service.name": options.service_name}
        ),
        # It would wait for as long as the exporter likes.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(queue)  # type: ignore[arg-type]
    return queue, provider


def _exporter(options: TracingOptions) -> Callable[[], Any]:
    """Return what makes an exporter; the first is made here, to see that it can be."""
    with needs("otel", "sending spans", "opentelemetry"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )

    def make() -> Any:  # noqa: ANN401 - the SDK is not imported here
        return OTLPSpanExporter(
            endpoint=options.endpoint,
            headers=dict(options.headers) or None,
            timeout=options.timeout,
        )

    make().shutdown()
    return make


def _make_global(provider: Any) -> None:  # noqa: ANN401 - as above
    """Let all tracers of the process be those of this provider."""
    global _switch  # noqa: PLW0603 - a process has one provider, for ever
    if _switch is None:
        from opentelemetry.trace import set_tracer_provider

        _switch = Switch()
        set_tracer_provider(_switch)  # type: ignore[arg-type]
    _switch.inner = provider
