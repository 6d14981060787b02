"""The workflow: a slow model behind a cache in memory and one in Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypedDict

from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tta_primitives import WorkflowContext, WorkflowPrimitive

__all__ = ["Request", "translate", "translator", "visible_to"]


class Request(TypedDict):
    """A text and the tenant whose glossary applies."""

    tenant: str
    text: str


_WORDS = {"hello": "hallo", "world": "Welt"}


@step
async def translate(request: Request) -> str:
    """Translate word by word, as slowly as a model does."""
    await asyncio.sleep(0.5)
    words = request["text"].split()
    return " ".join(_WORDS.get(word, word) for word in words)


def visible_to(request: Request, _context: WorkflowContext) -> tuple[str, str]:
    """Tell whose answer it is: two tenants never share one."""
    return request["tenant"], request["text"]


def translator(redis: Redis) -> WorkflowPrimitive[Request, str]:
    """Return the workflow of one worker.

    Args:
        redis: The client, which the caller closes.
    """
    protected = RetryPrimitive(
        TimeoutPrimitive(translate, timeout_seconds=10), max_retries=2
    )
    shared = CachePrimitive(
        protected,
        ttl=3600,
        storage=redis,
        key_fn=visible_to,
        namespace="translations",
        # While the model is down, an answer of the last day is better than none.
        stale_if_error=86_400,
    )
    return CachePrimitive(shared, ttl=300, max_size=1000, key_fn=visible_to)
