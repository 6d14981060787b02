"""What is billed, what is not, and what is left in the database after failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from examples.sqlalchemy_pipeline.billing import bill, billing, book
from examples.sqlalchemy_pipeline.tables import (
    Customer,
    Invoice,
    Refusal,
    create_tables,
)
from pytest_tta.faults import first
from tta_primitives import WorkflowContext
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.integrations.pydantic import InputValidationError
from tta_primitives.integrations.sqlalchemy import workflow_sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from pytest_tta import Harness


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[Any]]:
    """Make sessions on a new database in which ada has a credit of 100 euros."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    engine = create_async_engine(url, pool_size=2, max_overflow=0)
    await create_tables(engine)
    made = workflow_sessions(engine)
    async with made() as session, session.begin():
        session.add(Customer(name="ada", credit=10_000))
    yield made
    await engine.dispose()


@pytest.fixture
def context(sessions: async_sessionmaker[Any]) -> WorkflowContext:
    """Give workflows the factory of sessions."""
    return WorkflowContext(deps={"sessionmaker": sessions})


def order(**changes: object) -> dict[str, object]:
    """Return an order, as a client sends it."""
    plain = {"number": "A1", "customer": "ada", "item": "tea", "quantity": 2}
    return {**plain, **changes}


async def state(sessions: async_sessionmaker[AsyncSession]) -> tuple[int, int, int]:
    """Return ada's credit, and how many invoices and refusals there are."""
    async with sessions() as session:
        credit = (await session.get_one(Customer, "ada")).credit
        counts = [
            await session.scalar(select(func.count()).select_from(table))
            for table in (Invoice, Refusal)
        ]
    return credit, counts[0] or 0, counts[1] or 0


async def test_order_is_billed(
    sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """The credit and the invoice agree."""
    assert await bill.execute(order(), context) == "A1: billed 900 cents to ada"
    assert await state(sessions) == (9_100, 1, 0)


async def test_order_is_billed_once(
    sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """The second time the database refuses, and the credit is as it was."""
    await bill.execute(order(), context)
    with pytest.raises(IntegrityError, match="UNIQUE"):
        await bill.execute(order(), context)
    assert await state(sessions) == (9_100, 1, 0)


async def test_refusal_is_kept_and_the_charge_undone(
    sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """Too little credit: the transaction is rolled back, another one tells of it."""
    big = order(item="cup", quantity=100)
    assert await bill.execute(big, context) == "A1: refused"
    assert await state(sessions) == (10_000, 0, 1)


async def test_bad_order_touches_nothing(
    sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """What is wrong is told, and what was sent is not."""
    with pytest.raises(InputValidationError, match="quantity: quantity too large"):
        await bill.execute(order(quantity=5000), context)
    assert await state(sessions) == (10_000, 0, 0)


async def test_failure_after_the_charge_undoes_it(
    tta: Harness, sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """An error between the two writes leaves neither."""
    tta.faults.at("write_invoice").fail(OSError("disk full"), when=first(1))
    with pytest.raises(OSError, match="disk full"):
        await bill.execute(order(), context)
    assert await state(sessions) == (10_000, 0, 0)


async def test_busy_database_is_tried_again(
    tta: Harness, sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """Both writes are done again, and each has happened once."""
    busy = OperationalError("INSERT", {}, _busy())
    tta.faults.at("write_invoice").fail(busy, when=first(2))
    assert await bill.execute(order(), context) == "A1: billed 900 cents to ada"
    assert await state(sessions) == (9_100, 1, 0)
    assert len(tta.trace.spans_at("charge")) == 3
    assert book.describe()["children"]


def _busy() -> Exception:
    error: Any = Exception("database is locked")
    error.sqlite_errorcode = 5
    return error  # type: ignore[no-any-return]


async def test_slow_price_ends_the_order(
    tta: Harness, sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """Five seconds of virtual time; no transaction was open meanwhile."""
    tta.faults.at("price").slow(60)
    with pytest.raises(TimeoutExceededError, match="price"):
        await bill.execute(order(), context)
    assert tta.elapsed == 5.0
    assert await state(sessions) == (10_000, 0, 0)


async def test_many_orders_share_a_small_pool(
    tta: Harness, sessions: async_sessionmaker[Any], context: WorkflowContext
) -> None:
    """Ten orders, two at a time; where both want to write, one tries again."""
    orders = [order(number=f"A{number}") for number in range(10)]
    lines = await billing(2).execute([*orders, order(quantity=0)], context)
    assert lines[9] == "A9: billed 900 cents to ada"
    assert isinstance(lines[10], InputValidationError)
    assert await state(sessions) == (1_000, 10, 0)
    assert 1.0 <= round(tta.elapsed, 3) < 3.0
