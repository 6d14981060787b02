"""The server that tests may hurt: it is theirs alone, and always ended."""

from __future__ import annotations

import os
import socket

import pytest

from tests.redis_server import private_redis, require_redis_server
from tests.services import REQUIRE


def test_a_server_is_restarted_empty_on_its_port(redis_server) -> None:
    """The address stays, the data does not."""
    port, pid = redis_server.port, redis_server.pid
    assert redis_server.ask("SET", "k", "v") == b"+OK\r\n"
    redis_server.restart()
    assert redis_server.ask("GET", "k") == b"$-1\r\n"
    assert (redis_server.port, redis_server.pid != pid) == (port, True)


def test_a_hanging_server_accepts_and_does_not_answer(
    redis_server, monkeypatch
) -> None:
    """It is what a machine out of memory looks like; awake, it answers."""
    monkeypatch.setattr("tests.redis_server.ANSWER_SECONDS", 0.1)
    redis_server.hang()
    with pytest.raises(TimeoutError, match="timed out"):
        redis_server.ask("PING")
    redis_server.wake()
    monkeypatch.undo()
    assert redis_server.ask("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("do", ["stop", "kill", "hang"])
def test_a_server_is_ended_whatever_was_done_to_it(do, tmp_path) -> None:
    """Its process is gone, and so is its port."""
    with private_redis(tmp_path) as server:
        pid = server.pid
        getattr(server, do)()
    with pytest.raises(ProcessLookupError, match="process"):
        os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError, match="refused"):
        socket.create_connection((server.host, server.port)).close()


def test_where_there_is_no_server_the_test_is_skipped(monkeypatch) -> None:
    """The reason names it."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="redis-server is not installed"):
        require_redis_server()


def test_where_servers_are_required_its_absence_fails_the_test(monkeypatch) -> None:
    """CI must not pass for lack of what it was to test with."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="is not installed, and TTA_REQ"):
        require_redis_server()
