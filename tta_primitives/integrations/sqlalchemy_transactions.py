"""One transaction around some work: begun, committed or rolled back, given back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict

from tta_primitives.door import emit
from tta_primitives.extras import needs
from tta_primitives.loops import now

with needs("sqlalchemy", __name__):
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tta_primitives.integrations.sqlalchemy_errors import (
    TransactionClosedError,
    is_connection_lost,
    mark_inside,
    settle_at_end,
)
from tta_primitives.integrations.sqlalchemy_sessions import (
    Claim,
    SessionMaker,
    begin_for_sure,
    check_loop,
    claim_in,
    factory_in,
    session_in,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import timedelta
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

    from tta_primitives.context import WorkflowContext

__all__ = [
    "Nested",
    "Transaction",
    "TransactionCounts",
    "TransactionOptions",
    "TransactionPlan",
]

Nested: TypeAlias = Literal["savepoint", "separate"]


class TransactionOptions(TypedDict, total=False):
    """The keyword arguments of `TransactionPrimitive`, which documents them."""

    sessions: SessionMaker | str
    session_name: str
    nested: Nested
    isolation_level: str | None
    cleanup_seconds: float | timedelta


class TransactionCounts:
    """The counters of one primitive's transactions."""

    __slots__ = ("begun", "committed", "rolled_back", "savepoints", "unknown")

    def __init__(self) -> None:
        self.begun: int = 0
        self.committed: int = 0
        self.rolled_back: int = 0
        self.unknown: int = 0
        self.savepoints: int = 0


class TransactionPlan:
    """How one primitive wants its transactions.

    Args:
        sessions: A factory of sessions, or its name in `context.deps`.
        session_name: Under which name in `context.deps` the session is.
        nested: What to do where there is a session already; `"join"` is to be a part
            of its transaction, as steps are.
        isolation_level: As the database calls it; None for its own default.
        cleanup_seconds: How long a rollback may take, or a commit once cancelled.
    """

    __slots__ = (
        "cleanup_seconds",
        "counts",
        "isolation_level",
        "nested",
        "session_name",
        "sessions",
    )

    def __init__(
        self,
        *,
        sessions: SessionMaker | str,
        session_name: str,
        nested: Nested | Literal["join"],
        isolation_level: str | None,
        cleanup_seconds: float,
    ) -> None:
        self.sessions: SessionMaker | str = sessions
        self.session_name: str = session_name
        self.nested = nested
        self.isolation_level: str | None = isolation_level
        self.cleanup_seconds: float = cleanup_seconds
        self.counts: TransactionCounts = TransactionCounts()


class Transaction:
    """One transaction, a savepoint in one, or a part of one, of one execution.

    Args:
        plan: How it is wanted.
        path: Whose it is.
        context: Where sessions are looked for, and observers are told.
    """

    __slots__ = (
        "_context",
        "_ends",
        "_is_ours",
        "_path",
        "_plan",
        "_transaction",
        "claim",
        "session",
    )

    session: AsyncSession
    claim: Claim

    def __init__(
        self, plan: TransactionPlan, path: str, context: WorkflowContext
    ) -> None:
        self._plan = plan
        self._path = path
        self._context = context
        self._transaction: AsyncSessionTransaction | None = None
        self._is_ours = False  # Whether the session is to be closed here.
        self._ends = False  # Whether a transaction, not a part of one, ends here.

    async def __aenter__(self) -> Self:
        """Begin it."""
        plan, context = self._plan, self._context
        outer = session_in(context, plan.session_name)
        if outer is None or plan.nested == "separate":
            self.session = factory_in(context, plan.sessions, self._path)()
            self._is_ours = self._ends = True
        else:
            self.session = outer
            self._ends = plan.nested == "savepoint" and not outer.in_transaction()
        self.claim = claim_in(context, plan.session_name, self.session).enter(
            self._path
        )
        try:
            await self._begin()
        except BaseException as error:
            self._advise(error)
            settle_at_end(error)
            await self._roll_back()
            raise
        return self

    async def _begin(self) -> None:
        plan, session = self._plan, self.session
        check_loop(session, self._path)
        if self._ends:
            plan.counts.begun += 1
            self._transaction = await session.begin()
            if plan.isolation_level is not None:
                options = {"isolation_level": plan.isolation_level}
                await session.connection(execution_options=options)
            await begin_for_sure(session)
            emit(self._context, "transaction.begun")
        elif plan.nested == "savepoint":
            plan.counts.savepoints += 1
            self._transaction = await session.begin_nested()
            emit(self._context, "transaction.savepoint")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit it, or roll it back if there is an error."""
        if error is not None:
            self._advise(error)
            (settle_at_end if self._ends else mark_inside)(error)
            await self._roll_back(error)
            return
        try:
            await self._commit()
        except BaseException as failure:
            if self._transaction is not None:
                self._note_failed_commit(failure)
                await self._roll_back(failure)
            else:  # It was cancelled, and has been committed before that.
                await self._leave()
            raise
        await self._leave()

    async def _commit(self) -> None:
        transaction = self._transaction
        if transaction is not None:
            self._check_open(transaction)
            ending = self._end_with_commit(transaction)
            await _finish(ending, self._plan.cleanup_seconds)

    async def _end_with_commit(self, transaction: AsyncSessionTransaction) -> None:
        await transaction.commit()
        self._transaction = None
        if self._ends:
            self._plan.counts.committed += 1
            emit(self._context, "transaction.committed")

    def _note_failed_commit(self, failure: BaseException) -> None:
        if not self._ends:
            mark_inside(failure)
            return
        settle_at_end(failure, is_commit=True)
        is_cut = isinstance(failure, asyncio.CancelledError)
        self._plan.counts.unknown += is_cut or is_connection_lost(failure)

    def _check_open(self, transaction: AsyncSessionTransaction) -> None:
        sync = self.session.sync_session
        present = sync.get_nested_transaction() or sync.get_transaction()
        if present is not transaction.sync_transaction:
            msg = (
                f"a step below {self._path} has ended its transaction, so that half of "
                "the work may be committed: leave out session.commit() and "
                "session.rollback(), which belong to TransactionPrimitive; to give up, "
                "raise an error"
            )
            raise TransactionClosedError(msg)

    async def _roll_back(self, error: BaseException | None = None) -> None:
        """Roll back what was begun here, whatever the connection says to it."""
        transaction, self._transaction = self._transaction, None
        seconds = self._plan.cleanup_seconds
        try:
            if transaction is not None:
                await _finish(self._undo(transaction), seconds)
        finally:
            if self._ends:
                self._plan.counts.rolled_back += 1
                emit(self._context, "transaction.rolled_back", error=error)
            await self._leave()

    async def _undo(self, transaction: AsyncSessionTransaction) -> None:
        try:
            async with asyncio.timeout(self._plan.cleanup_seconds):
                if transaction.is_active or not self._ends:
                    await transaction.rollback()
                else:
                    await self.session.rollback()
        except Exception:  # noqa: BLE001 - the error that ended the work is what counts
            # Its connections are not to be used again; the server rolls back.
            await self.session.invalidate()

    async def _leave(self) -> None:
        self.claim.leave()
        if self._is_ours:
            await _finish(self.session.close(), self._plan.cleanup_seconds)

    def _advise(self, error: BaseException) -> None:
        if isinstance(error, PoolTimeoutError) and not hasattr(error, "__notes__"):
            error.add_note(
                f"{self._path} got no connection: more transactions run at a time than "
                "the pool has connections. Raise pool_size, or lower max_concurrency "
                "of what runs it; check_pool(workflow, engine) compares them"
            )


async def _finish(work: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Await work that must not be left half done, also if the task is cancelled.

    Args:
        work: What is to be finished.
        seconds: How long it may go on after a cancellation, which is raised then.
    """
    task = asyncio.get_running_loop().create_task(work)
    deadline: float | None = None
    while not task.done():
        left = None if deadline is None else max(0.0, deadline - now())
        try:
            await asyncio.wait((task,), timeout=left)
        except asyncio.CancelledError:
            deadline = now() + seconds if deadline is None else deadline
        if deadline is not None and now() >= deadline and not task.done():
            task.cancel()
            deadline = now() + seconds
    if deadline is None:
        await task
        return
    if not task.cancelled():
        task.exception()  # Or it is reported as never retrieved.
    raise asyncio.CancelledError
