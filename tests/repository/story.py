"""A run with jitter, parallel branches, limits and faults, written down as text.

It needs nothing but the standard library, so that any interpreter can tell it.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from pytest_tta import Harness
from pytest_tta.faults import chance, first
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive


@step
async def plan(question: str) -> str:
    """Wait for a moment."""
    await asyncio.sleep(0.25)
    return question


@step
async def search(question: str) -> str:
    """Wait a little longer."""
    await asyncio.sleep(0.5)
    return question


@step
async def ask(question: str) -> str:
    """Take longer than the limit around it."""
    await asyncio.sleep(9)
    return question


def tell(seed: int) -> str:
    """Return the outline, the waits and the ids of one run."""
    branches = (
        RetryPrimitive(search, max_retries=5)
        | RetryPrimitive(TimeoutPrimitive(ask, timeout_seconds=2), max_retries=2)
        | RetryPrimitive(search, max_retries=5)
    )
    context = WorkflowContext()
    with Harness(seed=seed) as tta:
        tta.faults.at("plan").fail(OSError("down"), when=first(2))
        tta.faults.at("search").fail(OSError("down"), when=chance(0.6))
        with suppress(TimeoutError):
            tta.run(RetryPrimitive(plan) >> branches, "why", context)
        waits = "\n".join(map(str, tta.clock.sleeps))
        return f"{tta.trace.outline()}\n{waits}\n{context.run_id}"


if __name__ == "__main__":
    sys.stdout.write(tell(seed=7))
