"""Flask under gunicorn and the development server: forks, threads, signals, ends."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes import HOST, PATIENCE, ask, free_port

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")

APP = "tests.integrations.flask_service:app"
HOOK = "python:tests.integrations.flask_service"


class Service:
    """A server with the app of `flask_service`, and its port."""

    def __init__(self, processes, folder, redis_url=None):
        self._processes = processes
        self.folder = folder
        self.port = free_port()
        self._settings = {"SERVICE_FOLDER": str(folder)}
        if redis_url is not None:
            self._settings["SERVICE_REDIS"] = redis_url

    def gunicorn(self, *options, **settings):
        """Start gunicorn, and wait until it serves."""
        bind = f"{HOST}:{self.port}"
        common = ["-b", bind, "--no-control-socket", "--graceful-timeout", "25"]
        command = ["-m", "gunicorn", *common, *options, APP]
        self.process = self._processes.python(*command, **self._settings, **settings)
        self.process.wait_for_answer(self.port, "/livez")
        return self.process

    def flask(self, *options):
        """Start the development server, and wait until it serves."""
        command = ["-m", "flask", "--app", APP, "run", "-p", str(self.port), *options]
        self.process = self._processes.python(*command, **self._settings)
        self.process.wait_for_answer(self.port, "/livez")
        return self.process

    def ask(self, path, identity="none", method="GET", body=None):
        """Return the answer to one request with a correlation id."""
        headers = {"x-correlation-id": identity}
        return ask(self.port, path, headers=headers, method=method, body=body)

    def running(self):
        """Return the process that answers, and how many requests run in it."""
        return json.loads(self.ask("/running").body)

    def touch(self, name):
        """Let those go on that wait for a file."""
        (self.folder / name).touch()

    def work(self, numbers):
        """Ask for each number on one connection; return what was wrong."""
        wrong = []
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        for number in numbers:
            headers = {"x-correlation-id": f"id-{number}"}
            try:
                connection.request("GET", f"/count/{number % 100}", headers=headers)
                reply = connection.getresponse()
                body = reply.read()
                found = json.loads(body)
                right = ((number % 100) ** 2, f"id-{number}")
                if (found["squared"], found["id"]) != right:
                    wrong.append((number, reply.status, body))
            except (OSError, http.client.HTTPException, ValueError) as error:
                wrong.append((number, repr(error), ""))
                connection.close()
        connection.close()
        return wrong


@pytest.fixture
def service(processes, tmp_path, redis_server):
    """A service with a Redis of its own, not started."""
    return Service(processes, tmp_path, redis_server.url)


@pytest.mark.parametrize(
    "options",
    [
        ["-w", "1", "--threads", "8"],
        ["-w", "2", "--threads", "4", "--preload"],
        pytest.param(["-w", "2"], marks=pytest.mark.long),
    ],
    ids=["threads", "preload", "sync"],
)
def test_a_shared_client_serves_all_threads_and_workers(service, options):
    """One loop per process keeps its connections; each request has its own id."""
    service.gunicorn(*options)
    with ThreadPoolExecutor(8) as pool:
        parts = [range(start, 80, 8) for start in range(8)]
        wrong = [each for part in pool.map(service.work, parts) for each in part]
    assert wrong == []
    assert service.ask("/async", "mine").body == b"mine"
    assert service.process.stop() == 0


def test_sigterm_is_unready_first_and_loses_no_request(service):
    """Readiness says 503 while requests are still taken; those that run are served."""
    service.gunicorn("-w", "1", "--threads", "16", "-c", HOOK, SERVICE_PRESTOP="1.5")
    assert service.ask("/readyz").status == 200
    with ThreadPoolExecutor(10) as pool:
        replies = [pool.submit(service.ask, "/wait/go", f"id-{n}") for n in range(10)]
        service.process.wait_until(lambda: service.running()["running"] == 10)
        service.process.send(signal.SIGTERM)
        service.process.wait_until(lambda: service.ask("/readyz").status == 503)
        # The socket is open yet, and what still comes is answered.
        assert service.ask("/count/3").status == 200
        service.touch("go")
        bodies = [reply.result().body.decode() for reply in replies]
    assert bodies == [f"id-{number}" for number in range(10)]
    assert service.process.wait() == 0


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="3.12 starts no thread at its end"
)
@pytest.mark.parametrize(
    "options",
    [["--threads", "4"], pytest.param([], marks=pytest.mark.long)],
    ids=["threads", "sync"],
)
def test_accepted_work_is_done_when_the_worker_ends(service, options):
    """It is not lost at SIGTERM, and can still use what needs a thread."""
    service.gunicorn("-w", "1", *options)
    accepted = service.ask("/later/go", method="POST", body=b"work")
    assert accepted.status == 202
    service.process.send(signal.SIGTERM)
    service.process.wait_for("Worker exiting")
    service.touch("go")
    assert service.process.wait() == 0
    assert (service.folder / "done").read_text() == "work"


def test_a_fork_of_a_process_that_serves(processes):
    """The child begins a loop and a life of its own; the parent's go on."""
    process = processes.python("-m", "tests.integrations.flask_service")
    assert process.wait() == 0
    lines = sorted(process.output.splitlines())
    assert lines == [
        f"{who} (200, 200)" for who in ("after", "before", "child", "parent")
    ]


@pytest.mark.long
def test_the_development_server_with_its_reloader(service):
    """The parent that only watches files starts no loop; the child works."""
    service.flask("--debug")
    assert service.work(range(5)) == []
    assert service.ask("/async", "mine").body == b"mine"


@pytest.mark.long
def test_ten_thousand_requests_while_redis_is_killed_and_hangs(service, redis_server):
    """No request fails, whatever happens to Redis meanwhile."""
    service.gunicorn("-w", "2", "--threads", "8")
    with ThreadPoolExecutor(16) as pool:
        parts = [range(start, 10_000, 16) for start in range(16)]
        wrong = [pool.submit(service.work, part) for part in parts]

        def counted():
            return int(redis_server.ask("GET", "requests").split(b"\r\n")[1] or 0)

        service.process.wait_until(lambda: counted() > 500, "500 requests")
        redis_server.kill()
        # Some are served without it before it is there again.
        for number in range(20):
            assert service.work([number]) == []
        redis_server.start()
        service.process.wait_until(lambda: counted() > 500, "500 requests more")
        redis_server.hang()
        for number in range(3):
            assert service.work([number]) == []
        redis_server.wake()
        assert [each for part in wrong for each in part.result()] == []
    assert service.process.stop() == 0
    assert "Traceback" not in service.process.output


@pytest.mark.long
def test_sigterm_during_two_hundred_requests_loses_none(service):
    """In two workers that share them as they come."""
    service.gunicorn("-w", "2", "--threads", "220", "-c", HOOK, SERVICE_PRESTOP="2")
    assert service.ask("/readyz").status == 200
    with ThreadPoolExecutor(200) as pool:
        replies = [pool.submit(service.ask, "/wait/go", f"id-{n}") for n in range(200)]
        running = {}

        def all_run():
            found = service.running()
            running[found["pid"]] = found["running"]
            return sum(running.values()) == 200

        service.process.wait_until(all_run)
        service.process.send(signal.SIGTERM)
        service.process.wait_until(lambda: service.ask("/readyz").status == 503)
        service.touch("go")
        bodies = [reply.result().body.decode() for reply in replies]
    assert bodies == [f"id-{number}" for number in range(200)]
    assert service.process.wait() == 0
