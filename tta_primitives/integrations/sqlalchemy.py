"""Workflows on a database: SQLAlchemy 2 with asyncio.

`TransactionPrimitive` runs a primitive in one transaction, `with_session` makes a
function that wants a session a step, and `workflow_sessions` makes sessions that say
clearly when two branches use one of them.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast, overload

from tta_primitives.arguments import check_choice, check_count, seconds
from tta_primitives.door import closing
from tta_primitives.extras import needs
from tta_primitives.mapping import MapPrimitive
from tta_primitives.primitive import (
    In,
    Open,
    Out,
    ParallelPrimitive,
    StepPrimitive,
    WorkflowPrimitive,
    Wrapper,
    as_operand,
)
from tta_primitives.recovery.hedge import HedgePrimitive
from tta_primitives.signature import function_name, read_signature

with needs("sqlalchemy", __name__):
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.pool import QueuePool, StaticPool

from tta_primitives.integrations.sqlalchemy_errors import (
    ConcurrentSessionError,
    EngineLoopError,
    NoSessionError,
    PoolSizeWarning,
    TransactionClosedError,
    is_retryable_database_error,
)
from tta_primitives.integrations.sqlalchemy_sessions import (
    SessionMaker,
    WorkflowSession,
    view_with,
    workflow_sessions,
)
from tta_primitives.integrations.sqlalchemy_transactions import (
    Nested,
    Transaction,
    TransactionPlan,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import timedelta
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.integrations.sqlalchemy_transactions import TransactionOptions
    from tta_primitives.operands import AsyncOperand
    from tta_primitives.primitive import UnboundStep

__all__ = [
    "ConcurrentSessionError",
    "EngineLoopError",
    "NoSessionError",
    "PoolSizeWarning",
    "SessionStep",
    "TransactionClosedError",
    "TransactionPrimitive",
    "TransactionStats",
    "WorkflowSession",
    "check_pool",
    "connections_needed",
    "is_retryable_database_error",
    "with_session",
    "workflow_sessions",
]

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")

_NESTED = ("savepoint", "separate")


@dataclass(frozen=True, slots=True)
class TransactionStats:
    """What the transactions of one primitive have come to.

    Attributes:
        begun: Transactions that began.
        committed: Those that were committed.
        rolled_back: Those that were not, after an error or a cancellation.
        unknown: Those of them whose commit was not answered: it may have happened.
        savepoints: Executions inside another transaction.
    """

    begun: int
    committed: int
    rolled_back: int
    unknown: int
    savepoints: int


class TransactionPrimitive(Wrapper[In, Out]):
    """Runs a primitive in one transaction: committed if it succeeds, else rolled back.

    The session is in `context.deps["session"]` for whatever runs inside, and only
    there: two branches with a `TransactionPrimitive` each have two sessions. Steps made
    with `with_session` get it as an argument.

    Where there is a session already, the work is done in a savepoint of its transaction
    and what fails undoes no more than that. A session of the caller's that is in no
    transaction yet gets one, and stays open.

    A rollback is finished, and the connection given back, also when the task is
    cancelled. A commit that has begun is finished before the cancellation goes on,
    within `cleanup_seconds`.

    To try again, put the retry around it, never inside:
    `RetryPrimitive(retry_on=is_retryable_database_error) >> TransactionPrimitive() >>
    work`. A stream is one transaction until its end.

    Observers hear `transaction.begun`, `transaction.committed`,
    `transaction.rolled_back` (error) and `transaction.savepoint`.

    Args:
        primitive: A primitive or a function; without it the transaction is open.
        sessions: A factory of sessions such as `workflow_sessions(engine)`, or the name
            under which it is in `context.deps`.
        session_name: The name of the session in `context.deps`; another one for each
            database that a workflow uses.
        nested: `"savepoint"` as above, or `"separate"` for a transaction of its own,
            which stays when the outer one is rolled back. It takes one more connection.
        isolation_level: For instance `"SERIALIZABLE"`; None for the database's default.
        cleanup_seconds: How long a rollback may take before its connection is dropped,
            and a commit after a cancellation.

    Raises:
        ConcurrentSessionError: On execution; another branch uses the session.
        EngineLoopError: On execution; the engine was used on another event loop.
        NoSessionError: On execution; there is no session and no factory.
        TransactionClosedError: On execution; a step has committed or rolled back.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.
    """

    @overload
    def __init__(
        self: TransactionPrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[TransactionOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: AsyncOperand[In, Out], **options: Unpack[TransactionOptions]
    ) -> None: ...
    def __init__(
        self,
        primitive: Any = None,
        *,
        sessions: SessionMaker | str = "sessionmaker",
        session_name: str = "session",
        nested: Nested = "savepoint",
        isolation_level: str | None = None,
        cleanup_seconds: float | timedelta = 5.0,
    ) -> None:
        self._plan = TransactionPlan(
            sessions=_checked_sessions(sessions),
            session_name=_checked_text("session_name", session_name),
            nested=cast("Nested", check_choice("nested", nested, _NESTED)),
            isolation_level=isolation_level,
            cleanup_seconds=seconds("cleanup_seconds", cleanup_seconds),
        )
        if primitive is not None:
            self._wrap(as_operand(primitive))

    # For durable runs: what was rolled back must not count as done.
    runs_as_one_step = True

    _bound_attributes = (*Wrapper._bound_attributes, "_plan")

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        plan = self._plan
        self._plan = TransactionPlan(
            sessions=plan.sessions,
            session_name=plan.session_name,
            nested=plan.nested,
            isolation_level=plan.isolation_level,
            cleanup_seconds=plan.cleanup_seconds,
        )
        # Whatever is inside finds its session in the context.
        self._needs_position = True
        self._child_label = primitive.name

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        plan = self._plan
        shown: dict[str, Any] = {}
        if isinstance(plan.sessions, str) and plan.sessions != "sessionmaker":
            shown["sessions"] = plan.sessions
        if plan.session_name != "session":
            shown["session_name"] = plan.session_name
        if plan.nested != "savepoint":
            shown["nested"] = plan.nested
        if plan.isolation_level is not None:
            shown["isolation_level"] = plan.isolation_level
        return shown

    @property
    def stats(self) -> TransactionStats:
        """Return what was counted so far.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts = self._plan.counts
        return TransactionStats(
            begun=counts.begun,
            committed=counts.committed,
            rolled_back=counts.rolled_back,
            unknown=counts.unknown,
            savepoints=counts.savepoints,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive in a transaction."""
        primitive = self._wrapped()
        async with self._transaction(context) as view:
            return await primitive.execute(input_data, view)  # type: ignore[no-any-return]

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the primitive's chunks in one transaction."""
        primitive = self._wrapped()
        async with (
            self._transaction(context) as view,
            closing(primitive.stream(input_data, view)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def _transaction(
        self, context: WorkflowContext
    ) -> AsyncIterator[WorkflowContext]:
        """Yield the view of what is executed in a transaction."""
        path = context.position_of(self).path
        async with Transaction(self._plan, path, context) as begun:
            view = context.below(self, self._wrapped(), self._wrapped().name)
            name = self._plan.session_name
            yield view_with(view, name, begun.session, begun.claim)


class SessionStep(WorkflowPrimitive[In, Out]):
    """A function that works with a session, as a step; made by `with_session`.

    Inside a `TransactionPrimitive`, or with a session in `context.deps["session"]`, it
    gets that one, and who began the transaction ends it. Elsewhere it gets a session
    and a transaction of its own for each execution.

    Args:
        function: `f(input, session)` or `f(input, context, session)`.
        name: The step's name; the function's unless given.
        idempotent: Whether executing it twice does no harm.
        sessions: As for `TransactionPrimitive`.
        session_name: As for `TransactionPrimitive`.

    Raises:
        TypeError: The function is not of that form, or an argument is of the wrong
            kind.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        idempotent: bool = True,
        sessions: SessionMaker | str = "sessionmaker",
        session_name: str = "session",
    ) -> None:
        function, name, idempotent = _unwrapped(function, name, idempotent=idempotent)
        self._function = function
        self._takes_context, self._parameter = _read(function)
        self._plan = TransactionPlan(
            sessions=_checked_sessions(sessions),
            session_name=_checked_text("session_name", session_name),
            nested="join",
            isolation_level=None,
            cleanup_seconds=5.0,
        )
        made: Any = self
        update_wrapper(made, function, updated=())
        self.name: str = name or function_name(function)
        self.idempotent = idempotent

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Call the function with a session."""
        own = context.of(self)
        plan = self._plan
        async with Transaction(plan, own.path, own) as begun:
            args: tuple[Any, ...] = (input_data,)
            if self._takes_context:
                view = own.at(own.position_of(self))
                name = plan.session_name
                args += (view_with(view, name, begun.session, begun.claim),)
            found = self._function(*args, **{self._parameter: begun.session})
            if inspect.isawaitable(found):
                found = await found
            return cast("Out", found)

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return nothing: a step is a leaf."""
        return ()


@overload
def with_session(function: UnboundStep[A, P, B], /) -> SessionStep[A, B]: ...
@overload
def with_session(
    function: Callable[[A, AsyncSession], Awaitable[B]], /
) -> SessionStep[A, B]: ...
@overload
def with_session(
    function: Callable[[A, WorkflowContext, AsyncSession], Awaitable[B]], /
) -> SessionStep[A, B]: ...
@overload
def with_session(
    *,
    name: str | None = None,
    idempotent: bool = True,
    sessions: SessionMaker | str = "sessionmaker",
    session_name: str = "session",
) -> _WithSession: ...
def with_session(function: Any = None, /, **options: Any) -> Any:
    """Make a function that works with a session a step.

    Args:
        function: `f(input, session)` or `f(input, context, session)`, or a step made of
            one, such as the `query_database` of which `query_database(session)` is
            bound to one session.
        options: As `SessionStep` takes them.

    Returns:
        The step, or a decorator if only options were given.
    """
    decorator = _WithSession(options)
    return decorator if function is None else decorator(function)


class _WithSession:
    """What `with_session(...)` with options returns."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(
        self, function: Callable[[A, AsyncSession], Awaitable[B]]
    ) -> SessionStep[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[[A, WorkflowContext, AsyncSession], Awaitable[B]]
    ) -> SessionStep[A, B]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, P], Awaitable[B]]
    ) -> SessionStep[A, B]: ...
    def __call__(self, function: Any) -> Any:
        """Return the function as a step with the options."""
        return SessionStep(function, **self._options)


def _unwrapped(
    function: Any,  # noqa: ANN401 - a function or a step
    name: str | None,
    *,
    idempotent: bool,
) -> tuple[Callable[..., Any], str | None, bool]:
    """Return the function of a step, with what the step says of it."""
    if not isinstance(function, StepPrimitive):
        return function, name, idempotent
    extras = {key for key in function.options() if key != "idempotent"}
    if extras or function._extras:
        msg = (
            f"with_session({function.name}) cannot take over what was set beside the "
            f"function ({', '.join(sorted(extras | set(function._extras)))}): give it "
            "the plain function, and wrap a TimeoutPrimitive around the step"
        )
        raise TypeError(msg)
    return function._function, name or function.name, function.idempotent


def _read(function: Callable[..., Any]) -> tuple[bool, str]:
    """Return whether a function wants the context, and what it calls the session."""
    if not callable(function):
        msg = f"with_session({function!r}) needs a function, f(input, session)"
        raise TypeError(msg)
    signature = read_signature(function)
    required = [p.name for p in signature.extras if p.name in signature.required]
    if signature.is_stream or len(required) != 1:
        shown = f"{function_name(function)}({', '.join(required) or '...'})"
        msg = (
            f"{shown} cannot be a step with a session: write async def "
            f"{function_name(function)}(input, session) or (input, context, session)"
        )
        raise TypeError(msg)
    return signature.takes_context, required[0]


def _checked_sessions(sessions: object) -> SessionMaker | str:
    if isinstance(sessions, str) and sessions:
        return sessions
    if callable(sessions) and not isinstance(sessions, (AsyncSession, AsyncEngine)):
        return cast("SessionMaker", sessions)
    msg = (
        f"sessions={sessions!r} must be an async_sessionmaker, such as "
        "workflow_sessions(engine), or its name in context.deps"
    )
    raise TypeError(msg)


def _checked_text(name: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    msg = f"{name}={value!r} must be a non-empty text"
    raise TypeError(msg)


def connections_needed(workflow: WorkflowPrimitive[Any, Any]) -> int:
    """Return how many connections one run of a workflow may hold at a time.

    Args:
        workflow: Its transactions and its steps made with `with_session` count; what
            runs at a time is known of `|`, `MapPrimitive` and `HedgePrimitive`.
    """
    return _needed(workflow, inside=False)


def _needed(workflow: WorkflowPrimitive[Any, Any], *, inside: bool) -> int:
    if isinstance(workflow, SessionStep):
        return 0 if inside else 1
    own = 0
    if isinstance(workflow, TransactionPrimitive):
        own = 0 if inside and workflow._plan.nested == "savepoint" else 1
        inside = True
    below = [_needed(child, inside=inside) for child in workflow.children()]
    widest = max(below, default=0)
    if isinstance(workflow, ParallelPrimitive):
        limit = workflow._max_concurrency or len(below)
        return sum(sorted(below, reverse=True)[:limit])
    if isinstance(workflow, MapPrimitive):
        return widest * workflow._max_concurrency
    if isinstance(workflow, HedgePrimitive):
        return widest * (1 + workflow.max_hedges)
    return own + widest


def check_pool(
    workflow: WorkflowPrimitive[Any, Any], engine: AsyncEngine, *, runs: int = 1
) -> int:
    """Warn if a workflow may want more connections than its engine's pool has.

    What wants one more waits for it, `pool_timeout` seconds at most. Whoever holds one
    and waits for another may wait for himself. Call it where the service starts.

    Args:
        workflow: What will be run.
        engine: Where its sessions connect to.
        runs: How many runs there may be at a time.

    Returns:
        How many connections all runs may want at a time.
    """
    needed = connections_needed(workflow) * check_count("runs", runs, minimum=1)
    size = _size_of(engine)
    if size is not None and needed > size:
        msg = (
            f"{workflow.name} may want {needed} connections at a time, and the pool of "
            f"{engine.url!r} has {size}: raise pool_size or max_overflow, or lower "
            "max_concurrency"
        )
        warnings.warn(msg, PoolSizeWarning, stacklevel=2)
    return needed


def _size_of(engine: AsyncEngine) -> int | None:
    """Return how many connections a pool has at most, None without a limit."""
    pool = engine.pool
    if isinstance(pool, StaticPool):
        return 1
    if isinstance(pool, QueuePool) and pool._max_overflow >= 0:
        return pool.size() + pool._max_overflow
    return None
