"""DBOS in this process: configured, launched, and ended with nothing left over."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tta_primitives.durable.errors import DurableError
from tta_primitives.extras import needs

with needs("dbos", __name__):
    from dbos import DBOS, _dbos
    from dbos._utils import INTERNAL_QUEUE_NAME, GlobalParams
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

from tta_primitives.integrations.dbos_serializer import JsonSerializer, no_pickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbos import DBOSConfig

__all__ = ["EngineSettings", "database", "engine"]

_TOLD = "Exception encountered in background workflow", "DBOS failed to launch"
_OLDEST_SQLITE = (3, 42)
_logger = logging.getLogger("dbos")


class EngineSettings:
    """Where and as whom DBOS runs here.

    Args:
        database_url: `sqlite:///file.sqlite` or `postgresql://...`.
        executor_id: Who this process is, among those that share the database.
        application: What processes have in common that may run each other's workflows.
        max_recoveries: How often a run is begun again before it is given up.
        poll_seconds: How often the database is asked for runs to take over.

    Raises:
        TypeError: The URL is no text.
        ValueError: The URL names no SQLite file and no PostgreSQL database, or the
            latter is given without `executor_id`.
    """

    def __init__(
        self,
        database_url: str,
        *,
        executor_id: str | None,
        application: str,
        max_recoveries: int,
        poll_seconds: float,
    ) -> None:
        self.url: URL = database(database_url)
        self.application = application
        self.max_recoveries = max_recoveries
        self.poll_seconds = poll_seconds
        if executor_id is None and not self.is_sqlite:
            msg = (
                "executor_id must be given with PostgreSQL: a name that is this "
                "process's alone and stays its name after a restart, for instance the "
                "name of its pod. A process recovers the runs of its own name when it "
                "starts, so two that share one would run them both"
            )
            raise ValueError(msg)
        self.executor_id: str = executor_id or "local"

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self.url.drivername == "sqlite"

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def config(self) -> DBOSConfig:
        """Return what DBOS is configured with: no telemetry, no conductor, JSON."""
        return {
            "name": self.application,
            "system_database_url": self.url.render_as_string(hide_password=False),
            "serializer": JsonSerializer(),
            "executor_id": self.executor_id,
            # Versions are told apart for each workflow, not for the whole program.
            "application_version": "tta",
            "enable_otlp": False,
            "log_level": "ERROR",
            # It is slept through when the process ends.
            "notification_listener_polling_interval_sec": 0.1,
        }


def database(url: str) -> URL:
    """Return the address of a database, checked, its driver left to DBOS.

    Raises:
        TypeError: It is no text.
        ValueError: It is no SQLite file and no PostgreSQL database.
    """
    if not isinstance(url, str):
        msg = f"database_url must be a text, not {type(url).__name__}"
        raise TypeError(msg)
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    kind = "" if parsed is None else parsed.get_backend_name()
    if parsed is None or kind not in {"sqlite", "postgresql"}:
        msg = (
            "database_url must be sqlite:///file.sqlite or "
            "postgresql://user:password@host/database"
        )
        raise ValueError(msg)
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            msg = f"database_url={url!r} must name a file: memory survives no process"
            raise ValueError(msg)
        # The working directory may change later.
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
    return parsed.set(drivername=kind)


@contextmanager
def engine(settings: EngineSettings, register: Callable[[], None]) -> Iterator[None]:
    """Launch DBOS, and end it with all of its threads. It blocks.

    Args:
        settings: Where and as whom it runs.
        register: Registers the workflows.

    Raises:
        DurableError: DBOS is in use in this process already, or cannot start.
    """
    if _dbos._dbos_global_instance is not None:
        msg = (
            "DBOS runs in this process already: a process has one durable runtime, "
            "and no other use of DBOS beside it"
        )
        raise DurableError(msg)
    if GlobalParams.dbos_cloud:
        msg = "DBOS__CLOUD is set: the durable runtime does not run in DBOS's cloud"
        raise DurableError(msg)
    with ExitStack() as stack:
        if settings.is_sqlite:
            _check_sqlite()
            stack.enter_context(_own_file(Path(str(settings.url.database))))
        stack.enter_context(_quiet())
        stack.enter_context(no_pickle())
        stack.callback(_end)
        _launch(settings, register)
        yield


def _check_sqlite() -> None:
    """Refuse a SQLite that cannot tell the time as DBOS asks it from 3.12 on."""
    if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        msg = (
            "DBOS needs SQLite 3.42 on Python 3.12 and newer, and this Python has "
            f"{sqlite3.sqlite_version}: use PostgreSQL, or a Python with a newer SQLite"
        )
        raise DurableError(msg)


def _launch(settings: EngineSettings, register: Callable[[], None]) -> None:
    try:
        DBOS(config=settings.config())
        register()
        # Made before DBOS makes it, which asks once in a second.
        _dbos._get_or_create_dbos_registry()._register_internal_queue(
            INTERNAL_QUEUE_NAME, polling_interval_sec=settings.poll_seconds
        )
        DBOS.launch()
    except Exception as error:
        msg = (
            f"the durable runtime cannot start on {settings.shown}: "
            f"{type(error).__name__}: {error}"
        )
        raise DurableError(msg) from error


def _end() -> None:
    instance = _dbos._dbos_global_instance
    executor = None if instance is None else instance._executor_field
    DBOS.destroy(destroy_registry=True)
    if executor is not None:
        # DBOS does not wait for the threads in which workflows were called.
        executor.shutdown(wait=True)


@contextmanager
def _own_file(path: Path) -> Iterator[None]:
    """Make the file readable for its owner alone, and keep other processes off it.

    Two processes on one file would both recover the same runs.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _lock(lock, path)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # There is none on Windows.
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        msg = (
            f"another process has its durable runtime on {path}: give each process a "
            "file of its own, or share a PostgreSQL database"
        )
        raise DurableError(msg) from None


class _Told(logging.Filter):
    """Drops what whoever waits for the run, or for the launch, is told anyway."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_TOLD)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send DBOS's log to the program's own, without a console of its own."""
    # With a handler it adds none, and leaves the log to the program's handlers.
    handler, told, level = logging.NullHandler(), _Told(), _logger.level
    _logger.addHandler(handler)
    _logger.addFilter(told)
    try:
        yield
    finally:
        _logger.removeFilter(told)
        _logger.removeHandler(handler)
        _logger.setLevel(level)
