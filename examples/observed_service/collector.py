"""A collector that keeps spans in memory and prints them: it stands for Jaeger here.

It takes what Jaeger and the OpenTelemetry collector take: OTLP over HTTP.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Collector", "Span"]

_SHOWN = ("tta.attempt", "error.type", "tta.correlation_id")
_FAILED = 2


@dataclass(frozen=True, slots=True)
class Span:
    """What is shown of a span; times in seconds."""

    id: str
    parent: str
    trace: str
    name: str
    began: float
    seconds: float
    is_failed: bool
    attributes: dict[str, Any]
    events: tuple[str, ...]


class Collector:
    """Listens on a port of this machine while it is entered.

    Attributes:
        url: What `otlp_endpoint` takes.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        handler = type("Handler", (_Handler,), {"collector": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def lines(self) -> Iterator[str]:
        """Yield all traces as outlines, each span below the one that it is part of."""
        ids = {span.id for span in self.spans}
        below: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda one: one.began):
            parent = span.parent if span.parent in ids else ""
            below.setdefault(parent, []).append(span)

        def outline(parent: str, depth: int) -> Iterator[str]:
            for span in below.get(parent, []):
                yield "  " * depth + _line(span)
                yield from outline(span.id, depth + 1)

        yield from outline("", 0)


def _line(span: Span) -> str:
    shown = [span.name, f"{span.seconds * 1000:.0f} ms"]
    shown += [f"{k}={span.attributes[k]}" for k in _SHOWN if k in span.attributes]
    shown += ["FAILED"] * span.is_failed
    shown += [f"[{name}]" for name in span.events]
    return " ".join(shown)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.collector.spans += _decoded(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *about: object) -> None:
        """Print nothing."""


def _decoded(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                began = span.start_time_unix_nano / 1e9
                yield Span(
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    trace=span.trace_id.hex(),
                    name=span.name,
                    began=began,
                    seconds=span.end_time_unix_nano / 1e9 - began,
                    is_failed=span.status.code == _FAILED,
                    attributes={one.key: _value(one.value) for one in span.attributes},
                    events=tuple(event.name for event in span.events),
                )


def _value(value: Any) -> Any:  # noqa: ANN401 - of any type that OTLP knows
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
