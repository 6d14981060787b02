"""A client of httpx that all runs share: its pool, its limits, its end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.errors import BulkheadFullError, TimeoutExceededError
from tta_primitives.recovery import BulkheadPrimitive, RetryPrimitive, TimeoutPrimitive
from tta_primitives.runtime import Lifecycle

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42"


class Server:
    """Answers each request after some seconds of virtual time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.connections: list[asyncio.StreamWriter] = []
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader, writer) -> None:
        self.connections.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await asyncio.sleep(self.seconds)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def serving(seconds: float = 10.0):
    made = Server(seconds)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        for writer in made.connections:
            writer.close()
            await writer.wait_closed()


def client_for(server: Server, connections: int = 2, pool: float = 1.0):
    return httpx.AsyncClient(
        base_url=server.url,
        timeout=httpx.Timeout(30.0, pool=pool),
        limits=httpx.Limits(max_connections=connections),
    )


@step
async def get(path: str, context: WorkflowContext) -> str:
    answer = await context.deps["http"].get(path, headers=context.to_headers())
    return answer.raise_for_status().text


async def test_runs_share_connections(tta) -> None:
    """Twenty calls of ten runs go over two connections."""
    async with serving() as server, client_for(server, pool=600) as http:
        workflow = get >> (lambda _: "/again") >> get
        deps = {"http": http}
        runs = [workflow.execute("/", WorkflowContext(deps=deps)) for _ in range(10)]
        assert await asyncio.gather(*runs) == ["42"] * 10
        assert len(server.connections) == 2
    assert tta.elapsed == 100.0


async def test_correlation_id_goes_with_the_request(tta) -> None:
    """The server sees who asks."""
    async with serving() as server, client_for(server) as http:
        context = WorkflowContext("c7", deps={"http": http})
        await get.execute("/", context)
        assert b"x-correlation-id: c7" in server.requests[0]


async def test_full_pool_is_told_after_its_limit(tta) -> None:
    """The third call waits for a second, exactly, and nothing of it is sent."""
    async with serving() as server, client_for(server) as http:
        context = WorkflowContext(deps={"http": http})
        calls = [asyncio.create_task(get.execute(p, context)) for p in ("/a", "/b")]
        await asyncio.sleep(0.5)
        with pytest.raises(httpx.PoolTimeout, match=r"^$"):
            await get.execute("/c", context)
        assert tta.elapsed == 1.5
        assert await asyncio.gather(*calls) == ["42", "42"]
        assert len(server.requests) == 2


async def test_full_pool_is_worth_another_attempt(tta) -> None:
    """Nothing was sent, so that a retry is safe whatever the call does."""
    async with serving(2.0) as server, client_for(server, connections=1) as http:
        context = WorkflowContext(deps={"http": http})
        retried = RetryPrimitive(get, retry_on=httpx.PoolTimeout, jitter="none")
        assert await asyncio.gather(
            get.execute("/a", context), retried.execute("/b", context)
        ) == ["42", "42"]
        assert retried.stats.retries == 1


async def test_bulkhead_as_wide_as_the_pool_does_the_waiting(tta) -> None:
    """In order, without a limit of the pool being reached; what is too much is told."""
    async with serving() as server, client_for(server) as http:
        context = WorkflowContext(deps={"http": http})
        bounded = BulkheadPrimitive(get, max_concurrency=2, max_queue=2)
        calls = MapPrimitive(bounded, max_concurrency=5, return_exceptions=True)
        answers = await calls.execute([*"abcde"], context)
        assert answers[:4] == ["42"] * 4
        assert isinstance(answers[4], BulkheadFullError)
        assert tta.elapsed == 20.0


async def test_cancelled_call_gives_its_place_back(tta) -> None:
    """A time limit of ours ends the call, and the pool is as good as new."""
    async with serving() as server, client_for(server, connections=1) as http:
        context = WorkflowContext(deps={"http": http})
        with pytest.raises(TimeoutExceededError, match="get"):
            await TimeoutPrimitive(get, timeout_seconds=3).execute("/", context)
        assert await get.execute("/", context) == "42"
        assert tta.elapsed == 13.0


async def test_client_is_closed_once_after_the_last_run(tta) -> None:
    """Draining waits for the call that is under way, then closes the client."""
    closed = []
    async with serving() as server:
        async with Lifecycle(drain_seconds=30, track_runs=True) as lifecycle:
            http = client_for(server)

            async def close() -> None:
                """Close the client, and remember when."""
                closed.append(tta.elapsed)
                await http.aclose()

            lifecycle.on_shutdown(close)
            context = WorkflowContext(deps={"http": http})
            run = asyncio.create_task(get.execute("/", context))
            await asyncio.sleep(4)
        assert await run == "42"
    assert closed == [10.0]
    assert http.is_closed
