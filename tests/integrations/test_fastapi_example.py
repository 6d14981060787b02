"""The bundled service, as a reader starts it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.processes import ask, free_port

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to processes")


def test_service_serves_and_ends_when_it_is_told_to(processes) -> None:
    """`--serve` answers on the loopback, and leaves at Ctrl+C with everything done."""
    port = free_port()
    words = ["-m", "examples.fastapi_service", "--serve", "--port", str(port)]
    server = processes.python(*words)
    server.wait_for_answer(port, "/livez")
    body = b'{"text": "Why?"}'
    headers = {"content-type": "application/json", "x-correlation-id": "order-7"}
    reply = ask(port, "/answers", method="POST", body=body, headers=headers)
    assert (reply.status, reply.headers["x-correlation-id"]) == (200, "order-7")
    assert reply.body == b'{"text":"why: 42","correlation_id":"order-7"}'
    server.stop(signal.SIGINT)
    assert "Application shutdown complete" in server.output
    assert ask(port) is None
