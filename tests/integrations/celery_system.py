"""A Celery system of a test's own: a broker, a store of results, workers, a client."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis
from celery.exceptions import TimeoutError as ResultTimeoutError

from tests.integrations.celery_jobs import make_app
from tests.processes import Processes, Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer

PATIENCE = 150.0
JOBS = "tests.integrations.celery_jobs"


class System:
    """Workers behind a broker, and the client that talks to them.

    Args:
        broker: The address of the broker.
        results: The Redis server that keeps results and what tasks tell.
        processes: Where the workers are started.
    """

    def __init__(self, broker: str, results: RedisServer, processes: Processes) -> None:
        self.broker = broker
        self.backend = f"redis://{results.host}:{results.port}/1"
        self._processes = processes
        self._workers: list[Running] = []
        self.store = redis.Redis.from_url(self.backend, decode_responses=True)
        # Workers of other systems may be behind the same broker.
        self.queue = f"jobs-{uuid4().hex}"
        self.app = make_app(broker, self.backend, self.queue)

    def worker(self, pool: str = "prefork", concurrency: int = 2) -> Running:
        """Start a worker, and wait until it takes tasks."""
        running = self._processes.python(
            *("-m", "celery", "-A", JOBS, "worker", "--loglevel", "INFO"),
            *("-P", pool, "-c", str(concurrency), "-n", f"{uuid4().hex}@localhost"),
            *("--without-gossip", "--without-mingle"),
            TTA_JOBS_BROKER=self.broker,
            TTA_JOBS_BACKEND=self.backend,
            TTA_JOBS_QUEUE=self.queue,
        )
        self._workers.append(running)
        running.wait_for(" ready.", timeout=PATIENCE)
        return running

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Publish a task."""
        return self.app.tasks[f"jobs.{name}"].apply_async(args, **options)

    def results(self, sent: list[Any]) -> list[Any]:
        """Return the results of tasks that were published."""
        __tracebackhide__ = True
        try:
            return [result.get(timeout=PATIENCE) for result in sent]
        except ResultTimeoutError:
            logs = "\n".join(worker.output for worker in self._workers)
            pytest.fail(f"tasks have no results; the workers:\n{logs}", pytrace=False)

    def told(self, name: str, count: int, worker: Running) -> list[str]:
        """Return what tasks have told, as soon as there is so much of it."""

        def is_told() -> bool:
            return self.store.llen(name) >= count

        worker.wait_until(is_told, f"{count} in {name}", timeout=PATIENCE)
        return self.store.lrange(name, 0, -1)

    def open(self, name: str, count: int = 1) -> None:
        """Let so many tasks through a gate, also those that come to it later."""
        self.store.rpush(f"gate:{name}", *["open"] * count)

    def close(self) -> None:
        """Close the client's connections."""
        self.app.close()
        self.app.backend.result_consumer.stop()
        self.app.backend.client.close()
        self.store.close()


@contextmanager
def system_of(broker: str, results: RedisServer, folder: Path) -> Iterator[System]:
    """Yield a system, and end what was started in it."""
    processes = Processes(folder)
    system = System(broker, results, processes)
    try:
        yield system
    finally:
        processes.end()
        system.close()
