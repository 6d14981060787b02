"""What the service does: it asks a model, with retries, and has a plan for outages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tta_primitives import WorkflowContext, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    BulkheadPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tta_primitives import WorkflowPrimitive

__all__ = ["answer", "prepare", "tell", "think"]


@step
def prepare(question: str) -> str:
    """Make questions that mean the same the same."""
    return " ".join(question.lower().split())


@step
async def think(question: str) -> str:
    """Stand for a call of your model: it takes a second."""
    await asyncio.sleep(1)
    return f"{question.rstrip('?')}: 42"


# At most 50 questions at a time are with the model, retries included; the 51st caller
# is told so at once.
answer: WorkflowPrimitive[str, str] = (
    prepare
    >> CachePrimitive(ttl=3600)
    >> BulkheadPrimitive(max_concurrency=50)
    >> RetryPrimitive(max_retries=2)
    >> TimeoutPrimitive(timeout_seconds=10)
    >> think
).named("answer")


@step
async def tell(question: str, context: WorkflowContext) -> AsyncIterator[str]:
    """Stream an answer word by word."""
    for word in (await answer.execute(question, context)).split():
        await asyncio.sleep(0.05)
        yield word
