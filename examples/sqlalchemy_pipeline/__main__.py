"""The command: `python -m examples.sqlalchemy_pipeline [URL]`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine

from examples.sqlalchemy_pipeline.billing import billing
from examples.sqlalchemy_pipeline.tables import Customer, create_tables
from tta_primitives import WorkflowContext
from tta_primitives.integrations.sqlalchemy import check_pool, workflow_sessions

_CONNECTIONS = 4
_ORDERS = [
    '{"number": "A1", "customer": "ada", "item": "tea", "quantity": 3}',
    '{"number": "A2", "customer": "ada", "item": "cup", "quantity": 100}',
    '{"number": "B1", "customer": "bob", "item": "cup", "quantity": 2}',
    '{"number": "B2", "customer": "bob", "item": "cup", "quantity": 5000}',
]


async def _run(url: str) -> None:
    engine = create_async_engine(url, pool_size=_CONNECTIONS, max_overflow=0)
    try:
        await create_tables(engine)
        sessions = workflow_sessions(engine)
        async with sessions() as session, session.begin():
            for name in ("ada", "bob"):
                await session.merge(Customer(name=name, credit=10_000))
        workflow = billing(_CONNECTIONS)
        check_pool(workflow, engine)
        context = WorkflowContext(deps={"sessionmaker": sessions})
        for line in await workflow.execute(_ORDERS, context):
            print(line)
    finally:
        await engine.dispose()


def main(arguments: list[str]) -> None:
    """Bill the orders on the database of the command line, or on one of our own."""
    if arguments:
        asyncio.run(_run(arguments[0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(f"sqlite+aiosqlite:///{Path(folder) / 'shop.db'}"))


if __name__ == "__main__":
    main(sys.argv[1:])
