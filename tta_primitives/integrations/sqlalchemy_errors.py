"""What goes wrong between workflows and a database, and what may be tried again."""

from __future__ import annotations

from typing import Any, Final

from tta_primitives.errors import PrimitiveError
from tta_primitives.extras import needs

with needs("sqlalchemy", __name__):
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

__all__ = [
    "ConcurrentSessionError",
    "EngineLoopError",
    "NoSessionError",
    "PoolSizeWarning",
    "TransactionClosedError",
    "is_connection_lost",
    "is_retryable_database_error",
    "leaves",
    "mark_inside",
    "settle_at_end",
]

# SQLSTATE classes and codes of ISO/IEC 9075 and of PostgreSQL, appendix A.
_SERIALIZATION_FAILURE: Final = "40001"
_DEADLOCK: Final = "40P01"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_TOO_MANY_CONNECTIONS: Final = "53300"
_SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
_CONNECTION: Final = "08"
_PASSING: Final = frozenset(
    {_SERIALIZATION_FAILURE, _DEADLOCK, _LOCK_NOT_AVAILABLE, _TOO_MANY_CONNECTIONS}
)
# The low byte of SQLite's result codes: SQLITE_BUSY and SQLITE_LOCKED.
_SQLITE_BUSY: Final = frozenset({5, 6})
# MySQL and MariaDB: lock wait timeout, deadlock; server gone, connection lost.
_MYSQL_LOCKS: Final = frozenset({1205, 1213})
_MYSQL_LOST: Final = frozenset({2006, 2013})


class ConcurrentSessionError(PrimitiveError, RuntimeError):
    """Two branches use one session at the same time."""


class EngineLoopError(PrimitiveError, RuntimeError):
    """An engine whose connections belong to one event loop is used on another."""


class NoSessionError(PrimitiveError, LookupError):
    """There is neither a session nor a factory of sessions for a step."""


class TransactionClosedError(PrimitiveError, RuntimeError):
    """A step has committed or rolled back the transaction that it was executed in."""


class PoolSizeWarning(UserWarning):
    """A workflow may want more connections at a time than its pool has."""


def is_retryable_database_error(error: BaseException) -> bool:
    """Tell whether the whole transaction may be tried again after an error.

    So it is for serialization failures, deadlocks, locks that were not to be had, and
    connections that were lost or refused, on PostgreSQL, SQLite, MySQL and MariaDB. It
    is not for errors that would come again, such as a violated constraint; while an
    error is still inside the transaction that it has broken; and where a connection was
    lost during the commit, so that nobody knows whether it has happened.

    Args:
        error: What a transaction has raised; a group if all its leaves are.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_retryable_database_error, error.exceptions))
    said = getattr(error, "retryable", None)
    if isinstance(error, SQLAlchemyError) and isinstance(said, bool):
        return said
    return _may_pass(error)


def is_connection_lost(error: BaseException) -> bool:
    """Tell whether an error means that the server was not there, or no longer."""
    if isinstance(error, (ConnectionError, EOFError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    return any(
        _state(cause)[:2] == _CONNECTION
        or _state(cause) in _SHUTDOWNS
        or _number(cause) in _MYSQL_LOST
        or isinstance(cause, (ConnectionError, EOFError))
        for cause in _causes(error)
    )


def _may_pass(error: BaseException) -> bool:
    if is_connection_lost(error):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return any(
        _state(cause) in _PASSING
        or getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY
        or _number(cause) in _MYSQL_LOCKS
        for cause in _causes(error)
    )


def _causes(error: DBAPIError) -> list[BaseException]:
    """Return what the driver has raised, below the shapes that SQLAlchemy gives it."""
    found: list[BaseException] = []
    cause: Any = error.orig
    while isinstance(cause, BaseException) and cause not in found:
        found.append(cause)
        cause = getattr(cause, "orig", None) or cause.__cause__
    return found


def _state(cause: BaseException) -> str:
    for name in ("sqlstate", "pgcode"):
        value = getattr(cause, name, None)
        if isinstance(value, str):
            return value
    return ""


def _number(cause: BaseException) -> int:
    """Return the number that the drivers of MySQL give first, 0 without one."""
    first = cause.args[0] if cause.args else 0
    return first if isinstance(first, int) else 0


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors that a group is made of, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return [error]


def mark_inside(error: BaseException) -> None:
    """Note that an error is inside the transaction that it has broken.

    Whatever is tried again there would repeat half of it.
    """
    _note(error, retryable=False)


def settle_at_end(error: BaseException, *, is_commit: bool = False) -> None:
    """Note whether the transaction that an error has ended may be tried again.

    Args:
        error: What has ended it.
        is_commit: Whether it was raised by the commit.
    """
    for leaf in leaves(error):
        if is_commit and is_connection_lost(leaf):
            leaf.add_note(
                "the connection was lost during the commit: nobody knows whether it "
                "has happened, so it is not tried again"
            )
            _note(leaf, retryable=False)
        else:
            _note(leaf, retryable=_may_pass(leaf))


def _note(error: BaseException, *, retryable: bool) -> None:
    for leaf in leaves(error):
        if isinstance(leaf, SQLAlchemyError):
            leaf.retryable = retryable  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
