"""Several processes are scraped as one, however they came to be and to their end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.counted_app import folders_of, worked
from tests.processes import MOMENT, PATIENCE, ask, free_port
from tta_primitives.observability import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes import Processes, Running

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes are scraped as one only where they fork"
)
APP = "tests.observability.counted_app"
DONE = "tta_primitive_duration_seconds_count"


class Service:
    """Processes with one port for metrics."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.port = free_port()
        self._processes = processes
        self._settings = {"METRICS_PORT": str(self.port), "TMPDIR": str(folder)}

    def start(self, what: str, count: int = 5, **settings: str) -> Running:
        running = self._processes.python(
            "-m", APP, what, str(count), **self._settings, **settings
        )
        running.wait_for("left" if what == "leaving" else "worked")
        return running

    def gunicorn(self, *options: str, **settings: str) -> tuple[Running, int]:
        port = free_port()
        running = self._processes.python(
            *("-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2"),
            *("--no-control-socket", *options, f"{APP}:application"),
            **self._settings,
            BEGIN_ON_IMPORT="1",
            **settings,
        )
        running.wait_for_answer(port)
        return running, port

    def celery(self, broker: str, processes: str) -> Running:
        return self._processes.python(
            *("-m", "celery", "-A", f"{APP}:app", "worker", "--concurrency", processes),
            *("--without-heartbeat", "--without-gossip", "--without-mingle"),
            **self._settings,
            BEGIN_ON_IMPORT="1",
            BROKER_FOLDER=broker,
        )

    def series(self, name: str = DONE) -> float | None:
        """Return what one scrape says of a metric, None while nobody serves."""
        answer = ask(self.port, "/metrics", timeout=5)
        if answer is None or answer.status != 200:
            return None
        found = [
            sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
            if sample.name == name and sample.labels.get("status", "ok") == "ok"
        ]
        return sum(found)


@pytest.fixture
def service(processes: Processes, tmp_path: Path) -> Service:
    folder = tmp_path / "shared"
    folder.mkdir()
    return Service(processes, folder)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_with_one_port_are_scraped_as_one(service, count) -> None:
    """The first one serves, and tells what all of them have counted."""
    running = [service.start("alone", 5) for _ in range(count)]
    assert service.series() == 5 * count
    assert service.series("tta_processes") == count
    assert [one.output.count("None") for one in running] == [0] + [1] * (count - 1)
    # Nobody complains that the port is taken: it is a sibling's.
    assert not [one.output for one in running if "taken" in one.output]


def test_forks_count_for_themselves(service) -> None:
    """A fork counts neither the parent's calls again nor loses its own."""
    running = service.start("forked", 7)
    running.wait_until(lambda: service.series() == 28, "28 calls")
    assert service.series("tta_processes") == 4


def test_a_fork_serves_when_its_parent_is_killed(service) -> None:
    """The copy of the port that it got is closed, and it binds one of its own."""
    running = service.start("forked", 7)
    running.wait_until(lambda: service.series() == 28, "28 calls")
    parent = int(re.search(r"parent (\d+)", running.output)[1])
    assert parent == running.pid
    os.kill(parent, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    limit = monotonic() + PATIENCE
    while service.series() is None and monotonic() < limit:
        Event().wait(MOMENT)
    assert service.series() == 28
    assert service.series("tta_processes") == 3


@pytest.mark.long
def test_a_prefork_pool_of_celery_is_scraped_as_one(service, tmp_path) -> None:
    """Tasks are counted in the children, and the parent serves."""
    broker = tmp_path / "broker"
    broker.mkdir()
    running = service.celery(str(broker), "2")
    app = Celery("counted", broker="filesystem://")
    app.conf.broker_transport_options = folders_of(str(broker))
    for _ in range(12):
        app.send_task(f"{APP}.job")
    app.close()
    running.wait_until(lambda: running.output.count("job of") == 12, "12 jobs")
    assert service.series() == 12
    assert running.stop() == 0


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_workers_of_gunicorn_are_scraped_as_one(service, options) -> None:
    """With and without `--preload`, no request is lost and none is counted twice."""
    running, port = service.gunicorn(*options)
    workers = set()

    def both_worked() -> bool:
        workers.add(ask(port, "/work").body)
        both_worked.requests += 1
        return len(workers) == 2

    both_worked.requests = 0
    running.wait_until(both_worked, "requests to both workers")
    assert service.series() == both_worked.requests
    assert running.stop() == 0
    assert service.series() is None


def test_another_process_serves_when_the_first_one_is_killed(service) -> None:
    """The port is taken over, counts stay, and its running calls are forgotten."""
    first = service.start("alone", 5)
    second = service.start("alone", 6)
    first.kill()
    second.wait_until(lambda: service.series() is not None, "the second one serving")
    assert service.series() == 11
    assert service.series("tta_processes") == 1
    # What it took over from the dead one is not taken over again.
    assert service.series() == 11


def test_a_process_that_leaves_in_order_is_counted_on(service) -> None:
    """A sum that falls would look like a restart to Prometheus."""
    staying = service.start("alone", 5)
    for _ in range(2):
        service.start("leaving", 5)
    assert service.series() == 15
    assert service.series("tta_processes") == 1
    assert staying.stop() == -signal.SIGTERM


def test_a_new_start_begins_at_zero(service, tmp_path) -> None:
    """What a service left behind that was killed is not the new one's."""
    service.start("alone", 5).kill()
    service.start("alone", 3)
    assert service.series() == 3


def test_files_of_dead_processes_do_not_pile_up(service, tmp_path) -> None:
    """A worker that is recycled a thousand times leaves nothing to read."""
    for _ in range(2):
        running = service.start("alone", 5)
    for _ in range(2):
        service.start("leaving", 5)
    assert service.series() == 20
    (folder,) = (tmp_path / "shared").glob("tta-metrics-*/*")
    assert len(list(folder.glob("histogram*.db"))) == 2
    assert running.returncode is None


def test_the_users_own_directory_is_used(service, tmp_path) -> None:
    """Metrics of the app and of workflows are in one scrape, for all processes."""
    folder = tmp_path / "multiproc"
    folder.mkdir()
    for _ in range(2):
        service.start("alone", 5, PROMETHEUS_MULTIPROC_DIR=str(folder))
    assert service.series() == 10
    # An exporter that the app has already reads them, too.
    code = """
import prometheus_client as p, prometheus_client.multiprocess as m
registry = p.CollectorRegistry()
m.MultiProcessCollector(registry)
print(p.generate_latest(registry).decode())
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'{DONE}{{path="work",status="ok"}} 10.0' in found.stdout


def test_a_port_of_another_program_is_one_warning(
    caplog, tmp_path, monkeypatch
) -> None:
    """The app goes on, and serves when the port is free after all."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = metrics.start(
            "taken", port=port, registry=CollectorRegistry(), retry_seconds=0.01
        )
        assert found.port is None
        assert f"127.0.0.1:{port} is taken by another program" in caplog.text
    try:
        served = found._endpoint
        for _ in range(1000):
            if served.port is not None:
                break
            served._stopping.wait(0.01)
        assert served.port == port
        assert len(caplog.messages) == 1
    finally:
        found.shutdown()


def test_a_directory_that_others_can_write_in_is_not_used(
    tmp_path, monkeypatch, caplog
) -> None:
    """Nobody else on the machine chooses which files we write."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"tta-metrics-{os.getuid()}").mkdir()
    (tmp_path / f"tta-metrics-{os.getuid()}").chmod(0o777)
    found = metrics.start("open", port=None, registry=CollectorRegistry())
    try:
        assert found.directory is None
        assert "only this user can write in" in caplog.text
        assert b"tta_processes" in found.render()[1]
    finally:
        found.shutdown()


def test_a_full_disk_breaks_no_call(tmp_path, monkeypatch, caplog) -> None:
    """What can not be kept is counted in vain, with one warning."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = metrics.start("full", port=None, registry=CollectorRegistry())
    try:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tta_primitives.observability.sheets._allocate", full)
        worked(3)
        worked(3)
        assert [m for m in caplog.messages if "No space left" in m]
        assert len(caplog.messages) == 1
        assert b"tta_processes" in found.render()[1]
    finally:
        found.shutdown()
