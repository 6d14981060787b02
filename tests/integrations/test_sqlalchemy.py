"""Transactions and sessions of workflows, on SQLite."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import ForeignKey, String, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.durable import MemoryJournal, run_durably
from tta_primitives.errors import OpenWrapperError, TimeoutExceededError
from tta_primitives.integrations.sqlalchemy import (
    ConcurrentSessionError,
    EngineLoopError,
    NoSessionError,
    PoolSizeWarning,
    TransactionClosedError,
    TransactionPrimitive,
    WorkflowSession,
    check_pool,
    connections_needed,
    is_retryable_database_error,
    with_session,
    workflow_sessions,
)
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive
from tta_primitives.stats import stats_of


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    balance: Mapped[int]


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))
    amount: Mapped[int]


@pytest.fixture
async def engine(tmp_path):
    """An engine on a file, with one account in it."""
    made = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}", pool_size=5, max_overflow=0
    )
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES ('ada', 100)"))
    yield made
    assert made.pool.checkedout() == 0
    await made.dispose()


@pytest.fixture
def sessions(engine):
    return workflow_sessions(engine)


@pytest.fixture
def context(sessions):
    return WorkflowContext(deps={"sessionmaker": sessions})


async def total(engine) -> int:
    async with AsyncSession(engine) as session:
        return await session.scalar(select(func.sum(Account.balance)))


async def entries(engine) -> list[int]:
    async with AsyncSession(engine) as session:
        rows = await session.scalars(select(Entry.amount).order_by(Entry.amount))
        return list(rows)


@with_session
async def deposit(amount: int, session: AsyncSession) -> int:
    account = await session.get_one(Account, "ada")
    account.balance += amount
    await session.flush()
    return amount


@with_session
async def record(amount: int, context: WorkflowContext, session: AsyncSession) -> str:
    session.add(Entry(account="ada", amount=amount))
    await session.flush()
    return f"{context.path} recorded {amount}"


@step
async def refuse(amount: int) -> int:
    raise ValueError(f"{amount} is refused")


async def test_transaction_commits_all_of_its_steps(engine, context) -> None:
    """Two steps share the session of the transaction around them."""
    workflow = TransactionPrimitive(deposit >> record)
    done = await workflow.execute(5, context)
    assert done == "transaction/sequential/record recorded 5"
    assert (await total(engine), await entries(engine)) == (105, [5])
    assert workflow.stats.committed == 1


async def test_durable_run_takes_a_transaction_for_one_step(engine, sessions) -> None:
    """Where it died inside of one, all of it is done again, and nothing twice."""
    workflow = TransactionPrimitive(deposit >> record).named("book")
    journal = MemoryJournal()
    context = WorkflowContext("r", deps={"sessionmaker": sessions})
    await run_durably(workflow, 5, context, journal=journal)
    assert [key for key in journal.records if "/" in key] == []
    assert (await total(engine), await entries(engine)) == (105, [5])


async def test_failure_rolls_back_what_earlier_steps_did(engine, context) -> None:
    """The error comes out as it is, and nothing of the chain is left."""
    workflow = TransactionPrimitive(deposit >> refuse >> record)
    with pytest.raises(ValueError, match="5 is refused"):
        await workflow.execute(5, context)
    assert (await total(engine), await entries(engine)) == (100, [])
    assert stats_of(workflow)["transaction"]["rolled_back"] == 1


async def test_open_transaction_wraps_the_next_operand(engine, context) -> None:
    """It is read like a decorator, and executing it open is a clear error."""
    workflow = TransactionPrimitive() >> (deposit >> record)
    await workflow.execute(5, context)
    assert await total(engine) == 105
    with pytest.raises(OpenWrapperError, match="wraps nothing yet"):
        await TransactionPrimitive().execute(5, context)


async def test_steps_of_the_guide_are_bound_to_one_session(engine, sessions) -> None:
    """A chain of bound steps in `session.begin()` is one transaction."""

    @step
    async def query_database(name: str, session: AsyncSession) -> Account:
        return await session.get_one(Account, name)

    @step
    async def update_database(account: Account, session: AsyncSession) -> int:
        account.balance += 7
        await session.flush()
        return account.balance

    async def run(ending) -> object:
        async with sessions() as session, session.begin():
            workflow = query_database(session) >> update_database(session) >> ending
            return await workflow.execute("ada", WorkflowContext())

    with pytest.raises(ValueError, match="107 is refused"):
        await run(refuse)
    assert await total(engine) == 100
    assert await run(str) == "107"
    assert await total(engine) == 107


async def test_unbound_step_gets_a_session_as_well(engine, context) -> None:
    """The same function serves both styles: bound by hand, or given a session."""

    @step(name="balance")
    async def query(name: str, session: AsyncSession) -> int:
        return (await session.get_one(Account, name)).balance

    assert await with_session(query).execute("ada", context) == 100
    assert with_session(query).name == "balance"


async def test_step_alone_is_its_own_transaction(engine, context) -> None:
    """Without a transaction around it, a step commits what it has done."""
    await deposit.execute(1, context)
    assert await total(engine) == 101


async def test_session_is_closed_at_the_end(engine, context) -> None:
    """Objects are let go of, and can be read without the session."""

    @with_session
    async def load(name: str, session: AsyncSession) -> tuple[Account, AsyncSession]:
        return await session.get_one(Account, name), session

    account, session = await TransactionPrimitive(load).execute("ada", context)
    assert account not in session
    assert account.balance == 100


async def test_each_branch_has_a_session_of_its_own(engine, context) -> None:
    """One branch is rolled back, and what the other has committed stays."""
    seen = []

    @with_session
    async def look(amount: int, session: AsyncSession) -> int:
        seen.append(session)
        return amount

    await (look | look | (TransactionPrimitive() >> look)).execute(1, context)
    assert len(set(map(id, seen))) == 3
    assert "session" not in context.deps


async def test_branches_in_one_transaction_are_told_apart(engine, context) -> None:
    """The error names both branches and the way out, and nothing is left open."""
    branches = deposit.named("left") | deposit.named("right")
    with pytest.raises(
        ConcurrentSessionError,
        match=r"transaction/parallel/right uses a session that "
        r"transaction/parallel/left is using.*TransactionPrimitive\(branch\)",
    ):
        await TransactionPrimitive(branches).execute(5, context)
    assert await total(engine) == 100


async def test_bound_session_in_branches_is_a_clear_error(engine, sessions) -> None:
    """Also in the guide's style, where no step of ours holds the session."""

    @step
    async def query(name: str, session: AsyncSession) -> int:
        return (await session.get_one(Account, name)).balance

    async with sessions() as session:
        branches = query(session).named("left") | query(session).named("right")
        with pytest.raises(
            ConcurrentSessionError, match=r"task 'right' calls session.get_one\(\)"
        ):
            await branches.execute("ada", WorkflowContext())


async def test_session_serves_many_items_one_after_the_other(engine, context) -> None:
    """A map that does one item at a time may stay inside one transaction."""
    workflow = TransactionPrimitive(MapPrimitive(deposit, max_concurrency=1))
    assert await workflow.execute([1, 2, 3], context) == [1, 2, 3]
    assert await total(engine) == 106


async def test_savepoint_undoes_no_more_than_its_own(engine, context) -> None:
    """A nested transaction that fails leaves the outer one as it was before."""

    @step
    async def try_more(amount: int, context: WorkflowContext) -> int:
        with pytest.raises(ValueError, match="is refused"):
            await TransactionPrimitive(deposit >> refuse).execute(50, context)
        return amount

    for workflow in (try_more >> deposit, deposit >> try_more):
        await TransactionPrimitive(workflow).execute(5, context)
    assert await total(engine) == 110


async def test_savepoint_is_no_transaction_of_its_own_on_sqlite(
    engine, context
) -> None:
    """What a savepoint released before anything else is undone with the outer one."""
    workflow = TransactionPrimitive(TransactionPrimitive(deposit) >> refuse)
    with pytest.raises(ValueError, match="5 is refused"):
        await workflow.execute(5, context)
    assert await total(engine) == 100


async def test_separate_transaction_outlives_the_outer_one(tmp_path, context) -> None:
    """An audit trail in a database of its own stays when the work is rolled back."""
    audit = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'audit.db'}")
    async with audit.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES ('ada', 0)"))
    note = TransactionPrimitive(
        record, sessions=workflow_sessions(audit), nested="separate"
    )

    @step
    async def fail(_: str) -> None:
        raise ValueError("too late")

    with pytest.raises(ValueError, match="too late"):
        await TransactionPrimitive(deposit >> note >> fail).execute(5, context)
    assert await entries(audit) == [5]
    await audit.dispose()


async def test_session_of_the_caller_is_used_and_left_open(engine, sessions) -> None:
    """A host that makes one session per request keeps the last word."""
    async with sessions() as session:
        context = WorkflowContext(deps={"session": session})
        await deposit.execute(1, context)
        assert session.in_transaction()
        await session.rollback()
        assert await total(engine) == 100
        await TransactionPrimitive(deposit).execute(2, context)
        assert not session.in_transaction()
        assert await total(engine) == 102


async def test_cancelled_transactions_give_back_their_connections(
    engine, context
) -> None:
    """Five are cancelled in the middle; the pool of five is whole again at once."""
    waiting = asyncio.Semaphore(0)

    @step
    async def wait(amount: int) -> int:
        waiting.release()
        await asyncio.Event().wait()
        return amount

    @with_session
    async def read(amount: int, session: AsyncSession) -> int:
        await session.get_one(Account, "ada")
        return amount

    workflow = TransactionPrimitive(read >> wait)
    runs = [asyncio.create_task(workflow.execute(n, context)) for n in range(5)]
    for _ in runs:
        await waiting.acquire()
    assert engine.pool.checkedout() == 5
    for run in runs:
        run.cancel()
    ended = await asyncio.gather(*runs, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 5
    assert engine.pool.checkedout() == 0
    assert workflow.stats.rolled_back == 5


async def test_cancellation_in_the_commit_waits_for_its_end(engine, context) -> None:
    """What has begun to be committed is, and the cancellation goes on after it."""
    committing, may_go_on = asyncio.Event(), asyncio.Event()

    class SlowSession(WorkflowSession):
        def begin(self):
            begun = super().begin()
            commit = begun.commit

            async def slow_commit() -> None:
                """Commit when the test says so."""
                committing.set()
                await may_go_on.wait()
                await commit()

            class Slow:
                def __await__(self):
                    yield from begun.start().__await__()
                    return self

                commit = staticmethod(slow_commit)

                def __getattr__(self, name):
                    return getattr(begun, name)

            return Slow()

    context.deps["sessionmaker"] = async_sessionmaker(engine, class_=SlowSession)
    workflow = TransactionPrimitive(deposit)
    run = asyncio.create_task(workflow.execute(5, context))
    await committing.wait()
    run.cancel()
    await asyncio.sleep(0)
    assert not run.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await total(engine) == 105
    stats = workflow.stats
    assert (stats.committed, stats.rolled_back, stats.unknown) == (1, 0, 0)


async def test_time_limit_rolls_back(tta, tmp_path) -> None:
    """A transaction that takes too long is undone, in virtual time."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'slow.db'}", poolclass=NullPool
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES ('ada', 100)"))

    async def ponder(amount: int) -> int:
        await asyncio.sleep(3600)
        return amount

    workflow = TimeoutPrimitive(
        TransactionPrimitive(deposit >> ponder), timeout_seconds=30
    )
    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    with pytest.raises(TimeoutExceededError, match="timeout"):
        await workflow.execute(5, context)
    assert tta.elapsed == 30.0
    assert await total(engine) == 100
    await engine.dispose()


async def test_step_that_commits_by_itself_is_found_out(engine, context) -> None:
    """Half of the work would stay if a later step failed."""

    @with_session
    async def commit_early(amount: int, session: AsyncSession) -> int:
        await session.commit()
        return amount

    with pytest.raises(TransactionClosedError, match=r"leave out session\.commit\(\)"):
        await TransactionPrimitive(deposit >> commit_early).execute(5, context)


async def test_stream_is_one_transaction(engine, context) -> None:
    """Rows go out one by one while the session is open, and a failure undoes all."""

    @step
    async def rows(amount: int, context: WorkflowContext):
        session = context.deps["session"]
        session.add(Entry(account="ada", amount=amount))
        await session.flush()
        yield amount
        if amount > 9:
            raise ValueError("too much")

    workflow = TransactionPrimitive(rows)
    assert [chunk async for chunk in workflow.stream(5, context)] == [5]
    with pytest.raises(ValueError, match="too much"):
        [chunk async for chunk in workflow.stream(10, context)]
    assert await entries(engine) == [5]


async def test_missing_factory_says_what_to_write(engine) -> None:
    """The message names the step, the name that was looked for, and the line."""
    context = WorkflowContext(deps={"http": object()})
    with pytest.raises(
        NoSessionError,
        match=r"transaction has no session: context.deps\['sessionmaker'\] is missing "
        r"\(there is 'http'\)",
    ):
        await TransactionPrimitive(deposit).execute(5, context)


@pytest.mark.parametrize(
    ("deps", "message"),
    [
        ({"session": 3}, r"deps\['session'\] must be an AsyncSession, not int"),
        ({"sessionmaker": 3}, r"must be an async_sessionmaker, not int"),
    ],
    ids=["session", "factory"],
)
async def test_wrong_dependency_is_named(deps, message) -> None:
    """What is in the context under our names is checked when it is needed."""
    with pytest.raises(TypeError, match=message):
        await deposit.execute(5, WorkflowContext(deps=deps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": 3}, "sessions=3 must be an async_sessionmaker"),
        ({"session_name": ""}, "session_name='' must be a non-empty text"),
        ({"nested": "join"}, "nested='join' must be one of 'savepoint', 'separate'"),
        ({"cleanup_seconds": 0}, "cleanup_seconds=0 must be a positive number"),
    ],
    ids=["sessions", "session_name", "nested", "cleanup_seconds"],
)
def test_arguments_are_checked(options, message) -> None:
    """What is wrong is said where the transaction is made."""
    with pytest.raises((TypeError, ValueError), match=message):
        TransactionPrimitive(**options)


def test_function_without_a_session_is_no_session_step() -> None:
    """The message shows the form that the function should have."""
    with pytest.raises(TypeError, match=r"write async def refuse\(input, session\)"):
        with_session(refuse)
    with pytest.raises(TypeError, match="needs a function"):
        with_session(3)
    limited = step(timeout_seconds=3)(deposit._function)
    with pytest.raises(TypeError, match=r"cannot take over .*\(timeout_seconds\)"):
        with_session(limited)


async def test_violated_constraint_is_not_tried_again(engine, context) -> None:
    """The same row would be refused again, also by a retry without a filter."""
    calls = []

    @with_session
    async def open_account(name: str, session: AsyncSession) -> str:
        calls.append(name)
        session.add(Account(name=name, balance=0))
        return name

    workflow = RetryPrimitive(TransactionPrimitive(open_account), max_retries=3)
    with pytest.raises(IntegrityError, match="UNIQUE") as caught:
        await workflow.execute("ada", context)
    assert calls == ["ada"]
    assert not is_retryable_database_error(caught.value)


async def test_busy_database_is_tried_again_as_a_whole(
    engine, context, tmp_path
) -> None:
    """A retry around the transaction repeats all of it; one inside repeats nothing."""
    quick = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}", connect_args={"timeout": 0}
    )
    context.deps["sessionmaker"] = workflow_sessions(quick)
    calls = []

    async with engine.connect() as other:
        await other.exec_driver_sql("BEGIN IMMEDIATE")

        @step
        async def begin(amount: int) -> int:
            calls.append(amount)
            if len(calls) == 3:
                await other.rollback()
            return amount

        inner = RetryPrimitive(deposit, initial_delay=0.001, max_retries=5)
        workflow = RetryPrimitive(
            TransactionPrimitive(begin >> inner),
            retry_on=is_retryable_database_error,
            initial_delay=0.001,
            max_retries=5,
        )
        assert await workflow.execute(5, context) == 5
    assert (calls, inner.stats.retries) == ([5, 5, 5], 0)
    assert await total(engine) == 105
    await quick.dispose()


def test_engine_stays_on_its_loop(tmp_path) -> None:
    """Another loop gets a clear error, until the engine has let its connections go."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'bank.db'}")

    @with_session
    async def ask(number: int, session: AsyncSession) -> int:
        return await session.scalar(select(number))

    def run(*, last: bool) -> int:
        async def main() -> int:
            """Ask once, and let the connections go if this loop is the last."""
            context = WorkflowContext(deps={"sessionmaker": async_sessionmaker(engine)})
            try:
                return await ask.execute(1, context)
            finally:
                if last:
                    await engine.dispose()

        return asyncio.run(main())

    assert run(last=False) == 1
    with pytest.raises(EngineLoopError, match=r"ask uses the engine .* another event"):
        run(last=True)
    assert run(last=True) == 1


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (lambda: deposit >> record, 1),
        (lambda: deposit | record | deposit, 3),
        (lambda: TransactionPrimitive(deposit >> record), 1),
        (lambda: TransactionPrimitive(TransactionPrimitive(deposit)), 1),
        (
            lambda: TransactionPrimitive(
                TransactionPrimitive(deposit, nested="separate")
            ),
            2,
        ),
        (lambda: MapPrimitive(TransactionPrimitive(deposit), max_concurrency=20), 20),
        (lambda: refuse >> refuse, 0),
    ],
    ids=["chain", "branches", "transaction", "savepoint", "separate", "map", "none"],
)
def test_connections_are_counted(make, needed) -> None:
    """What runs at a time holds a connection each; a savepoint holds none."""
    assert connections_needed(make()) == needed


def test_small_pool_is_warned_of(tmp_path) -> None:
    """A map of twenty on a pool of two would wait, and with two runs even longer."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", pool_size=2, max_overflow=0
    )
    workflow = MapPrimitive(deposit, max_concurrency=20)
    with pytest.warns(PoolSizeWarning, match="may want 40 connections .* has 2: raise"):
        assert check_pool(workflow, engine, runs=2) == 40
    assert check_pool(MapPrimitive(deposit, max_concurrency=2), engine) == 2
    shared = create_async_engine("sqlite+aiosqlite://")
    with pytest.warns(PoolSizeWarning, match="has 1:"):
        check_pool(deposit | deposit, shared)


async def test_twenty_share_two_connections(tmp_path) -> None:
    """They take turns; with no patience for that the error says what to change."""
    path = f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"

    @with_session
    async def ask(number: int, session: AsyncSession) -> int:
        return await session.scalar(select(number))

    workflow = MapPrimitive(ask, max_concurrency=20)
    engine = create_async_engine(path, pool_size=2, max_overflow=0)
    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    assert await workflow.execute(range(100), context) == list(range(100))
    await engine.dispose()

    engine = create_async_engine(path, pool_size=2, max_overflow=0, pool_timeout=0.001)
    held = [await engine.connect() for _ in range(2)]
    context = WorkflowContext(deps={"sessionmaker": workflow_sessions(engine)})
    with pytest.raises(PoolTimeoutError, match="limit of size 2") as caught:
        await ask.execute(1, context)
    assert "ask got no connection" in caught.value.__notes__[0]
    for connection in held:
        await connection.close()
    await engine.dispose()


def test_options_are_shown() -> None:
    """What differs from the usual is in the repr."""
    made = TransactionPrimitive(
        deposit, nested="separate", isolation_level="SERIALIZABLE", session_name="db"
    )
    assert repr(made) == (
        "<TransactionPrimitive 'deposit' session_name='db' nested='separate' "
        "isolation_level='SERIALIZABLE'>"
    )


def test_engine_is_checked() -> None:
    """A sync engine, or a URL, is no engine for workflows."""
    with pytest.raises(TypeError, match="must be an AsyncEngine"):
        workflow_sessions("sqlite://")
