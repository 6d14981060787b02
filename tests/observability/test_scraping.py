"""Whoever scrapes, and however slowly, gets an answer, and holds up nobody."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.processes import ask
from tta_primitives.observability import metrics
from tta_primitives.observability.metrics import metrics_asgi_app, metrics_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tta_primitives.observability.metrics import Metrics

PATIENCE = 10.0


def started(**options: Any) -> Metrics:
    settings = {"port": 0, "registry": CollectorRegistry(), "share": False, **options}
    return metrics.start("shop", **settings)


@pytest.fixture
def served() -> Iterator[Metrics]:
    found = started()
    yield found
    found.shutdown()


def test_only_metrics_are_served(served) -> None:
    """Another path says where they are; HEAD has no body."""
    assert ask(served.port, "/metrics").status == 200
    assert ask(served.port, "/metrics?x=1").status == 200
    other = ask(served.port, "/")
    assert (other.status, other.body) == (404, b"Metrics are at /metrics.\n")
    head = ask(served.port, "/metrics", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert ask(served.port, "/metrics", method="POST").status == 501
    assert "python" not in str(other.headers).lower()


def test_scrapers_get_the_format_that_they_take(served) -> None:
    """Prometheus asks for OpenMetrics, and can read it."""
    accept = "application/openmetrics-text; version=1.0.0"
    answer = ask(served.port, "/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(answer.body.decode())
    assert "tta_processes" in {family.name for family in families}


def test_one_who_says_nothing_holds_up_nobody(served) -> None:
    """Others are answered meanwhile, and shutdown does not wait for him."""
    with socket.create_connection(("127.0.0.1", served.port)) as silent:
        silent.sendall(b"GET /met")
        assert ask(served.port, "/metrics").status == 200
        served.shutdown()
        silent.settimeout(PATIENCE)
        assert silent.recv(10) == b""
    assert not [t for t in threading.enumerate() if t.name.startswith("tta-metrics")]


def test_too_many_connections_are_closed(served) -> None:
    """They cost no threads without end; when they are gone all is well."""
    port = served.port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        closed = 0
        for one in silent:
            one.setblocking(False)
        silent[-1].setblocking(True)
        silent[-1].settimeout(PATIENCE)
        closed = silent[-1].recv(1) == b""
        threads = [t for t in threading.enumerate() if t.name == "tta-metrics-scrape"]
        assert closed
        assert len(threads) <= 32
    finally:
        for one in silent:
            one.close()


def test_what_can_not_be_told_is_an_answer(served, caplog, monkeypatch) -> None:
    """A collector of the app that raises is a 500, and a line in the log."""

    class Broken:
        def collect(self) -> None:
            raise RuntimeError("no")

    served._registry.register(Broken())
    answer = ask(served.port, "/metrics")
    assert (answer.status, b"no" in answer.body.split()) == (500, False)
    assert "Metrics could not be written down" in caplog.text


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
class Stuck:
    """A collector of the user's that does not answer."""

    def __init__(self) -> None:
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> list[Any]:
        self.is_asked.set()
        assert self.may_go_on.wait(60)
        return []


def test_scrapes_that_hang_hold_up_no_shutdown() -> None:
    """All who scrape together are waited for no longer than was said."""
    registry, stuck = CollectorRegistry(), Stuck()
    registry.register(stuck)
    found = started(registry=registry)
    clients = [
        socket.create_connection(("127.0.0.1", found.port), PATIENCE) for _ in range(8)
    ]
    for client in clients:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert stuck.is_asked.wait(PATIENCE)
    server = found._endpoint._server
    while len(server._threads_of) < len(clients):
        threading.Event().wait(0.01)
    threads = list(server._threads_of)
    ender = threading.Thread(target=found.shutdown, args=(1.0,))
    ender.start()
    ender.join(6.0)
    is_over = not ender.is_alive()
    stuck.may_go_on.set()
    for client in clients:
        client.close()
    for thread in (ender, *threads):
        thread.join(PATIENCE)
    assert is_over


def test_an_address_of_version_6_is_served() -> None:
    """The host may be one of either kind."""
    found = started(host="::1")
    try:
        if found.port is None:
            pytest.skip("the loopback has no IPv6 address here")
        with socket.create_connection(("::1", found.port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.0 200"
    finally:
        found.shutdown()


async def test_apps_answer_with_the_same(served) -> None:
    """One for ASGI and one for WSGI; both may be made before anything is counted."""
    wsgi, asgi = metrics_wsgi_app(), metrics_asgi_app()
    with httpx.Client(transport=httpx.WSGITransport(app=wsgi)) as client:
        sync = client.get("http://service/metrics")
        head = client.head("http://service/metrics")
        assert (head.content, head.headers) == (b"", sync.headers)
    transport = httpx.ASGITransport(app=asgi)
    async with httpx.AsyncClient(transport=transport) as client:
        reply = await client.get("http://service/metrics")
        assert reply.text == sync.text
        assert reply.headers == sync.headers
        assert "tta_processes" in reply.text
        served.shutdown()
        gone = await client.get("http://service/metrics")
    assert gone.status_code == 503
    assert "initialize_observability() was not called" in gone.text


async def test_the_asgi_app_lives_with_a_server() -> None:
    """A server that asks whether it is ready gets an answer."""
    told = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict:
        """Return what a server says."""
        return next(messages)

    async def send(message: dict) -> None:
        """Note what is answered."""
        told.append(message["type"])

    await metrics_asgi_app()({"type": "lifespan"}, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
