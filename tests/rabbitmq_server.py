"""A RabbitMQ node of the tests' own, to be restarted, hung and killed.

The machine's own broker is never touched: the node has its name, its ports, its data,
its cookie and its port mapper (epmd) for itself, all on the loopback and below one
directory, and is ended by the process ids that it was started with. To start one takes
seconds, so a session has one; its durable queues outlive a restart.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import dismiss, guard_of, stop_child
from tests.services import REQUIRE

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = 0.05
ANSWER_SECONDS = 90.0
# Debian's program on the path insists on root and another user; this one does not.
_PLAIN_PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# What a client of AMQP 0-9-1 says first; the broker answers with its name.
_HELLO = b"AMQP\x00\x00\x09\x01"
_CONFIGURATION = """\
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.8
"""
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1"


class RabbitServer:
    """One broker process after the other, all with the same port and the same data.

    Args:
        program: The path of `rabbitmq-server`.
        epmd: The path of `epmd`, Erlang's port mapper.
        directory: Where its data and its log are.
    """

    host = "127.0.0.1"

    def __init__(self, program: str, epmd: str, directory: Path) -> None:
        self._program = program
        self._epmd_program = epmd
        self._directory = directory
        self._broker: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        self._is_hung = False
        self.port, self._distribution_port, self._epmd_port = _free_ports(3)
        self._name = f"tta-{self.port}"

    @property
    def url(self) -> str:
        """The address as clients take it."""
        return f"amqp://guest:guest@{self.host}:{self.port}//"

    @property
    def pid(self) -> int:
        """The process id of the broker, which must be running."""
        assert self._broker is not None, "the broker is not running"
        return self._broker.pid

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        assert self._broker is None, "the broker is running"
        self._configure()
        if self._epmd is None:
            port = str(self._epmd_port)
            command = [self._epmd_program, "-port", port, "-address", self.host]
            self._epmd = self._launch(command)
        self._broker = self._launch([self._program])
        if not self._wait_for_answer():
            self.close()
            log = self._log_path.read_text("utf-8", errors="replace")[-2000:]
            pytest.fail(f"rabbitmq-server does not start:\n{log}", pytrace=False)

    def stop(self) -> None:
        """End the broker in order: clients are told that it goes."""
        self._end_broker(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker on the spot, also one that hangs."""
        self._end_broker(signal.SIGKILL)

    def restart(self) -> None:
        """End the broker in order and start it again, with its durable queues."""
        self.stop()
        self.start()

    def hang(self) -> None:
        """Stop the broker in its tracks: it accepts connections and never answers."""
        stop_child(self.pid)
        self._is_hung = True

    def wake(self) -> None:
        """Let a hanging broker go on."""
        os.kill(self.pid, signal.SIGCONT)
        self._is_hung = False

    def recover(self) -> None:
        """Make it run and answer, whatever a test has done to it."""
        if self._broker is not None and self._broker.poll() is not None:
            self.kill()
        if self._broker is None:
            self.start()
        elif self._is_hung:
            self.wake()

    def close(self) -> None:
        """End the broker and its port mapper."""
        self.kill()
        if self._epmd is not None:
            _end(self._epmd, signal.SIGKILL)
            self._epmd = None
        while self._guards:
            dismiss(self._guards.pop())

    def _end_broker(self, how: signal.Signals) -> None:
        broker, self._broker = self._broker, None
        self._is_hung = False
        if broker is not None:
            _end(broker, how)
            # Before the number may become another process's.
            dismiss(self._guards.pop())

    def _configure(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "plugins").write_text("[].\n", "utf-8")
        (self._directory / "environment.conf").write_text("", "utf-8")
        (self._directory / "rabbitmq.conf").write_text(_CONFIGURATION, "utf-8")

    def _environment(self) -> dict[str, str]:
        at = str(self._directory)
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")},
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "HOME": at,  # The cookie's place.
            "RABBITMQ_CONFIG_FILE": f"{at}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{at}/environment.conf",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{at}/plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": f"{at}/log",
            "RABBITMQ_MNESIA_BASE": f"{at}/mnesia",
            "RABBITMQ_NODENAME": f"{self._name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": self.host,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": f"{at}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            # The script then becomes the broker, whose process id we thereby know.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    @property
    def _log_path(self) -> Path:
        return self._directory / "broker.log"

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # What is typed at the tests' terminal is not for it.
                start_new_session=True,
            )
        self._guards.append(guard_of(process.pid))
        return process

    def _wait_for_answer(self) -> bool:
        """Wait until our own node answers; another may have taken the port."""
        assert self._broker is not None
        for _ in range(int(ANSWER_SECONDS / MOMENT)):
            with suppress(OSError):
                if f"{self._name}@".encode() in self._hello():
                    return True
            # Waiting for its end is a pause that is over as soon as it has failed.
            with suppress(subprocess.TimeoutExpired):
                self._broker.wait(MOMENT)
                return False
        return False

    def _hello(self) -> bytes:
        address = (self.host, self.port)
        with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
            connection.sendall(_HELLO)
            return connection.recv(65536)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        os.kill(process.pid, how)
        if how is not signal.SIGKILL:
            os.kill(process.pid, signal.SIGCONT)  # A hung one hears nothing.
    try:
        process.wait(ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((RabbitServer.host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def require_rabbitmq_server() -> tuple[str, str]:
    """Return the paths of `rabbitmq-server` and `epmd`, or end the calling test.

    Where one is not installed the test is skipped with a reason, and fails under
    `TTA_REQUIRE_SERVICES=1`.
    """
    __tracebackhide__ = True
    plain = _PLAIN_PROGRAM if Path(_PLAIN_PROGRAM).exists() else None
    program = plain or shutil.which("rabbitmq-server")
    epmd = shutil.which("epmd")
    if program is not None and epmd is not None:
        return program, epmd
    reason = f"{'rabbitmq-server' if program is None else 'epmd'} is not installed"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1 asks for it", pytrace=False)
    pytest.skip(reason)


@contextmanager
def private_rabbitmq(directory: Path) -> Iterator[RabbitServer]:
    """Yield a running broker that nobody else uses, and end it in any case."""
    server = RabbitServer(*require_rabbitmq_server(), directory)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def _rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The broker of this session."""
    with private_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbitmq_server(_rabbitmq_node: RabbitServer) -> Iterator[RabbitServer]:
    """A running RabbitMQ broker of this session; the test may do anything to it.

    Queues of earlier tests may still be there: use names of the test's own.
    """
    _rabbitmq_node.recover()
    yield _rabbitmq_node
    _rabbitmq_node.recover()
