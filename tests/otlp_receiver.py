"""A collector on the loopback: it takes OTLP over HTTP, and misbehaves when told to."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from tests.processes import HOST, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Received:
    """One span as it came over the wire.

    Attributes:
        text: All that was sent of it, to look for what must not be there.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    status: int
    description: str
    service: str
    scope: str
    text: str = field(repr=False)
    state: str = ""


class Receiver:
    """The collector: `url` is what `otlp_endpoint` takes.

    Attributes:
        mode: `ok`, `hang` (accept, never answer), `error` (500), or `kill` (reset the
            connection in the middle of the answer).
        headers: Those of the last request.
        requests: How many requests have come, answered or not.
        connections: Those that were accepted.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.requests = 0
        self.headers: dict[str, str] = {}
        self.connections: list[socket.socket] = []
        self._spans: list[Received] = []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def stop(self) -> None:
        """Close all connections, and refuse new ones; let go who hangs."""
        self._released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(PATIENCE)
        while self.connections:
            with suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)

    @property
    def spans(self) -> list[Received]:
        """What was taken so far."""
        with self._changed:
            return list(self._spans)

    def named(self, name: str) -> Received:
        """Return the only span of this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> list[str]:
        """Return the spans as an outline, children below their parents."""
        lines: list[str] = []
        ids = {span.span_id for span in self.spans}

        def show(parent: str, depth: int) -> None:
            for span in self.spans:
                is_root = depth == 0 and span.parent_id not in ids
                if is_root or (depth and span.parent_id == parent):
                    lines.append("  " * depth + span.name)
                    show(span.span_id, depth + 1)

        show("", 0)
        return lines

    def wait_until(self, condition: Callable[[Receiver], bool]) -> None:
        """Wait until something is true of what has come."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), PATIENCE):
                names = [span.name for span in self._spans]
                pytest.fail(f"it did not come; {self.requests=}, spans: {names}")

    def took(self, request: _Handler, body: bytes) -> None:
        """Note a request."""
        found = list(_decoded(body)) if self.mode == "ok" else []
        with self._changed:
            self.requests += 1
            self.headers = {k.lower(): v for k, v in request.headers.items()}
            self._spans += found
            self._changed.notify_all()

    def answer(self, request: _Handler) -> None:
        """Answer as the mode says."""
        if self.mode == "hang":
            self._released.wait(PATIENCE * 2)
        elif self.mode == "kill":
            request.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-le")
            linger = struct.pack("ii", 1, 0)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.close_connection = True
        else:
            request.send_response(200 if self.mode == "ok" else 500)
            request.send_header("content-length", "0")
            request.end_headers()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def setup(self) -> None:
        super().setup()
        self.receiver.connections.append(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.receiver.took(self, body)
        with suppress(OSError):
            self.receiver.answer(self)

    def log_message(self, *about: object) -> None:
        """Print nothing."""


def _handler(receiver: Receiver) -> type[_Handler]:
    return type("Handler", (_Handler,), {"receiver": receiver})


def _decoded(body: bytes) -> Iterator[Received]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    attributes=_attributes(span.attributes),
                    events=[(e.name, _attributes(e.attributes)) for e in span.events],
                    status=span.status.code,
                    description=span.status.message,
                    service=service,
                    scope=scope.scope.name,
                    text=str(span),
                    state=span.trace_state,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a collector that takes what is sent to it."""
    found = Receiver()
    yield found
    found.stop()
