"""What type checkers know of durable workflows."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tta_primitives import step
from tta_primitives.durable import MemoryJournal, OneStep, Resumption, run_durably
from tta_primitives.integrations.dbos import (
    DatabaseStep,
    DurableWorkflow,
    RunHandle,
    RunStatus,
    durable,
    durable_runtime,
)


@step
async def charge(order: str) -> int:
    """Charge."""
    return len(order)


async def ship(payment: int) -> bytes:
    """Ship."""
    return bytes(payment)


async def book(payment: int, session: AsyncSession) -> str:
    """Book."""
    return f"{session} {payment}"


order = durable(charge >> ship, name="order")
assert_type(order, DurableWorkflow[str, bytes])
assert_type(durable(ship, name="ship"), DurableWorkflow[int, bytes])
assert_type(OneStep(charge), OneStep[str, int])
booked = DatabaseStep(book, sessions=async_sessionmaker[AsyncSession]())
assert_type(booked, DatabaseStep[int, str])


async def use(resumption: Resumption) -> None:
    """Run a durable workflow."""
    async with durable_runtime(order) as runtime:
        handle = await runtime.start(order, "17", workflow_id="17")
        assert_type(handle, RunHandle[bytes])
        assert_type(await handle.result(), bytes)
        assert_type(await runtime.run(order, "17", workflow_id="17"), bytes)
        assert_type(await runtime.runs(), list[RunStatus])
        await runtime.run(order, 17, workflow_id="17")  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    assert_type(await run_durably(charge, "17", journal=MemoryJournal()), int)
    assert_type(resumption.journal, MemoryJournal)
    assert_type(resumption.output, Any)
