"""How Prometheus gets at the numbers: a small server, or an app inside of the user's.

Of several processes with one port the first that binds it serves all of them, and
another one takes over when that process is gone.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from tta_primitives.observability import group

    Answer = tuple[str, bytes]
    Render = Callable[[str], Answer]
    Scope = MutableMapping[str, Any]
    ASGIApp = Callable[
        [Scope, Callable[[], Awaitable[Scope]], Callable[[Scope], Awaitable[None]]],
        Awaitable[None],
    ]
    WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

__all__ = ["Endpoint", "asgi_app_of", "wsgi_app_of"]

logger: logging.Logger = logging.getLogger("tta_primitives.observability")

# Who connects and says nothing is not waited for longer than this, in seconds.
_PATIENCE = 5.0
_MOST_CONNECTIONS = 32
_PLAIN = "text/plain; charset=utf-8"
_NOT_HERE = b"Metrics are at /metrics.\n"
_NOT_STARTED = (
    b"Metrics are not collected: initialize_observability() was not called.\n"
)


# Without a file of its own, which a fork would keep open.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = _PATIENCE
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Answer with the numbers."""
        if self.path.partition("?")[0] not in {"/metrics", "/metrics/"}:
            self._answer(404, _PLAIN, _NOT_HERE)
            return
        try:
            kind, body = self.server.render(self.headers.get("accept", ""))
        except Exception:
            logger.exception("Metrics could not be written down")
            self._answer(500, _PLAIN, b"Metrics could not be written down.\n")
            return
        self._answer(200, kind, body)

    do_HEAD = do_GET  # noqa: N815 - the name is that of the method

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Do not tell which Python this is."""
        return "tta"

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - as in the base
        """Write nothing of every scrape."""


class _Server(ThreadingHTTPServer):
    """A server whose connections can all be ended."""

    # On Windows it would take the port away from another process.
    allow_reuse_address = os.name != "nt"
    daemon_threads = True
    # Who finds the queue full is not heard for a second.
    request_queue_size = 128
    render: Render

    def __init__(self, address: tuple[str, int], render: Render) -> None:
        self.render = render
        self._open: set[socket.socket] = set()
        self._threads_of: set[Thread] = set()
        self._guard = Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without asking a name server who we are."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A client may be gone before it is accepted.
        self.socket.settimeout(0.0)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base
        """Answer in a thread, of which there are not too many."""
        with self._guard:
            is_full = len(self._open) >= _MOST_CONNECTIONS
            if not is_full:
                self._open.add(request)
        if is_full:
            self.shutdown_request(request)
            return
        thread = Thread(
            target=self._serve_one,
            args=(request, client_address),
            name="tta-metrics-scrape",
            daemon=True,
        )
        with self._guard:
            self._threads_of.add(thread)
        thread.start()

    def _serve_one(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as above
        self.process_request_thread(request, client_address)
        with self._guard:
            self._open.discard(request)
            self._threads_of = {one for one in self._threads_of if one.is_alive()}

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as above
        """Write nothing: a scraper that goes away is no event."""

    def serve_until(self, woken: socket.socket) -> None:
        """Accept connections until there is something to read from a socket."""
        with _Selector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if woken in ready:
                    return
                if self.socket in ready:
                    self._handle_request_noblock()  # type: ignore[attr-defined]

    def end(self, timeout: float) -> None:
        """Close the port and all connections, and wait for their threads."""
        self.socket.close()
        with self._guard:
            connections, threads = list(self._open), list(self._threads_of)
        for one in connections:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        end = _moment() + timeout
        for thread in threads:
            thread.join(max(0.0, end - _moment()))


class Endpoint:
    """`/metrics` on a port, served by one process of those that would.

    Args:
        host: The address to bind.
        port: The port to bind, 0 for any.
        render: Returns kind and text of the answer for what a scraper accepts.
        turn: The lock of whoever serves, None if there is but one process.
        retry_seconds: How often another process looks whether it may serve.
    """

    def __init__(
        self,
        host: str,
        port: int,
        render: Render,
        turn: group.Lock | None,
        retry_seconds: float,
    ) -> None:
        self._host = host
        self._port = port
        self._render = render
        self._turn = turn
        self._retry = retry_seconds
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self._stopping = Event()
        self._ears: tuple[socket.socket, socket.socket] | None = None
        self._has_warned = False

    @property
    def port(self) -> int | None:
        """The port that this process serves, None while another one does."""
        server = self._server
        return None if server is None else server.server_port

    def start(self) -> None:
        """Serve if the port is free, else as soon as it is."""
        self._ears = socket.socketpair()
        self._attempt()
        self._thread = Thread(target=self._run, name="tta-metrics", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop, and leave no thread and no socket; never wait longer."""
        end = _moment() + timeout
        self._stopping.set()
        thread, self._thread = self._thread, None
        if self._ears is not None:
            with suppress(OSError):
                self._ears[1].send(b"x")
        if thread is not None:
            thread.join(timeout)
        self._close(max(0.0, end - _moment()))

    def forked(self) -> None:
        """Close, in a child, the copies of the parent's sockets."""
        self._thread = None
        server, self._server = self._server, None
        if server is not None:
            server.socket.close()
            for one in server._open:
                one.close()
        for ear in self._ears or ():
            ear.close()
        if self._turn is not None:
            self._turn.release()

    def _run(self) -> None:
        while not self._stopping.is_set():
            server, ears = self._server, self._ears
            if server is not None and ears is not None:
                server.serve_until(ears[0])
                return
            if not self._stopping.wait(self._retry):
                self._attempt()

    def _attempt(self) -> None:
        """Become the one that serves, if that is possible now."""
        try:
            if self._turn is not None and not self._turn.take():
                return
            self._server = _Server((self._host, self._port), self._render)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("%s", self._reason(error))

    def _reason(self, error: OSError) -> str:
        where = f"{self._host}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return (
                f"Metrics are not served: {where} is taken by another program. It is "
                "tried again; prometheus_port= says where else to serve them."
            )
        return f"Metrics are not served on {where}: {error.strerror or error}"

    def _close(self, timeout: float) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end(timeout)
        for ear in self._ears or ():
            ear.close()
        self._ears = None
        if self._turn is not None:
            self._turn.release()


def _moment() -> float:
    """Return the time by which threads wait for each other."""
    return time.monotonic()  # noqa: TID251 - a thread waits, not a loop


def wsgi_app_of(
    render: Callable[[], Render | None],
) -> WSGIApp:
    """Return a WSGI app that answers every path with the numbers.

    Args:
        render: Asked on each request for what answers it, None if there is nothing.
    """

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, kind, body = _answered(render(), environ.get("HTTP_ACCEPT", ""))
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return app


def asgi_app_of(
    render: Callable[[], Render | None],
) -> ASGIApp:
    """Return an ASGI app that answers every path with the numbers.

    Args:
        render: As for the WSGI app.
    """

    async def app(
        scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        """Answer one request, or live as long as the server does."""
        from asyncio import to_thread

        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        headers = dict(scope.get("headers", ()))
        accept = headers.get(b"accept", b"").decode("latin-1")
        # Files of many processes are read: not on the loop that serves requests.
        status, kind, body = await to_thread(_answered, render(), accept)
        await send(
            {
                "type": "http.response.start",
                "status": int(status[:3]),
                "headers": [
                    (b"content-type", kind.encode()),
                    (b"content-length", str(len(body)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return app


async def _live(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Have nothing to do when a server starts and stops."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _answered(render: Render | None, accept: str) -> tuple[str, str, bytes]:
    if render is None:
        return "503 Service Unavailable", _PLAIN, _NOT_STARTED
    kind, body = render(accept)
    return "200 OK", kind, body
