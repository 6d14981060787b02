"""Sessions that notice who uses them: one branch at a time, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary, ref

from tta_primitives.extras import needs
from tta_primitives.loops import running_loop

with needs("sqlalchemy", __name__):
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.pool import NullPool, Pool, StaticPool

from tta_primitives.integrations.sqlalchemy_errors import (
    ConcurrentSessionError,
    EngineLoopError,
    NoSessionError,
    mark_inside,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from tta_primitives.context import WorkflowContext

__all__ = [
    "Claim",
    "SessionMaker",
    "WorkflowSession",
    "begin_for_sure",
    "check_loop",
    "claim_in",
    "factory_in",
    "session_in",
    "view_with",
    "workflow_sessions",
]

SessionMaker: TypeAlias = Callable[[], AsyncSession]

# What goes to the database, or changes what will.
_GUARDED: Final = (
    *("commit", "connection", "delete", "execute", "flush", "get", "get_one"),
    *("merge", "refresh", "rollback", "run_sync", "scalar", "scalars", "stream"),
    "stream_scalars",
)
_WAY_OUT: Final = (
    "One session is one transaction on one connection, and serves one branch at a "
    "time. Give each branch a transaction of its own, TransactionPrimitive(branch) "
    'with an async_sessionmaker in context.deps["sessionmaker"], or run the branches '
    "one after the other with >>."
)


class Claim:
    """One use of a session by a primitive; uses further inside are below it.

    Args:
        path: Who uses it.
        parent: The use that it is part of; None for the session itself.
    """

    __slots__ = ("__weakref__", "below", "parent", "path")

    def __init__(self, path: str, parent: Claim | None = None) -> None:
        self.path: str = path
        self.parent: Claim | None = parent
        self.below: Claim | None = None

    def enter(self, path: str) -> Claim:
        """Begin a use inside this one.

        Raises:
            ConcurrentSessionError: There is one already.
        """
        other = self.below
        if other is not None:
            msg = f"{path} uses a session that {other.path} is using. {_WAY_OUT}"
            raise ConcurrentSessionError(msg)
        claim = self.below = Claim(path, self)
        return claim

    def leave(self) -> None:
        """End this use."""
        if self.parent is not None and self.parent.below is self:
            self.parent.below = None


_roots: WeakKeyDictionary[AsyncSession, Claim] = WeakKeyDictionary()
# The loop that the connections of a pool belong to. A pool that was disposed of is
# replaced by its engine, and the new one is free.
_loops: WeakKeyDictionary[Pool, ref[asyncio.AbstractEventLoop]] = WeakKeyDictionary()


def session_in(context: WorkflowContext, name: str) -> AsyncSession | None:
    """Return the session that a context has under this name, if it has one.

    Raises:
        TypeError: It is something else.
    """
    found = context.deps.get(name)
    if found is None or isinstance(found, AsyncSession):
        return found
    msg = (
        f"context.deps[{name!r}] must be an AsyncSession, not {type(found).__name__}; "
        'a factory of sessions is looked for in context.deps["sessionmaker"]'
    )
    raise TypeError(msg)


def factory_in(
    context: WorkflowContext, given: SessionMaker | str, path: str
) -> SessionMaker:
    """Return the factory of sessions.

    Args:
        context: Where it is looked for.
        given: The factory itself, or its name in `context.deps`.
        path: Who needs it.

    Raises:
        NoSessionError: There is none.
        TypeError: It cannot be called.
    """
    if not isinstance(given, str):
        return given
    found = context.deps.get(given)
    if found is None:
        known = ", ".join(map(repr, sorted(context.deps))) or "nothing"
        msg = (
            f"{path} has no session: context.deps[{given!r}] is missing (there is "
            f"{known}). Write WorkflowContext(deps={{{given!r}: sessions}}) with "
            "sessions = workflow_sessions(engine), or give sessions=... to the "
            "primitive"
        )
        raise NoSessionError(msg)
    if isinstance(found, AsyncSession) or not callable(found):
        msg = (
            f"context.deps[{given!r}] must be an async_sessionmaker, not "
            f"{type(found).__name__}; a session itself goes into "
            'context.deps["session"]'
        )
        raise TypeError(msg)
    return found  # type: ignore[no-any-return]


def claim_in(context: WorkflowContext, name: str, session: AsyncSession) -> Claim:
    """Return the use of a session that a context is in."""
    held = context.deps.get(_claim_name(name))
    if isinstance(held, tuple) and held[0] is session:
        return held[1]  # type: ignore[no-any-return]
    root = _roots.get(session)
    if root is None:
        root = _roots[session] = Claim("the caller")
    return root


def view_with(
    view: WorkflowContext, name: str, session: AsyncSession, claim: Claim
) -> WorkflowContext:
    """Let a view, and what is below it, find a session that the others do not see.

    Args:
        view: A view that was made for this; it is changed.
        name: The session's name in `context.deps`.
        session: The session.
        claim: The use that the view is part of.
    """
    root = view._isolated(copy_state=False)
    root.deps = {**view.deps, name: session, _claim_name(name): (session, claim)}
    view._root = root
    return view


def _claim_name(name: str) -> str:
    return f"tta.claim:{name}"


def check_loop(session: AsyncSession, who: str) -> None:
    """Check that a session's engine has not been used on another event loop.

    Args:
        session: The session.
        who: Who is about to use it.

    Raises:
        EngineLoopError: It has; its connections would fail or hang.
    """
    engine = _engine_of(session)
    if engine is None or isinstance(engine.pool, NullPool):
        return
    if isinstance(engine.pool, StaticPool) and engine.driver == "aiosqlite":
        return  # It works in a thread of its own, for any loop.
    here = running_loop()
    known = _loops.get(engine.pool)
    if known is None:
        _loops[engine.pool] = ref(here)
    elif known() is not here:
        msg = (
            f"{who} uses the engine {engine.url!r} on another event loop than before: "
            "the connections in its pool belong to the first one. Keep one loop per "
            "process (tta_primitives.runtime.LoopThread for sync code), make the "
            "engine inside the loop, or await engine.dispose() before the first loop "
            "ends; poolclass=NullPool keeps no connections"
        )
        raise EngineLoopError(msg)


def _engine_of(session: AsyncSession) -> Engine | None:
    try:
        bind: Any = session.get_bind()
    except SQLAlchemyError:  # Several, or none: the statement will decide.
        return None
    return bind if hasattr(bind, "pool") else getattr(bind, "engine", None)


async def begin_for_sure(session: AsyncSession) -> None:
    """Begin a transaction at a SQLite database.

    Its driver begins one only before it writes, so that a savepoint before that would
    be the transaction, and would commit on its own.
    """
    engine = _engine_of(session)
    if engine is None or engine.dialect.name != "sqlite":
        return
    connection = await session.connection()
    raw: Any = await connection.get_raw_connection()
    if not getattr(raw.driver_connection, "in_transaction", False):
        await connection.exec_driver_sql("BEGIN")


class WorkflowSession(AsyncSession):
    """A session that says clearly when two tasks use it at the same time.

    SQLAlchemy's own says "Session is already flushing" or "another operation is in
    progress", or mixes the branches up. What a statement raises is never worth another
    attempt inside the transaction that it has broken.
    """

    _holder: tuple[asyncio.Task[Any] | None, str] | None = None
    _has_loop: bool = False

    @contextmanager
    def _held(self, method: str) -> Iterator[None]:
        task, holder = asyncio.current_task(), self._holder
        if holder is not None and holder[0] is not task:
            msg = (
                f"{_shown(task)} calls session.{method}() while {_shown(holder[0])} "
                f"is inside session.{holder[1]}(). {_WAY_OUT}"
            )
            raise ConcurrentSessionError(msg)
        if not self._has_loop:
            check_loop(self, f"session.{method}()")
            self._has_loop = True
        if holder is None:
            self._holder = task, method
        try:
            yield
        except SQLAlchemyError as error:
            mark_inside(error)
            raise
        finally:
            self._holder = holder


def _shown(task: asyncio.Task[Any] | None) -> str:
    return "code outside of a task" if task is None else f"task {task.get_name()!r}"


def _guarded(name: str) -> Callable[..., Any]:
    original = getattr(AsyncSession, name)

    @wraps(original)
    async def guarded(self: WorkflowSession, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the original
        with self._held(name):
            return await original(self, *args, **options)

    return guarded


for _name in _GUARDED:
    setattr(WorkflowSession, _name, _guarded(_name))


def workflow_sessions(
    engine: AsyncEngine,
    *,
    expire_on_commit: bool = False,
    **options: Any,  # noqa: ANN401 - as the session takes them
) -> async_sessionmaker[WorkflowSession]:
    """Return a factory of sessions for workflows.

    Args:
        engine: Where they connect to.
        expire_on_commit: Whether objects forget their attributes at the commit, so that
            reading one afterwards would need the database again, which fails outside of
            the session.
        options: More options of SQLAlchemy's session.

    Raises:
        TypeError: It is no `AsyncEngine`.
    """
    if not isinstance(engine, AsyncEngine):
        msg = (
            f"engine={engine!r} must be an AsyncEngine: create_async_engine("
            '"postgresql+asyncpg://...")'
        )
        raise TypeError(msg)
    return async_sessionmaker(
        engine, class_=WorkflowSession, expire_on_commit=expire_on_commit, **options
    )
