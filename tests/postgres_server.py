"""PostgreSQL servers of the tests' own, to be restarted, hung and killed.

Whatever happens to one, nobody else's server is touched: it listens on a free port of
the loopback, has its files and its socket in a directory of its own, and is ended by
the process id that it was started with. PostgreSQL refuses to run as root, so it runs
as the user `postgres` where the tests are root. The methods block; a test whose load
must go on calls them with `asyncio.to_thread`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import wait_for_end
from tests.redis_server import _free_port, _guard_of
from tests.services import REQUIRE

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = 0.02
ANSWER_SECONDS = 30.0
_SETTINGS = {
    # Nothing of it has to outlive the machine; what is committed outlives a kill.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "autovacuum": "off",
    # In the directory, where it goes away with it, also after a kill.
    "dynamic_shared_memory_type": "mmap",
    "listen_addresses": "127.0.0.1",
}
_numbers = itertools.count(1)


class PostgresServer:
    """One server process after the other, all on the same port and the same files.

    Args:
        programs: The directory of `postgres`, `initdb` and `psql`.
        directory: Where its files and its socket go; the server's user must own it.
    """

    host = "127.0.0.1"
    user = "postgres"

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def pid(self) -> int:
        """The process id of the server, which must be running."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def url(self, database: str = "postgres", driver: str = "") -> str:
        """Return the address of a database.

        Args:
            database: Its name.
            driver: What SQLAlchemy calls the driver, for instance `asyncpg`.
        """
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{self.user}@{self.host}:{self.port}/{database}"

    def make_files(self) -> None:
        """Make the files of an empty server."""
        self._run_program(
            *("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8"),
            *("--no-locale", f"--username={self.user}", f"--pgdata={self._data}"),
        )

    def start(self) -> None:
        """Start the server with the files that it has, and wait until it answers."""
        assert self._process is None, "the server is running"
        for _ in range(5):
            self._process = self._launch()
            self._guard = _guard_of(self._process.pid)
            if self._wait_for_answer():
                return
            self.kill()
            self.port = _free_port()
        pytest.fail(f"postgres does not start:\n{self._log()}", pytrace=False)

    def stop(self) -> None:
        """End the server in order; whoever is connected is told."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its processes on the spot, also one that hangs."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End the server in order and start it again; what was committed is there."""
        self.stop()
        self.start()

    def hang(self) -> None:
        """Stop the server in its tracks: connections stay open and nobody answers."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let a hanging server go on."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def ask(self, sql: str, database: str = "postgres") -> str:
        """Run one statement in a process of its own and return the rows as text."""
        done = self._run_program(
            *("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
            *("--set", "ON_ERROR_STOP=1", "--command", sql, self.url(database)),
        )
        return done.decode().strip()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the name of a new, empty database, and drop it in any case."""
        name = f"tta_{os.getpid()}_{next(_numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """End the server if it runs, and leave nothing of it behind."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.wake()
            self.stop()
        self._forget_shared_memory()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _log_path(self) -> Path:
        return self._directory / "postgres.log"

    def _log(self) -> str:
        return self._log_path.read_text("utf-8", errors="replace")

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            **_SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                **_identity(),
            )

    def _wait_for_answer(self) -> bool:
        """Wait until our own process answers; another's may have taken the port."""
        assert self._process is not None
        # The last line is written when connections are accepted, by this process.
        for _ in range(int(ANSWER_SECONDS / MOMENT)):
            with suppress(OSError, IndexError):  # Not there yet, or still empty.
                lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
                if lines[0] == str(self.pid) and lines[-1].strip() == "ready":
                    return True
            # Waiting for its end is a pause that is over as soon as it has failed.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(MOMENT)
                return False
        return False

    def _pids(self) -> list[int]:
        """Return the server's process and those that it has started."""
        pid = self.pid
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
            return [pid, *map(int, children.split())]
        return [pid]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        pids = self._pids() if how == signal.SIGKILL else [self.pid]
        process, self._process = self._process, None
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        # The blocks of memory are theirs until they have ended, too.
        for pid in pids[1:]:
            wait_for_end(pid, ANSWER_SECONDS)
        try:
            process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._guard is not None:
            self._guard.kill()  # Before the number may become another process's.
            self._guard.communicate()

    def _forget_shared_memory(self) -> None:
        """Give back the block of memory that a killed server leaves in the kernel."""
        with suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
            block = lines[6].split()[1]
            subprocess.run(["ipcrm", "-m", block], check=False, capture_output=True)

    def _run_program(self, name: str, *arguments: str) -> bytes:
        done = subprocess.run(
            [str(self._programs / name), *arguments],
            capture_output=True,
            check=False,
            cwd=self._directory,
            timeout=4 * ANSWER_SECONDS,
            **_identity(),
        )
        if done.returncode != 0:
            told = (done.stdout + done.stderr).decode(errors="replace")
            pytest.fail(f"{name} failed:\n{told}", pytrace=False)
        return bytes(done.stdout)


def _identity() -> dict[str, Any]:
    """Return who runs the server: not root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def require_postgres() -> Path:
    """Return the directory of PostgreSQL's programs, or end the calling test.

    Where it is not installed the test is skipped with a reason, and fails under
    `TTA_REQUIRE_SERVICES=1`.
    """
    __tracebackhide__ = True
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    if program is not None:
        return Path(program).resolve().parent
    reason = "postgresql is not installed"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1 asks for it", pytrace=False)
    pytest.skip(reason)


@contextmanager
def private_postgres() -> Iterator[PostgresServer]:
    """Yield a running server that nobody else uses, and end it in any case."""
    programs = require_postgres()
    # Not below pytest's directories, which the server's user may not enter; and short,
    # because the name of a socket may have no more than 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="tta-pg-"))
    server = PostgresServer(programs, directory)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        server.make_files()
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresServer]:
    """A running server that the tests of this session share: leave it running."""
    with private_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_cluster: PostgresServer) -> Iterator[str]:
    """The address of an empty database, `postgresql://...`, dropped after the test."""
    with postgres_cluster.database() as name:
        yield postgres_cluster.url(name)


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that nobody else uses; the test may do anything to it."""
    with private_postgres() as server:
        yield server
