"""Libraries that run on a simulated loop as they are, each if it is installed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.clock import VirtualClock
from pytest_tta.clock.simulation import SimulationLoop
from pytest_tta.faults import rate_limit
from pytest_tta.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[SimulationLoop]:
    """Make a loop with a clock that everybody sees, and begin an execution."""
    with VirtualClock() as clock:
        made = SimulationLoop(clock)
        made.begin()
        yield made
        made.close()


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_httpx_with_a_mock_transport(loop: SimulationLoop, library: str) -> None:
    """Requests that an operation delays end in the order that is chosen."""
    httpx = pytest.importorskip(library)
    log: list[str] = []

    async def answer(request: Any) -> Any:
        await loop.operation(request.url.path)
        return httpx.Response(200, text="ok")

    async def body() -> None:
        """Ask twice at once."""
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport) as client:

            async def ask(path: str) -> None:
                response = await client.get(f"http://shop{path}", timeout=5)
                log.append(f"{path} {response.text}")

            await asyncio.gather(ask("/a"), ask("/b"))

    loop.begin(lambda units: len(units) - 1)
    loop.run(body())
    assert log == ["/b ok", "/a ok"]


def test_anyio_is_taken_in_once(loop: SimulationLoop) -> None:
    """A thousand executions do not put a thousand functions around its own."""
    asyncio_backend = pytest.importorskip("anyio._backends._asyncio").AsyncIOBackend
    loop.begin()
    taken_in = vars(asyncio_backend)["run_sync_in_worker_thread"]
    loop.begin()
    assert vars(asyncio_backend)["run_sync_in_worker_thread"] is taken_in


def test_anyio_groups_events_and_limits(loop: SimulationLoop) -> None:
    """Its limits are limits: an operation comes before them, but for a budget."""
    anyio = pytest.importorskip("anyio")

    async def body() -> tuple[bool, float]:
        """Wait for an event that an operation sets, 2 s at most."""
        event = anyio.Event()

        async def work() -> None:
            await anyio.sleep(1)
            await loop.operation("work")
            event.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            with anyio.move_on_after(2) as scope:
                await event.wait()
        return scope.cancelled_caught, anyio.current_time()

    loop.begin()
    assert loop.run(body()) == (False, 1.0)
    loop.begin(lambda units: len(units) - 1, early=1)
    assert loop.run(body()) == (True, 2.0)
    assert [unit.kind for unit in loop.choices[-1].units] == ["op", "deadline"]


def test_anyio_threads_are_operations(loop: SimulationLoop) -> None:
    """It starts threads of its own; here they run inline, with their context."""
    anyio = pytest.importorskip("anyio")
    log: list[str] = []

    async def body() -> int:
        """Call three functions in threads."""
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, log.append, "a")
            group.start_soon(anyio.to_thread.run_sync, log.append, "b")
        return await anyio.to_thread.run_sync(len, log)

    loop.begin(lambda units: len(units) - 1)
    assert loop.run(body()) == 2
    assert log == ["b", "a"]
    assert loop.choices[0].units[0].label == "thread:list.append"


def test_starlette_runs_blocking_endpoints_inline(loop: SimulationLoop) -> None:
    """It asks anyio for a thread, in the process of the test."""
    httpx = pytest.importorskip("httpx")
    starlette = pytest.importorskip("starlette.applications")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def endpoint(request: Any) -> Any:
        return PlainTextResponse(request.url.path)

    async def body() -> str:
        """Ask the application without a network."""
        app = starlette.Starlette(routes=[Route("/orders", endpoint)])
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.get("http://shop/orders")
            return str(response.text)

    assert loop.run(body()) == "/orders"
    assert loop.rests == 1


def test_anyio_threads_are_threads_on_other_loops() -> None:
    """Whoever does not simulate notices nothing."""
    anyio = pytest.importorskip("anyio")
    import threading

    assert anyio.run(anyio.to_thread.run_sync, threading.get_ident) != (
        threading.get_ident()
    )


def test_tenacity_waits_in_virtual_time(loop: SimulationLoop) -> None:
    """Its backoff is a timer of the loop."""
    tenacity = pytest.importorskip("tenacity")
    calls = []

    @tenacity.retry(
        wait=tenacity.wait_exponential(min=4), stop=tenacity.stop_after_attempt(3)
    )
    async def call() -> str:
        await loop.operation("call")
        calls.append(loop.time())
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    assert loop.run(call()) == "ok"
    assert calls == [0.0, 4.0, 8.0]


def test_stamina_waits_in_virtual_time(loop: SimulationLoop) -> None:
    """With its jitter, too."""
    stamina = pytest.importorskip("stamina")
    calls = []

    @stamina.retry(on=ConnectionError, attempts=3, wait_jitter=0)
    async def call() -> str:
        calls.append(loop.time())
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    stamina.instrumentation.set_on_retry_hooks([])
    assert loop.run(call()) == "ok"
    assert len(calls) == 3
    assert calls[0] == 0.0 < calls[1] < calls[2]


def test_fakeredis_lets_clients_wait_for_each_other(loop: SimulationLoop) -> None:
    """A blocking pop ends when somebody pushes."""
    fakeredis = pytest.importorskip("fakeredis")

    async def body() -> tuple[Any, float]:
        """Push a second after somebody has begun to wait."""
        server = fakeredis.FakeServer()
        async with (
            fakeredis.FakeAsyncRedis(server=server) as reader,
            fakeredis.FakeAsyncRedis(server=server) as writer,
        ):
            task = asyncio.create_task(reader.blpop("jobs", timeout=30))
            await asyncio.sleep(1)
            await writer.rpush("jobs", "first")
            found = await task
            await writer.set("counter", 1)
            await writer.incr("counter")
            assert await reader.get("counter") == b"2"
            return found, loop.time()

    assert loop.run(body()) == ((b"jobs", b"first"), 1.0)


def test_the_openai_sdk_on_our_wire_retries_in_virtual_time() -> None:
    """The vendor's own client, with its own backoff, against a fake provider."""
    openai = pytest.importorskip("openai")

    async def body() -> str:
        """Ask once."""
        async with openai.AsyncOpenAI(api_key="none", max_retries=2) as client:
            answer = await client.chat.completions.create(
                model="gpt-5", messages=[{"role": "user", "content": "Hello?"}]
            )
            return str(answer.choices[0].message.content)

    with Harness() as tta:
        tta.wire.openai.fails(rate_limit(after=3))
        tta.wire.openai.reply("Hello!")
        loop = SimulationLoop(tta.clock)
        loop.begin()
        assert loop.run(body()) == "Hello!"
        assert loop.time() >= 3
        loop.close()
