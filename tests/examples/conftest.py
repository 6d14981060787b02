"""A local server that speaks as much of OpenAI's protocol as the example needs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class StubModel(ThreadingHTTPServer):
    """Answers with the replies in turn, the last one for ever; None is no answer.

    A reply is a status, headers and a body. `requests` has what was asked.
    """

    # Waiting for a client that hangs would be waiting for ever.
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.replies: list[tuple[int, dict, object] | None] = []
        self.is_asked = threading.Event()
        self.is_over = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answers(self, text: str) -> None:
        """Let the next reply be a whole answer."""
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        self.fails(200, body={"choices": [choice]})

    def fails(self, status: int, body: object = None, **headers: str) -> None:
        """Let the next reply be this one; `Retry_After` becomes `Retry-After`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append((status, named, body))

    def hangs(self) -> None:
        """Let the next request never be answered."""
        self.replies.append(None)


class Handler(BaseHTTPRequestHandler):
    server: StubModel

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(
            {"path": self.path, "headers": self.headers, "json": json.loads(body)}
        )
        self.server.is_asked.set()
        number = len(self.server.requests)
        reply = self.server.replies[min(number, len(self.server.replies)) - 1]
        if reply is None:
            self.server.is_over.wait()
            return
        status, headers, content = reply
        sent = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(sent))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *arguments: object) -> None:
        """Say nothing on the terminal."""


@pytest.fixture
def stub_model():
    """Run a stub of a model's server in a thread."""
    with StubModel() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()
