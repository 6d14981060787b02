"""A time limit around one awaitable, on the event loop's own clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.errors import TimeoutExceededError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tta_primitives.context import WorkflowContext
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["within"]

T = TypeVar("T")


async def within(
    coroutine: Coroutine[Any, Any, T],
    limit: float,
    primitive: WorkflowPrimitive[Any, Any],
    context: WorkflowContext,
) -> T:
    """Await a coroutine for at most `limit` seconds."""
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await coroutine
    except TimeoutError:
        if not scope.expired():
            raise
    path = context.position_of(primitive).path
    msg = f"{path} took longer than {limit:g} s"
    raise TimeoutExceededError(msg, timeout_seconds=limit)
