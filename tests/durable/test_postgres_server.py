"""The PostgreSQL server of the tests' own: started, hung, killed, and gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.postgres_server import require_postgres


def test_what_was_committed_is_there_after_a_kill(postgres_server) -> None:
    """A killed server starts again on its files and its port."""
    postgres_server.ask("CREATE TABLE seen AS SELECT 7 AS n")
    port = postgres_server.port
    postgres_server.kill()
    postgres_server.start()
    assert postgres_server.ask("SELECT n FROM seen") == "7"
    assert postgres_server.port == port


def test_a_hanging_server_goes_on_where_it_was(postgres_server) -> None:
    """Somebody who asks meanwhile waits, and is answered after it was woken."""
    command = [str(require_postgres() / "psql"), "-tAc", "SELECT 1"]
    postgres_server.hang()
    asking = subprocess.Popen([*command, postgres_server.url()], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out"):
        asking.communicate(timeout=0.2)
    postgres_server.wake()
    assert asking.communicate(timeout=30)[0].strip() == b"1"


def test_databases_are_apart_and_are_dropped(postgres_cluster) -> None:
    """Each test gets a database of its own, which is gone afterwards."""
    with postgres_cluster.database() as first, postgres_cluster.database() as second:
        postgres_cluster.ask("CREATE TABLE mine (n int)", first)
        assert postgres_cluster.ask("SELECT count(*) FROM pg_tables", second) != ""
        tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'mine'"
        assert postgres_cluster.ask(tables, second) == "0"
    names = postgres_cluster.ask("SELECT datname FROM pg_database").splitlines()
    assert {first, second}.isdisjoint(names)


def test_a_closed_server_leaves_nothing(postgres_server) -> None:
    """Neither a process nor a block of shared memory outlives it, also when killed."""
    pid = postgres_server.pid
    data = Path(postgres_server.ask("SHOW data_directory"))
    block = (data / "postmaster.pid").read_text("utf-8").splitlines()[6].split()[1]
    postgres_server.kill()
    postgres_server.close()
    assert not Path(f"/proc/{pid}").exists()
    shown = Path("/proc/sysvipc/shm").read_text("utf-8").splitlines()[1:]
    assert block not in [line.split()[1] for line in shown]
