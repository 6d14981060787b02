"""Servers that some tests talk to: skipped where absent, required in CI."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import sys

import pytest

ADDRESSES = {
    "mariadb": ("127.0.0.1", 3306),
    "nats": ("127.0.0.1", 4222),
    "postgresql": ("127.0.0.1", 5432),
    "rabbitmq": ("127.0.0.1", 5672),
    "redis": ("127.0.0.1", 6379),
}
REQUIRE = "TTA_REQUIRE_SERVICES"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def require_service(name: str) -> tuple[str, int]:
    """Return where the server `name` listens, or end the calling test.

    A server's address can be given as `TTA_REDIS_ADDRESS=host:port`. Where nobody
    listens the test is skipped with a reason, and fails under
    `TTA_REQUIRE_SERVICES=1`.
    """
    __tracebackhide__ = True
    host, port = address_of(name)
    if not listens(host, port):
        reason = f"no {name} server at {host}:{port}"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason}, and {REQUIRE}=1 asks for it", pytrace=False)
        pytest.skip(reason)
    return host, port


def address_of(name: str) -> tuple[str, int]:
    """Return the host and port at which the server `name` is expected."""
    given = os.environ.get(f"TTA_{name.upper()}_ADDRESS")
    if given is None:
        return ADDRESSES[name]
    host, _, port = given.rpartition(":")
    return host, int(port)


def listens(host: str, port: int, timeout_seconds: float = 1.0) -> bool:
    """Return whether a connection to `host:port` is accepted."""
    try:
        socket.create_connection((host, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def require_sqlite_of_dbos() -> None:
    """End the calling test where DBOS does not work on this Python's SQLite."""
    __tracebackhide__ = True
    if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
        pytest.skip("from Python 3.12 on DBOS needs SQLite 3.42")


def require_browser() -> str:
    """Return the path of Chromium, or end the calling test.

    It is looked for among the programs, or given as `TTA_CHROMIUM`.
    """
    __tracebackhide__ = True
    found = os.environ.get("TTA_CHROMIUM") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if found is None:
        reason = f"none of these programs is there: {', '.join(BROWSERS)}"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason}, and {REQUIRE}=1 asks for one", pytrace=False)
        pytest.skip(reason)
    return found
