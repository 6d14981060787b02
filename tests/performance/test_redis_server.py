"""The server that tests may hurt: it is theirs alone, and always ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

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


STARTS_AND_DIES = """
import os, pathlib, signal, sys
from tests.redis_server import RedisServer, require_redis_server

server = RedisServer(require_redis_server(), pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_server_does_not_outlive_a_session_that_was_killed(tmp_path) -> None:
    """Nobody was left to end it, so its guard does."""
    require_redis_server()
    command = [sys.executable, "-c", STARTS_AND_DIES, str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    for _ in range(500):
        if not is_running(int(done.stdout)):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server is still there")


def is_running(pid: int) -> bool:
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return shown.stdout.strip() not in {"", "Z"}


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
