"""Processes of a test's own: started, watched, sent signals, and ended in any case.

A server is ready when a condition says so, never after so many seconds; what it prints
goes to a file that a failing test shows. Each is the leader of a group of its own, so
that workers which it forks end with it. The methods block; a test whose load must go on
calls them with `asyncio.to_thread`.
"""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HOST = "127.0.0.1"
MOMENT = 0.01
# No more than how long to wait before a test has failed.
PATIENCE = 30.0
ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """Return a port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def guard_of(pid: int, *, group: bool = False) -> subprocess.Popen[bytes]:
    """Start what ends a process when this one dies, even if it is killed.

    It reads what nobody writes: the end of that is the end of this process. End it with
    `dismiss` before the number may become another process's.
    """
    # No "--" before a group: not every shell knows it.
    target = f"-{pid}" if group else str(pid)
    command = ["/bin/sh", "-c", f"cat >/dev/null; kill -9 {target}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def stop_child(pid: int) -> None:
    """Stop a process that this one has started, and return when it stands still.

    A signal takes a moment to reach all threads, in which they may still answer.
    """
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait until a process has ended that this one has not started.

    Where the system cannot tell, that is not waited for.
    """
    with suppress(AttributeError, ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)


def dismiss(guard: subprocess.Popen[bytes]) -> None:
    """End a guard whose process has ended."""
    guard.kill()
    guard.communicate()


@dataclass(frozen=True)
class Answer:
    """What a server answered to a request; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> Answer | None:
    """Return what the server at a port answers, None if nobody does."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        found = connection.getresponse()
        named = {name.lower(): value for name, value in found.getheaders()}
        return Answer(found.status, named, found.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Running:
    """One process, with the group that it leads.

    Args:
        command: The program and its arguments.
        log: The file that takes what it prints, on both streams.
        settings: The environment; that of this process unless given.
        folder: Where it runs.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        settings: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> None:
        self._log = log
        self._words = command
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=None if settings is None else dict(settings),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_interrupts,  # noqa: PLW1509 - it takes no lock
            )
        self._guard = guard_of(self.pid, group=True)

    @property
    def pid(self) -> int:
        """The process id, also of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal if one ended it; None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """What it has printed until now, on both streams."""
        return self._log.read_text("utf-8", errors="replace")

    def wait_until(
        self,
        condition: Callable[[], object],
        what: str = "the condition",
        timeout: float = PATIENCE,
    ) -> None:
        """Wait until a condition holds; fail if the process ends before it does."""
        __tracebackhide__ = True
        limit = monotonic() + timeout
        while not condition():
            # Waiting for its end is a pause that is over as soon as it has ended.
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(MOMENT)
                if condition():
                    return
                self._fail(f"ended with {code} before {what}")
            if monotonic() > limit:
                self._fail(f"did not come to {what} in {timeout} s")

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has printed a text."""
        __tracebackhide__ = True
        self.wait_until(lambda: text in self.output, repr(text), timeout)

    def wait_for_answer(
        self, port: int, path: str = "/", timeout: float = 4 * PATIENCE
    ) -> None:
        """Wait until a server answers a GET with 200."""
        __tracebackhide__ = True

        def is_up() -> bool:
            answer = ask(port, path, timeout=5.0)
            return answer is not None and answer.status == http.HTTPStatus.OK

        self.wait_until(is_up, f"answering GET {path} with 200", timeout)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the process alone, which must be running."""
        self._process.send_signal(what)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit code once it has ended; fail if it does not."""
        __tracebackhide__ = True
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail(f"did not end in {timeout} s")
            raise

    def stop(
        self, what: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE
    ) -> int:
        """Send a signal and return the exit code."""
        __tracebackhide__ = True
        self.send(what)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it and its whole group on the spot, also what hangs."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        dismiss(self._guard)

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        words = " ".join(self._words)
        pytest.fail(f"{words}\n{what}; it printed:\n{self.output}", pytrace=False)


def _hear_interrupts() -> None:
    """Undo what a shell does to a job in its background: it ignores Ctrl+C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Processes:
    """Starts processes in a folder, and ends what is left of them.

    Args:
        folder: Where their output is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Running] = []

    def start(self, *command: str, folder: Path = ROOT, **settings: str) -> Running:
        """Start a program; `settings` are added to the environment."""
        log = self._folder / f"process-{len(self._started)}.log"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
        running = Running(list(command), log, environment, folder)
        self._started.append(running)
        return running

    def python(self, *arguments: str, folder: Path = ROOT, **settings: str) -> Running:
        """Start Python, for instance with `-m uvicorn module:app`.

        The root of the repository can be imported from.
        """
        paths = [str(ROOT), settings.pop("PYTHONPATH", "")]
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return self.start(sys.executable, *arguments, folder=folder, **settings)

    def end(self) -> None:
        """Kill what still runs, the last first."""
        while self._started:
            self._started.pop().kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes of the test's own, ended in any case."""
    started = Processes(tmp_path)
    try:
        yield started
    finally:
        started.end()
