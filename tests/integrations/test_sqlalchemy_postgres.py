"""Transactions of workflows on a real PostgreSQL: locks, kills and cancellations."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.integrations.sqlalchemy import (
    ConcurrentSessionError,
    TransactionPrimitive,
    is_retryable_database_error,
    with_session,
    workflow_sessions,
)
from tta_primitives.recovery import RetryPrimitive, attempts_of

# How long something may take that happens at once on a machine with nothing to do.
PATIENCE = 20


@pytest.fixture
async def engine(postgres_database):
    """An engine with five connections, and two accounts with 100 each."""
    made = create_async_engine(
        postgres_database.replace("postgresql:", "postgresql+asyncpg:"),
        pool_size=5,
        max_overflow=0,
        pool_timeout=PATIENCE,
        # The server looks for deadlocks after a second, unless it is told otherwise.
        connect_args={"server_settings": {"deadlock_timeout": "10ms"}},
    )
    async with made.begin() as connection:
        await connection.execute(
            text("CREATE TABLE accounts (name text PRIMARY KEY, balance int)")
        )
        await connection.execute(
            text("INSERT INTO accounts VALUES ('ada', 100), ('bob', 100)")
        )
    yield made
    assert made.pool.checkedout() == 0
    await made.dispose()


@pytest.fixture
def context(engine):
    return WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})


async def balances(engine) -> dict[str, int]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT name, balance FROM accounts"))
        return dict(sorted(map(tuple, rows)))


async def add(session: AsyncSession, name: str, amount: int) -> None:
    await session.execute(
        text("UPDATE accounts SET balance = balance + :amount WHERE name = :name"),
        {"amount": amount, "name": name},
    )


def adds(name: str, amount: int):
    """Return a step that adds to an account, and passes its input on."""

    @with_session(name=f"{name}+{amount}")
    async def change(data: object, session: AsyncSession) -> object:
        await add(session, name, amount)
        return data

    return change


def retried(work, **options):
    return RetryPrimitive(
        TransactionPrimitive(work, **options),
        retry_on=is_retryable_database_error,
        initial_delay=0.001,
        max_retries=5,
    )


async def test_failure_rolls_back_the_whole_chain(engine, context) -> None:
    """The first step's change is gone, and the error is the step's own."""

    @step
    async def refuse(_: object) -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await TransactionPrimitive(adds("ada", 5) >> refuse).execute(0, context)
    assert await balances(engine) == {"ada": 100, "bob": 100}


async def test_cancelled_statements_give_back_all_connections(engine, context) -> None:
    """Five are cancelled while the server is at work for them."""

    @with_session
    async def ask(_: object, session: AsyncSession) -> None:
        await add(session, "ada", 1)
        await session.execute(text("SELECT pg_sleep(600)"))

    workflow = TransactionPrimitive(ask)
    # One holds the row, the others wait for it.
    runs = [asyncio.create_task(workflow.execute(0, context)) for _ in range(5)]
    async with asyncio.timeout(PATIENCE):
        while engine.pool.checkedout() < 5 or not await _are_active(engine, 5):
            await asyncio.sleep(0)
    for run in runs:
        run.cancel()
    ended = await asyncio.gather(*runs, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 5
    assert engine.pool.checkedout() == 0
    assert await balances(engine) == {"ada": 100, "bob": 100}


async def _are_active(engine, number: int) -> bool:
    """Ask on a connection beside the pool how many others are at work."""
    beside = create_async_engine(engine.url)
    try:
        async with beside.connect() as connection:
            found = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
                    "AND datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            return found >= number
    finally:
        await beside.dispose()


async def test_deadlock_is_retried_as_a_whole(engine, context) -> None:
    """Two transfers lock two rows in opposite orders; both happen once."""
    barrier = asyncio.Barrier(2)
    passed = set()

    @step
    async def meet(data: object, context: WorkflowContext) -> object:
        if context.correlation_id not in passed:
            passed.add(context.correlation_id)
            await barrier.wait()
        return data

    sessions = context.deps["sessionmaker"]
    there = retried(adds("ada", -10) >> meet >> adds("bob", 10))
    back = retried(adds("bob", -1) >> meet >> adds("ada", 1))
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(
            there.execute(0, WorkflowContext(deps={"sessionmaker": sessions})),
            back.execute(0, WorkflowContext(deps={"sessionmaker": sessions})),
        )
    assert await balances(engine) == {"ada": 91, "bob": 109}
    # The one that gives way may meet the other again.
    assert there.stats.retries + back.stats.retries >= 1


async def test_serialization_failure_is_retried_as_a_whole(engine, context) -> None:
    """A change that was based on what somebody else has changed is made again."""
    rivals = ["bob"]

    @with_session
    async def double(name: str, session: AsyncSession) -> int:
        query = text("SELECT balance FROM accounts WHERE name = 'ada'")
        found = await session.scalar(query)
        if rivals:
            rivals.pop()
            async with engine.begin() as other:
                await other.execute(text("UPDATE accounts SET balance = 7"))
        await add(session, name, found)
        return found

    workflow = retried(double, isolation_level="SERIALIZABLE")
    assert await workflow.execute("ada", context) == 7
    assert await balances(engine) == {"ada": 14, "bob": 7}
    assert workflow.stats.retries == 1


async def test_retry_inside_a_transaction_repeats_nothing(engine, context) -> None:
    """The server has given the transaction up; only the retry outside tries again."""
    calls = []

    @with_session
    async def fail_once(data: object, session: AsyncSession) -> object:
        calls.append(data)
        if len(calls) == 1:
            await session.execute(
                text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
            )
        return data

    inner = RetryPrimitive(fail_once, retry_on=is_retryable_database_error)
    workflow = retried(adds("ada", 1) >> inner)
    await workflow.execute(0, context)
    assert (len(calls), inner.stats.retries, workflow.stats.retries) == (2, 0, 1)
    assert await balances(engine) == {"ada": 101, "bob": 100}


async def test_killed_connections_are_replaced(engine, context) -> None:
    """Whoever was using one tries again as a whole; the pool makes new ones."""
    kills = [True]

    @with_session
    async def lose(data: object, session: AsyncSession) -> object:
        if kills:
            kills.pop()
            beside = create_async_engine(engine.url)
            async with beside.connect() as connection:
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() "
                        "AND pid <> pg_backend_pid()"
                    )
                )
            await beside.dispose()
        await session.execute(text("SELECT 1"))
        return data

    workflow = retried(adds("ada", 5) >> lose)
    assert await workflow.execute("done", context) == "done"
    assert await balances(engine) == {"ada": 105, "bob": 100}
    assert workflow.stats.retries >= 1


async def test_connection_lost_in_the_commit_is_not_tried_again(
    engine, context
) -> None:
    """Nobody knows whether it has happened; trying again might do it twice."""

    @with_session
    async def die_at_the_end(data: object, session: AsyncSession) -> object:
        await add(session, "ada", 5)
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        beside = create_async_engine(engine.url)
        async with beside.connect() as connection:
            await connection.execute(
                text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid}
            )
        await beside.dispose()
        return data

    workflow = RetryPrimitive(
        TransactionPrimitive(die_at_the_end), initial_delay=0.001, max_retries=5
    )
    with pytest.raises(DBAPIError, match="connection") as caught:
        await workflow.execute(0, context)
    assert len(attempts_of(caught.value)) == 1
    assert workflow.primitive.stats.unknown == 1
    assert any("nobody knows" in note for note in caught.value.__notes__)
    assert not is_retryable_database_error(caught.value)


async def test_server_that_is_not_there_may_come_back(context) -> None:
    """A refused connection is worth another attempt; nothing was executed."""
    away = create_async_engine("postgresql+asyncpg://postgres@127.0.0.1:1/none")
    context.deps["sessionmaker"] = workflow_sessions(away)
    with pytest.raises(OSError, match="Connect call failed") as caught:
        await TransactionPrimitive(adds("ada", 1)).execute(0, context)
    assert is_retryable_database_error(caught.value)
    await away.dispose()


async def test_twenty_branches_share_two_connections(postgres_database) -> None:
    """The pool makes them take turns, and no work is lost."""
    url = postgres_database.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(url, pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE done (item int)"))

    @with_session
    async def note(item: int, session: AsyncSession) -> int:
        await session.execute(text("INSERT INTO done VALUES (:item)"), {"item": item})
        return item

    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    workflow = MapPrimitive(TransactionPrimitive(note), max_concurrency=20)
    assert await workflow.execute(range(100), context) == list(range(100))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM done")) == 100
    assert engine.pool.checkedout() == 0
    await engine.dispose()


async def test_branches_of_one_session_are_told_apart(engine, context) -> None:
    """Plain steps that take the session from the context are found out, too."""

    @step
    async def ask(seconds: float, context: WorkflowContext) -> None:
        await context.deps["session"].execute(text(f"SELECT pg_sleep({seconds})"))

    branches = ask.named("left") | ask.named("right")
    with pytest.raises(ConcurrentSessionError, match="task 'left' is inside session"):
        await TransactionPrimitive(branches).execute(0.01, context)
    assert await balances(engine) == {"ada": 100, "bob": 100}


async def test_savepoint_keeps_the_transaction_alive(engine, context) -> None:
    """A statement that fails in a savepoint does not spoil the rest."""

    @step
    async def or_else(data: object, context: WorkflowContext) -> object:
        with pytest.raises(DBAPIError, match="duplicate key"):
            await TransactionPrimitive(insert).execute(data, context)
        return data

    @with_session
    async def insert(data: object, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO accounts VALUES ('ada', 0)"))

    work = adds("ada", 1) >> or_else >> adds("bob", 1)
    await TransactionPrimitive(work).execute(0, context)
    assert await balances(engine) == {"ada": 101, "bob": 101}


async def test_hanging_server_does_not_hold_a_cancelled_run(postgres_server) -> None:
    """The rollback is given up after `cleanup_seconds`, and its connection dropped."""
    engine = create_async_engine(postgres_server.url("postgres", "asyncpg"))
    begun = asyncio.Event()

    @with_session
    async def ask(_: object, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        begun.set()
        await asyncio.Event().wait()

    workflow = TransactionPrimitive(ask, cleanup_seconds=0.05)
    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    run = asyncio.create_task(workflow.execute(0, context))
    await begun.wait()
    postgres_server.hang()
    run.cancel()
    ended, _ = await asyncio.wait([run], timeout=PATIENCE)
    postgres_server.wake()
    assert ended == {run}
    assert run.cancelled()
    assert engine.pool.checkedout() == 0
    await engine.dispose()


async def test_separate_transaction_stays_when_the_outer_one_is_undone(
    engine, context
) -> None:
    """It has a connection of its own, and is committed at once."""

    @step
    async def refuse(_: object) -> None:
        raise ValueError("refused")

    note = TransactionPrimitive(adds("bob", 1), nested="separate")
    with pytest.raises(ValueError, match="refused"):
        await TransactionPrimitive(adds("ada", 1) >> note >> refuse).execute(0, context)
    assert await balances(engine) == {"ada": 100, "bob": 101}


@pytest.mark.parametrize("seed", range(3))
async def test_no_money_is_made_or_lost(engine, context, seed) -> None:
    """Transfers that deadlock and are cancelled anywhere leave the sum as it was."""
    chance = random.Random(seed)
    sessions = context.deps["sessionmaker"]
    there = retried(adds("ada", -1) >> adds("bob", 1))
    back = retried(adds("bob", -1) >> adds("ada", 1))

    async def transfer(workflow) -> bool:
        """Move a coin, unless somebody pulls the plug after some turns of the loop."""
        run = asyncio.create_task(
            workflow.execute(0, WorkflowContext(deps={"sessionmaker": sessions}))
        )
        if chance.random() < 0.5:
            for _ in range(chance.randrange(200)):
                await asyncio.sleep(0)
            run.cancel()
        ended, _ = await asyncio.wait([run], timeout=PATIENCE)
        assert ended == {run}
        return not run.cancelled() and run.exception() is None

    moves = [transfer(chance.choice((there, back))) for _ in range(60)]
    done = await asyncio.gather(*moves)
    after = await balances(engine)
    assert sum(after.values()) == 200
    committed = there.primitive.stats.committed - back.primitive.stats.committed
    assert after == {"ada": 100 - committed, "bob": 100 + committed}
    assert sum(done) <= there.primitive.stats.committed + back.primitive.stats.committed
    assert engine.pool.checkedout() == 0


async def test_commit_that_is_not_answered_ends_some_time(postgres_server) -> None:
    """After a cancellation it has `cleanup_seconds`; nobody knows what came of it."""
    engine = create_async_engine(postgres_server.url("postgres", "asyncpg"))
    hangs = asyncio.Event()

    @with_session
    async def hang(_: object, session: AsyncSession) -> None:
        await session.execute(text("CREATE TABLE made (item int)"))
        postgres_server.hang()
        hangs.set()

    workflow = TransactionPrimitive(hang, cleanup_seconds=0.05)
    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    run = asyncio.create_task(workflow.execute(0, context))
    await hangs.wait()
    run.cancel()
    ended, _ = await asyncio.wait([run], timeout=PATIENCE)
    postgres_server.wake()
    assert ended == {run}
    assert run.cancelled()
    assert engine.pool.checkedout() == 0
    assert (workflow.stats.unknown, workflow.stats.committed) == (1, 0)
    await engine.dispose()
