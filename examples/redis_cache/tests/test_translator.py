"""Who is asked when: the memory, Redis, the model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from examples.redis_cache.translator import Request, translator
from pytest_tta.faults import first
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from pytest_tta import Harness

HELLO = Request(tenant="acme", text="hello world")


@pytest.fixture
def server() -> FakeServer:
    """Make a Redis of the test's own."""
    return FakeServer()


async def ask(worker: object, request: Request = HELLO) -> str:
    """Ask a worker as a request does."""
    return await worker.execute(request, WorkflowContext())  # type: ignore[attr-defined, no-any-return]


async def test_workers_share_an_answer(tta: Harness, server: FakeServer) -> None:
    """The model is asked by the first worker alone."""
    workers = [translator(FakeAsyncRedis(server=server)) for _ in range(2)]
    assert [await ask(worker) for worker in workers] == ["hallo Welt"] * 2
    assert len(tta.trace.spans_at("translate")) == 1


async def test_answer_is_kept_for_an_hour(tta: Harness, server: FakeServer) -> None:
    """After five minutes Redis is asked, after an hour the model."""
    worker = translator(FakeAsyncRedis(server=server))
    for pause, calls in ((0, 1), (299, 1), (3000, 1), (301, 2)):
        await asyncio.sleep(pause)
        await ask(worker)
        assert len(tta.trace.spans_at("translate")) == calls


async def test_tenants_share_nothing(tta: Harness, server: FakeServer) -> None:
    """The same text of another tenant is another question."""
    worker = translator(FakeAsyncRedis(server=server))
    await ask(worker)
    await ask(worker, {**HELLO, "tenant": "other"})
    assert len(tta.trace.spans_at("translate")) == 2


async def test_many_who_ask_at_once_wait_for_one(
    tta: Harness, server: FakeServer
) -> None:
    """Fifty requests of two workers are one call of the model."""
    workers = [translator(FakeAsyncRedis(server=server)) for _ in range(2)]
    answers = await asyncio.gather(*(ask(workers[n % 2]) for n in range(50)))
    assert set(answers) == {"hallo Welt"}
    assert len(tta.trace.spans_at("translate")) == 1


async def test_redis_that_is_away_costs_no_request(
    tta: Harness, server: FakeServer
) -> None:
    """A cache that does not answer is a miss; the model is asked instead."""
    worker = translator(FakeAsyncRedis(server=server))
    server.connected = False
    assert await ask(worker) == "hallo Welt"
    assert len(tta.trace.spans_at("translate")) == 1


async def test_yesterdays_answer_is_better_than_none(
    tta: Harness, server: FakeServer
) -> None:
    """While the model is down, what has expired is given out."""
    worker = translator(FakeAsyncRedis(server=server))
    await ask(worker)
    await asyncio.sleep(7200)
    tta.faults.at("translate").fail(ConnectionError("down"), when=first(3))
    assert await ask(worker) == "hallo Welt"
    assert len(tta.trace.spans_at("translate")) == 4
