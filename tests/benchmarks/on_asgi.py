"""What a request costs more with everything that the integration of FastAPI does.

The reference is the view that a reader would write without us, with the same work in
it. One server has both of them, and so has the loop that asks.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measure import awaiting, race
from tests.benchmarks.table import Figures, Rows
from tta_primitives import step
from tta_primitives.runtime import Lifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.benchmarks.measure import Pace

__all__ = ["ROWS"]

ROWS = Rows("FastAPI: context, deadline, tracking and correlation id of a request")

_HOST = "127.0.0.1"
_MICROSECONDS = 1e6
_HEADERS = {
    "host": "test",
    "x-correlation-id": "order-7",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


async def double(value: int) -> int:
    """Return twice the value."""
    return value * 2


def plain_app() -> Any:
    """Return the application without us."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def view() -> dict[str, int]:
        return {"value": await double(await double(1))}

    return app


def our_app(lifecycle: Lifecycle) -> Any:
    """Return the application with all that the integration does by default."""
    from fastapi import FastAPI

    from tta_primitives.integrations import fastapi

    workflow = step(double) >> step(double)
    app = fastapi.integrate(FastAPI(), lifecycle, request_timeout=10)

    # As the name is local, FastAPI could not read it from a text.
    async def view(context):  # type: ignore[no-untyped-def]
        return {"value": await workflow.execute(1, context)}

    view.__annotations__ = {"context": fastapi.Context, "return": dict[str, int]}
    app.get("/")(view)
    return app


class _Asked:
    """An application that is called as a server would, without one."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._headers = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]

    async def ask(self, path: str) -> None:
        """Make one request; see that it was answered."""
        statuses: list[int] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._app(self._scope(path), receive, send)
        if statuses != [200]:
            msg = f"answered with {statuses}"
            raise RuntimeError(msg)

    def _scope(self, path: str) -> dict[str, object]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": list(self._headers),
            "client": (_HOST, 1),
            "server": (_HOST, 2),
            "state": {},
        }


@ROWS.row("fastapi", "a request more than to the plain view, no server", "us", 100)
def without_server(pace: Pace) -> Figures:
    """Race the two applications."""
    lifecycle = Lifecycle()
    blocks = {
        "plain": awaiting(_Asked(plain_app()).ask, "/"),
        "ours": awaiting(_Asked(our_app(lifecycle)).ask, "/"),
    }
    times = race(blocks, pace)
    note = f"plain {times.seconds('plain') * _MICROSECONDS:.0f} us"
    return Figures(times.extra("ours", "plain") * _MICROSECONDS, note=note)


class _Served:
    """Both applications under uvicorn, each with a connection that is kept open."""

    def __init__(self) -> None:
        self._open = AsyncExitStack()
        self._ends: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._apps = {"plain": plain_app(), "ours": our_app(Lifecycle())}

    async def ask(self, name: str) -> None:
        """Make one request; the first of them starts the server."""
        if name not in self._ends:
            port = await self._open.enter_async_context(_uvicorn(self._apps[name]))
            self._ends[name] = await asyncio.open_connection(_HOST, port)
        reader, writer = self._ends[name]
        lines = [f"{key}: {value}" for key, value in _HEADERS.items()]
        writer.write("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head)
        length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))

    async def close(self) -> None:
        """Close the connections, and end the servers."""
        for _, writer in self._ends.values():
            writer.close()
            await writer.wait_closed()
        await self._open.aclose()


@asynccontextmanager
async def _uvicorn(app: Any) -> AsyncIterator[int]:
    import uvicorn

    listener = socket.create_server((_HOST, 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    # Without its signal handlers: this process is not its own.
    serving = asyncio.ensure_future(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@ROWS.row(
    "fastapi-uvicorn",
    "the same over uvicorn",
    "us",
    100,
    because=(
        "Without a server it is 50 us. Over one it is the difference of two requests "
        "of a millisecond each, client and server in one process: 117 and 122 us in "
        "two quiet runs."
    ),
)
def with_server(pace: Pace) -> Figures:
    """Race the two over connections that are kept open."""
    served = _Served()
    blocks = {name: awaiting(served.ask, name) for name in ("plain", "ours")}
    times = race(blocks, pace, afterwards=served.close)
    note = f"plain {times.seconds('plain') * _MICROSECONDS:.0f} us"
    return Figures(times.extra("ours", "plain") * _MICROSECONDS, note=note)
