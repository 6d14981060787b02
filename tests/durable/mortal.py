"""A program whose children run durable orders, and are killed where a test says.

Run as `python -m tests.durable.mortal`: it reads a JSON object a line and forks a child
for each, which has all modules already. The child opens the durable runtime and runs an
order; it kills itself with SIGKILL at the points of which the test says so, each once.
When the child has ended its answer is printed, or the signal that has killed it.

Points are `reserve:before`, where nothing is done; `reserve:inside`, where half is;
`reserve:effect`, where all is done and nothing recorded; `reserve:written`, where the
record is on its way; and `reserve:after`, where it is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from examples.durable_order.order import Order, invoice, mail, order_workflow, ship
from examples.durable_order.shop import FileShop
from tta_primitives.integrations.dbos import (
    DatabaseStep,
    done_steps,
    durable,
    durable_runtime,
)
from tta_primitives.integrations.dbos_journal import DbosJournal
from tta_primitives.recovery import SagaPrimitive

charges = Table(
    "charges",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("account", String(50)),
)


class Death:
    """Kills the process at points, each once over all processes of one test.

    Args:
        folder: Where it is noted that a point has had its kill.
        points: Where.
    """

    def __init__(self, folder: Path, points: list[str]) -> None:
        self._folder = folder
        self._points = points

    def at(self, point: str) -> None:
        """Die, if a test wants it here and it has not happened yet."""
        mark = self._folder / f"killed at {point.replace(':', ' ')}"
        if point in self._points and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class MortalShop(FileShop):
    """The example's shop, in which the process may die; it notes each execution."""

    def __init__(self, folder: Path, death: Death) -> None:
        super().__init__(folder / "books.jsonl")
        self._folder = folder
        self._death = death

    async def do(self, what: str, order: str, key: str) -> str:
        """Do something, with a moment before it, inside of it and after it."""
        self._death.at(f"{what}:before")
        note(self._folder, what)
        self._death.at(f"{what}:inside")
        await asyncio.sleep(0)
        receipt = await super().do(what, order, key)
        self._death.at(f"{what}:effect")
        return receipt


def note(folder: Path, what: str) -> None:
    """Note that the execution of a step has begun."""
    with (folder / "executions").open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def watch_records(folder: Path, death: Death) -> None:
    """Die before and after records are written; note each that is kept."""
    write = DbosJournal.write

    async def watched(journal: DbosJournal, key: str, record: str) -> None:
        what = key.rpartition("/")[2]
        death.at(f"{what}:written")
        await write(journal, key, record)
        with (folder / "records").open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")
        death.at(f"{what}:after")

    DbosJournal.write = watched  # type: ignore[method-assign]


def driver_of(url: str) -> str:
    """Return the URL of a database as SQLAlchemy's asyncio takes it."""
    parsed = make_url(url)
    driver = "aiosqlite" if parsed.drivername == "sqlite" else "asyncpg"
    return parsed.set(drivername=f"{parsed.drivername}+{driver}").render_as_string(
        hide_password=False
    )


def transactional(folder: Path, death: Death, sessions: Any) -> Any:
    """Return an order whose charge and refund are in the database of the journal."""

    def booked(name: str, account: str) -> Any:
        async def book(order: Order, session: AsyncSession) -> Order:
            death.at(f"{name}:before")
            note(folder, name)
            await session.execute(insert(charges).values(account=account))
            death.at(f"{name}:inside")
            return order

        return DatabaseStep(book, sessions=sessions, name=name)

    undo = (lambda record: record.input) >> booked("refund", "back")
    saga = SagaPrimitive([(booked("charge", "paid"), undo), ship])
    return (saga >> (mail | invoice)).named("process order")


async def work(told: dict[str, Any]) -> Any:
    """Run an order, or what else a test asks for."""
    folder = Path(told["folder"])
    death = Death(folder, told.get("die", []))
    watch_records(folder, death)
    shop = MortalShop(folder, death)
    engine = create_async_engine(driver_of(told["url"]), poolclass=NullPool)
    sessions = async_sessionmaker(engine)
    workflow = order_workflow
    if told.get("kind") == "transactional":
        workflow = transactional(folder, death, sessions)
    order = durable(workflow, name="order", deps=lambda: {"shop": shop})
    runtime = durable_runtime(
        order,
        database_url=told["url"],
        executor_id=told.get("executor_id", "one"),
        poll_seconds=0.05,
    )
    try:
        async with runtime:
            if told.get("kind") == "transactional":
                async with engine.begin() as connection:
                    await connection.run_sync(charges.metadata.create_all)
                    await connection.run_sync(done_steps.metadata.create_all)
            if "recover" in told:
                await runtime.recover(told["recover"])
                return await runtime.handle(told["id"]).result()
            result = await runtime.run(order, told["order"], workflow_id=told["id"])
            if told.get("kind") == "transactional":
                async with engine.connect() as connection:
                    booked = await connection.scalars(select(charges.c.account))
                    return [*result, booked.all()]
            return result
    finally:
        await engine.dispose()


def live(line: str) -> None:
    """Do what a line says, in a process of its own, and print what came of it."""
    told = json.loads(line)
    answer_path = Path(told["folder"]) / "answer"
    answer_path.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        with suppress(BaseException):
            try:
                answer = {"result": asyncio.run(work(told))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answer_path.write_text(json.dumps(answer), "utf-8")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        answer_path.write_text(json.dumps({"signal": os.WTERMSIG(status)}), "utf-8")
    sys.stdout.write(answer_path.read_text("utf-8") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for told_line in sys.stdin:
        live(told_line)
