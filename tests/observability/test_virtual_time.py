"""Tracing in virtual time: the thread that sends lives in real time, beside it."""

from __future__ import annotations

import asyncio

from pytest_tta import S
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability


@step
async def slow(value):
    await asyncio.sleep(3600)
    return value


async def test_hours_pass_at_once_while_spans_are_sent(tta, receiver):
    """The thread that sends is asleep in between; the clock does not wait for it."""
    with initialize_observability(
        "a", enable_prometheus=False, otlp_endpoint=receiver.url
    ) as observability:
        for _ in range(3):
            await slow.execute(1, WorkflowContext())
        assert observability.flush(30.0)
    assert tta.clock.elapsed == 3 * 3600
    assert [span.name for span in receiver.spans] == ["slow"] * 3
    assert tta.trace == [S("slow")] * 3
