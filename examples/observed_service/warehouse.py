"""The warehouse: another service, which joins the trace of who asks it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tta_primitives import WorkflowContext, step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["Warehouse"]


class Warehouse:
    """An ASGI app that keeps goods, and is overloaded now and then.

    Args:
        busy: How many of the first requests it turns away.
    """

    def __init__(self, *, busy: int = 0) -> None:
        self._busy = busy
        self._find = step(self._shelf).named("find_shelf")

    async def _shelf(self, article: str) -> str:
        await asyncio.sleep(0.01)
        return f"shelf {len(article)}"

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        asked = json.loads((await receive())["body"])
        headers = {
            name.decode(): value.decode("latin-1") for name, value in scope["headers"]
        }
        # The caller's correlation id and its span: this run is below that one.
        context = WorkflowContext.from_headers(headers)
        if self._busy:
            self._busy -= 1
            await _answer(send, 503, {"error": "busy"})
            return
        shelf = await self._find.execute(asked["article"], context)
        await _answer(send, 200, {"shelf": shelf})


async def _answer(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
    body: dict[str, str],
) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
