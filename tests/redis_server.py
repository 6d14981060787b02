"""A Redis server of a test's own, to be restarted, hung and killed.

Whatever happens to it, nobody else's server is touched: it listens on a free port of
the loopback, keeps nothing on disk, and is ended by the process id that it was started
with. The methods block; a test whose load must go on calls them with
`asyncio.to_thread`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.processes import stop_child
from tests.services import REQUIRE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOMENT = 0.01
ANSWER_SECONDS = 10.0


class RedisServer:
    """One server process after the other, all on the same port.

    Args:
        program: The path of `redis-server`.
        directory: Where it runs.
    """

    host = "127.0.0.1"

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """The address as clients take it."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server, which must be running."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        assert self._process is None, "the server is running"
        for _ in range(5):
            self._process = self._launch()
            self._guard = _guard_of(self._process.pid)
            if self._wait_for_answer():
                return
            self.kill()
        pytest.fail(f"redis-server does not start:\n{self._log()}", pytrace=False)

    def stop(self) -> None:
        """End the server in order: clients see their connections closed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server on the spot, also one that hangs."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End the server in order and start another, which is empty."""
        self.stop()
        self.start()

    def hang(self) -> None:
        """Stop the server in its tracks: it accepts connections and never answers."""
        stop_child(self.pid)

    def wake(self) -> None:
        """Let a hanging server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *parts: str) -> bytes:
        """Send one command on a connection of its own and return the raw answer."""
        lines = [f"*{len(parts)}", *(f"${len(part)}\r\n{part}" for part in parts)]
        address = (self.host, self.port)
        with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
            connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
            return connection.recv(65536)

    def _launch(self) -> subprocess.Popen[bytes]:
        arguments = ["--port", str(self.port), "--bind", self.host]
        arguments += ["--save", "", "--appendonly", "no"]
        arguments += ["--dir", str(self._directory)]
        with self._log_path.open("wb") as log:
            return subprocess.Popen(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def _log_path(self) -> Path:
        return self._directory / "redis.log"

    def _log(self) -> str:
        return self._log_path.read_text("utf-8", errors="replace")

    def _wait_for_answer(self) -> bool:
        """Wait until our own process answers; another's may have taken the port."""
        assert self._process is not None
        sign = f"process_id:{self.pid}\r\n".encode()
        for _ in range(int(ANSWER_SECONDS / MOMENT)):
            with suppress(OSError):
                if sign in self.ask("INFO", "server"):
                    return True
            # Waiting for its end is a pause that is over as soon as it has failed.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(MOMENT)
                return False
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._guard is not None:
            self._guard.kill()  # Before the number may become another process's.
            self._guard.communicate()


def _guard_of(pid: int) -> subprocess.Popen[bytes]:
    """Start what ends a process when this one dies, even if it is killed.

    It reads what nobody writes: the end of that is the end of this process.
    """
    command = ["/bin/sh", "-c", f"cat >/dev/null; kill -9 {pid}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((RedisServer.host, 0))
        port: int = probe.getsockname()[1]
        return port


def require_redis_server() -> str:
    """Return the path of `redis-server`, or end the calling test.

    Where it is not installed the test is skipped with a reason, and fails under
    `TTA_REQUIRE_SERVICES=1`.
    """
    __tracebackhide__ = True
    program = shutil.which("redis-server")
    if program is not None:
        return program
    reason = "redis-server is not installed"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1 asks for it", pytrace=False)
    pytest.skip(reason)


@contextmanager
def private_redis(directory: Path) -> Iterator[RedisServer]:
    """Yield a running server that nobody else uses, and end it in any case."""
    server = RedisServer(require_redis_server(), directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis server that nobody else uses; the test may do anything to it."""
    with private_redis(tmp_path) as server:
        yield server
