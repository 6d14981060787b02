"""The service in virtual time: no socket, no server, no second of waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from examples.fastapi_service.service import app, lifecycle
from examples.fastapi_service.workflow import answer
from pytest_tta.faults import first
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import positions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pytest_tta import Harness


@pytest.fixture
async def client(tta: Harness) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001 - its time
    """A client of the running application, with nothing in its cache."""
    for _, primitive in positions(answer):
        if isinstance(primitive, CachePrimitive):
            await primitive.clear()
    # What is answered with 500 is also raised, for the log of a server.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield client


async def ask(
    client: httpx.AsyncClient, text: str = "why?", **headers: str
) -> httpx.Response:
    """Ask the service."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/answers", json={"text": text}, headers=named)


async def test_question_is_answered(client: httpx.AsyncClient) -> None:
    """The caller's correlation id comes back in the body and in a header."""
    reply = await ask(client, x_correlation_id="order-7")
    assert reply.status_code == 200
    assert reply.json() == {"text": "why: 42", "correlation_id": "order-7"}
    assert reply.headers["x-correlation-id"] == "order-7"


async def test_short_outage_is_not_seen(
    tta: Harness, client: httpx.AsyncClient
) -> None:
    """Two failures in a row are retried."""
    tta.faults.at("think").fail(ConnectionError("down"), when=first(2))
    assert (await ask(client)).status_code == 200


async def test_outage_is_told_without_details(
    tta: Harness, client: httpx.AsyncClient
) -> None:
    """500 with the id by which the error is found in the log; no text of it."""
    tta.faults.at("think").fail(ConnectionError("postgres://u:secret@db"))
    reply = await ask(client, x_correlation_id="order-7")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json()["correlation_id"] == "order-7"


async def test_model_that_hangs_is_given_up(
    tta: Harness, client: httpx.AsyncClient
) -> None:
    """Three attempts of ten seconds would be 30: at 20 the request is over."""
    tta.faults.at("think").hang()
    began = tta.clock.elapsed
    assert (await ask(client)).status_code == 504
    assert tta.clock.elapsed - began == pytest.approx(20)


async def test_caller_in_a_hurry_is_answered_in_time(
    tta: Harness, client: httpx.AsyncClient
) -> None:
    """A caller that gives up after two seconds says so, and nobody works longer."""
    tta.faults.at("think").hang()
    reply = await ask(client, x_request_timeout="2")
    assert (reply.status_code, round(tta.clock.elapsed)) == (504, 2)


async def test_too_many_questions_are_refused(client: httpx.AsyncClient) -> None:
    """50 are with the model; the others are told at once, rather than in a minute."""
    questions = [f"{number}?" for number in range(60)]
    replies = await asyncio.gather(*[ask(client, text) for text in questions])
    found = [reply.status_code for reply in replies]
    assert (found.count(200), found.count(503)) == (50, 10)


async def test_stream_comes_in_words(client: httpx.AsyncClient) -> None:
    """Server-sent events, with a sign that the answer is complete."""
    reply = await client.get("/answers/stream", params={"question": "so what?"})
    assert reply.text.split() == [
        *("data:", "so", "data:", "what:", "data:", "42"),
        *("event:", "done", "data:"),
    ]


async def test_drain_waits_for_what_was_asked(client: httpx.AsyncClient) -> None:
    """Readiness is gone at once, and the answer comes nevertheless."""
    asked = asyncio.ensure_future(ask(client))
    await asyncio.sleep(0.5)
    lifecycle.begin_drain()
    assert (await client.get("/readyz")).status_code == 503
    report = await lifecycle.drain()
    assert (await asked).status_code == 200
    assert (report.completed, report.cancelled) == (1, 0)


async def test_health_tells_what_was_counted(client: httpx.AsyncClient) -> None:
    """The numbers of the workflow, by path."""
    await ask(client)
    reply = await client.get("/health")
    assert reply.status_code == 200
    assert "answer/cache" in reply.json()["workflows"]["answer"]
