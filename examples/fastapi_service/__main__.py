"""The command: `python -m examples.fastapi_service`, or with `--serve`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

import httpx

from examples.fastapi_service.service import app, lifecycle

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Show what the service does, or serve; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fastapi_service", description=__doc__
    )
    parser.add_argument("--serve", action="store_true", help="serve with uvicorn")
    parser.add_argument("--port", type=int, default=8000, help="where (default: 8000)")
    options = parser.parse_args(arguments)
    if options.serve:
        import uvicorn

        uvicorn.run(app, port=options.port)
    else:
        asyncio.run(show())
    return 0


async def show() -> None:
    """Make some requests of the application, without a server."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        await _ask(client, "POST", "/answers", json={"text": "The question?"})
        await _ask(client, "GET", "/answers/stream?question=the%20question")
        await _ask(client, "GET", "/readyz")
        lifecycle.begin_drain()  # as SIGTERM does
        await _ask(client, "GET", "/readyz")


async def _ask(
    client: httpx.AsyncClient, method: str, path: str, json: object = None
) -> None:
    headers = {"x-correlation-id": "order-7"}
    reply = await client.request(method, path, json=json, headers=headers)
    print(f"{method} {path} -> {reply.status_code}")
    print("".join(f"  {line}\n" for line in reply.text.splitlines() if line), end="")


if __name__ == "__main__":
    sys.exit(main())
