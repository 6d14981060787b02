"""FastAPI under uvicorn and gunicorn, in processes that are told to end."""

from __future__ import annotations

import asyncio
import os
import signal

import httpx
import pytest

from tests.otlp_receiver import Receiver
from tests.processes import HOST, PATIENCE, ask, free_port

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to processes")

APP = "tests.integrations.fastapi_app:app"
RUNS = 200


@pytest.fixture
def receiver():
    """Return a collector that takes what is sent to it."""
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture
def serve(processes):
    """Start a server of a kind, and return it with its port once it answers."""

    def serve(kind, *options, **settings):
        """Start it."""
        port = free_port()
        if kind == "uvicorn":
            words = ["-m", "uvicorn", APP, "--host", HOST, "--port", str(port)]
            # Or it closes idle connections just when the client uses them again.
            words += ["--timeout-keep-alive", "60"]
        else:
            words = ["-m", "gunicorn", APP, "--bind", f"{HOST}:{port}"]
            words += ["-k", "uvicorn.workers.UvicornWorker", "--workers", "1"]
            words += ["--keep-alive", "60"]
        server = processes.python(*words, *options, **settings)
        server.wait_for_answer(port, "/readyz")
        return server, port

    return serve


def client_of(port, connections=RUNS):
    """Return a client that opens so many connections."""
    limits = httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(
        base_url=f"http://{HOST}:{port}", limits=limits, timeout=PATIENCE
    )


async def running_is(port, count):
    """Wait until the server says that so many requests run."""
    while True:
        answer = await asyncio.to_thread(ask, port, "/health")
        if answer is not None and f'"running":{count},'.encode() in answer.body:
            return
        await asyncio.sleep(0.01)


async def readiness(port):
    """Return what readiness answers until nobody answers any more."""
    found = []
    while True:
        answer = await asyncio.to_thread(ask, port, "/readyz", timeout=5.0)
        if answer is None:
            return found
        found.append((answer.status, answer.body))
        await asyncio.sleep(0.01)


# What SIGINT means under gunicorn is its own: a quick end.
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param("uvicorn", signal.SIGTERM, id="uvicorn"),
        pytest.param("gunicorn", signal.SIGTERM, id="gunicorn"),
        pytest.param("uvicorn", signal.SIGINT, id="Ctrl+C", marks=pytest.mark.long),
    ],
)
async def test_signal_loses_no_run_and_shows_in_readiness_first(
    serve, kind, number
) -> None:
    """200 workflows are answered; 503 comes before the socket closes."""
    server, port = await asyncio.to_thread(
        lambda: serve(kind, PRESTOP_SECONDS="1", REST_SECONDS="1.5")
    )
    async with client_of(port) as client, asyncio.timeout(PATIENCE):
        asked = [
            asyncio.ensure_future(client.get(f"/wait/{value}")) for value in range(RUNS)
        ]
        await running_is(port, RUNS)
        server.send(number)
        probes = asyncio.ensure_future(readiness(port))
        replies = await asyncio.gather(*asked)
        found = await probes
    assert [reply.json() for reply in replies] == [
        {"value": 2 * value} for value in range(RUNS)
    ]
    assert found[-1] == (503, b'{"status":"draining"}')
    code = await asyncio.to_thread(server.wait)
    assert code in {0, -number}
    assert "Traceback" not in server.output


async def test_end_comes_within_the_budget_though_a_request_hangs(serve) -> None:
    """A server would wait for ever; the client has an answer, and not a broken line."""
    server, port = await asyncio.to_thread(lambda: serve("uvicorn", DRAIN_SECONDS="1"))
    async with client_of(port) as client, asyncio.timeout(PATIENCE):
        asked = asyncio.ensure_future(client.get("/hang"))
        await running_is(port, 1)
        server.send(signal.SIGTERM)
        reply = await asked
    assert reply.status_code == 503
    assert reply.json()["detail"] == "the service is shutting down; ask again"
    assert await asyncio.to_thread(server.wait) == -signal.SIGTERM


async def test_nobody_waits_if_nobody_runs(serve) -> None:
    """An idle server ends at once, with its lifespan."""
    server, _ = await asyncio.to_thread(lambda: serve("uvicorn"))
    assert await asyncio.to_thread(server.stop) == -signal.SIGTERM
    assert "Application shutdown complete" in server.output


async def test_last_spans_are_sent_though_a_signal_ends_the_server(
    serve, receiver
) -> None:
    """Nothing runs at the interpreter's exit: uvicorn ends by the signal itself."""
    server, port = await asyncio.to_thread(
        lambda: serve("uvicorn", OTLP_ENDPOINT=receiver.url)
    )
    async with client_of(port, 1) as client:
        assert (await client.get("/quick/1")).json()["value"] == 4
    assert await asyncio.to_thread(server.stop) == -signal.SIGTERM
    assert {span.name for span in receiver.spans} >= {"sequential", "double"}


async def test_stream_is_closed_when_its_client_breaks_off(serve) -> None:
    """The generator ends inside of the server, which goes on."""
    server, port = await asyncio.to_thread(lambda: serve("uvicorn"))
    async with client_of(port) as client, asyncio.timeout(PATIENCE):
        async with client.stream("GET", "/stream/1000000") as reply:
            async for line in reply.aiter_lines():
                if line == "data: 3":
                    break
        await asyncio.to_thread(server.wait_for, "stream closed")
        await running_is(port, 0)
        assert (await client.get("/quick/1")).json()["value"] == 4


async def test_stream_comes_while_it_is_made(serve) -> None:
    """Events arrive one by one, and a complete stream says so."""
    _, port = await asyncio.to_thread(lambda: serve("uvicorn"))
    async with client_of(port) as client, client.stream("GET", "/stream/3") as reply:
        lines = [line async for line in reply.aiter_lines() if line]
    assert lines == ["data: 0", "data: 1", "data: 2", "event: done", "data: "]


async def load(port, count, path="/quick", at_once=50, milestones=None):
    """Ask so many times, so many at a time; return what was answered wrong."""
    numbers = iter(range(count))
    wrong = []

    async def ask_on(client):
        """Ask as long as there is something to ask."""
        for number in numbers:
            headers = {"x-correlation-id": f"id-{number}"}
            try:
                if number in (milestones or {}):
                    milestones[number].set()
                reply = await client.get(f"{path}/{number % 500}", headers=headers)
                expected = {"value": 4 * (number % 500), "id": f"id-{number}"}
                if reply.status_code != 200 or reply.json() != expected:
                    wrong.append((number, reply.status_code, reply.text))
            except httpx.HTTPError as error:
                wrong.append((number, repr(error)))

    async with client_of(port, at_once) as client:
        await asyncio.gather(*[ask_on(client) for _ in range(at_once)])
    return wrong


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("uvicorn", 100, id="uvicorn"),
        pytest.param("uvicorn", 10_000, id="uvicorn, many", marks=pytest.mark.long),
        pytest.param("gunicorn", 10_000, id="gunicorn, many", marks=pytest.mark.long),
    ],
)
async def test_every_request_has_its_own_answer(serve, kind, count) -> None:
    """Under load no request fails, and each gets its own correlation id back."""
    options = ["--workers", "2"] if kind == "gunicorn" else []
    server, port = await asyncio.to_thread(lambda: serve(kind, *options))
    assert await load(port, count) == []
    await asyncio.to_thread(server.stop)


@pytest.mark.long
async def test_outages_of_what_it_uses_fail_no_request(
    serve, redis_server, receiver
) -> None:
    """Redis and the collector are killed, come back, hang and go on: 10 000 answers."""
    server, port = await asyncio.to_thread(
        lambda: serve("uvicorn", REDIS_URL=redis_server.url, OTLP_ENDPOINT=receiver.url)
    )
    told = {number: asyncio.Event() for number in (2000, 4000, 6000, 8000)}
    asked = asyncio.ensure_future(load(port, 10_000, "/cached", milestones=told))

    await told[2000].wait()
    assert receiver.spans
    await asyncio.to_thread(redis_server.kill)
    receiver.mode = "kill"
    await told[4000].wait()
    await asyncio.to_thread(redis_server.start)
    receiver.mode = "ok"
    await told[6000].wait()
    redis_server.hang()
    receiver.mode = "hang"
    await told[8000].wait()
    assert ask(port, "/readyz").status == 200
    redis_server.wake()

    assert await asked == []
    began = asyncio.get_running_loop().time()
    assert await asyncio.to_thread(server.stop) == -signal.SIGTERM
    # The collector still hangs: what is sent at the end may take two seconds.
    assert asyncio.get_running_loop().time() - began < 20
    assert "Traceback" not in server.output
