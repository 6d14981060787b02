"""A fleet on Celery: in this process, and with real workers behind real brokers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import ExitStack
from uuid import uuid4

import pytest

pytest.importorskip("celery")
from celery import Celery

from tests.distributed.celery_fleet_app import effect, make_fleet
from tests.processes import Processes
from tests.redis_server import private_redis
from tta_primitives import WorkflowContext, step
from tta_primitives.distributed import EngineError, Registry, RemoteTask, remote
from tta_primitives.distributed.conformance import ENGINE_CHECKS, check_registry
from tta_primitives.integrations import celery_mailbox
from tta_primitives.integrations.celery_fleet import CeleryEngine
from tta_primitives.recovery import RetryPrimitive

PATIENCE = 150.0
NOBODY = "redis://127.0.0.1:1/0"

every_check = pytest.mark.parametrize(
    "check", ENGINE_CHECKS, ids=lambda check: check.__name__
)
every_fleet = pytest.mark.parametrize(
    "fleet",
    [
        pytest.param(("redis", "threads"), id="redis-threads"),
        *(
            pytest.param(which, id="-".join(which), marks=pytest.mark.long)
            for which in (("redis", "prefork"), ("rabbitmq", "threads"))
        ),
        pytest.param(
            ("rabbitmq", "prefork"), id="rabbitmq-prefork", marks=pytest.mark.long
        ),
    ],
    indirect=True,
)


class Fleet:
    """Workers behind a broker, and the address for their callers."""

    def __init__(self, broker, pool, folder) -> None:
        self.broker, self.pool = broker, pool
        self.queue = f"fleet-{uuid4().hex}"
        self.processes = Processes(folder)

    def engine(self) -> CeleryEngine:
        """Return an engine for a caller."""
        return make_fleet(self.broker, self.queue)

    def worker(self):
        """Start a worker, and wait until it takes tasks."""
        running = self.processes.python(
            *("-m", "celery", "-A", "tests.distributed.celery_fleet_app", "worker"),
            *("--loglevel", "INFO", "-P", self.pool, "-c", "6"),
            *("-n", f"{uuid4().hex}@localhost", "--without-gossip", "--without-mingle"),
            TTA_CELERY_FLEET=self.broker,
            TTA_CELERY_FLEET_QUEUE=self.queue,
        )
        running.wait_for(" ready.", timeout=PATIENCE)
        return running

    def kept_up(self, worker):
        """Return a worker that works, as whatever runs them in production sees to.

        One of Celery's gives up if its broker goes while it acknowledges a task: kombu
        fails to put back what is not acknowledged, which ends the process.
        """
        if worker.returncode is None and "Unrecoverable error" not in worker.output:
            return worker
        worker.kill()
        return self.worker()


@pytest.fixture(scope="module")
def _fleets(request, tmp_path_factory):
    """Start fleets when they are first asked for, and end them after the module."""
    with ExitStack() as stack:
        found = {}

        def start(broker, pool):
            if (broker, pool) not in found:
                folder = tmp_path_factory.mktemp(f"fleet-{broker}-{pool}")
                if broker == "redis":
                    url = stack.enter_context(private_redis(folder)).url
                else:
                    url = request.getfixturevalue("_rabbitmq_node").url
                fleet = found[broker, pool] = Fleet(url, pool, folder)
                stack.callback(fleet.processes.end)
                fleet.worker()
            return found[broker, pool]

        yield start


@pytest.fixture
def fleet(request, _fleets):
    """A fleet with a worker, which the test leaves running."""
    return _fleets(*request.param)


@every_check
async def test_celery_without_a_broker_conforms(tmp_path, check) -> None:
    """All in one process, through Celery's own way of executing a task."""
    async with CeleryEngine(check_registry()) as engine:
        await check(engine, tmp_path)


@every_fleet
@every_check
async def test_a_fleet_of_celery_conforms(fleet, tmp_path, check) -> None:
    """What holds in one process holds across processes."""
    async with fleet.engine() as engine:
        await check(engine, tmp_path)
    engine.app.close()


def _notes(folder) -> list[str]:
    path = folder / "effects"
    return path.read_text("utf-8").splitlines() if path.exists() else []


async def _told(folder, count) -> list[str]:
    """Return the notes, as soon as there are so many."""
    async with asyncio.timeout(PATIENCE):
        while len(_notes(folder)) < count:
            await asyncio.sleep(0.01)
    return _notes(folder)


async def _taken_over(fleet, tmp_path) -> None:
    """Kill the worker in the middle of a step; another one ends it, with its key."""
    first = fleet.worker()
    async with fleet.engine() as engine:
        work = remote(effect, engine=engine)
        asked = {"name": "a", "folder": str(tmp_path)}
        call = asyncio.ensure_future(work.execute(asked, WorkflowContext()))
        began = (await _told(tmp_path, 1))[0].split()
        first.send(signal.SIGKILL)
        await asyncio.to_thread(fleet.worker)
        (tmp_path / "go").touch()
        assert await asyncio.wait_for(call, PATIENCE) == "a"
    engine.app.close()
    ended = [line.split() for line in _notes(tmp_path) if line.startswith("ended")]
    assert {key for _, _, key, _ in ended} == {began[2]}
    assert began[3] not in {pid for *_, pid in ended}


@pytest.mark.long
async def test_a_killed_worker_of_redis_loses_no_call(redis_server, tmp_path) -> None:
    """When the visibility timeout is over another worker has it."""
    fleet = Fleet(redis_server.url, "threads", tmp_path)
    try:
        await _taken_over(fleet, tmp_path)
    finally:
        fleet.processes.end()


@pytest.mark.long
async def test_a_killed_worker_of_rabbitmq_loses_no_call(
    rabbitmq_server, tmp_path
) -> None:
    """At once: the broker sees that the connection is gone."""
    fleet = Fleet(rabbitmq_server.url, "threads", tmp_path)
    try:
        await _taken_over(fleet, tmp_path)
    finally:
        fleet.processes.end()


@pytest.mark.long
async def test_replies_come_after_the_broker_was_away(
    rabbitmq_server, tmp_path
) -> None:
    """Caller and worker connect again; the call that was on its way ends."""
    fleet = Fleet(rabbitmq_server.url, "threads", tmp_path)
    try:
        fleet.worker()
        async with fleet.engine() as engine:
            work = remote(effect, engine=engine)
            asked = {"name": "a", "folder": str(tmp_path)}
            call = asyncio.ensure_future(work.execute(asked, WorkflowContext()))
            await _told(tmp_path, 1)
            await asyncio.to_thread(rabbitmq_server.restart)
            (tmp_path / "go").touch()
            assert await asyncio.wait_for(call, PATIENCE) == "a"
        engine.app.close()
    finally:
        fleet.processes.end()


@pytest.mark.long
async def test_calls_fail_while_the_broker_is_away_and_work_afterwards(
    redis_server, tmp_path
) -> None:
    """An `EngineError`, which retries and fallbacks take; nothing is to be reopened."""
    fleet = Fleet(redis_server.url, "threads", tmp_path)
    try:
        worker = fleet.worker()
        async with fleet.engine() as engine:
            echo = remote("check_echo", engine=engine, timeout_seconds=PATIENCE)
            assert await echo.execute(1, WorkflowContext()) == 1
            redis_server.kill()
            with pytest.raises(EngineError, match="could not be sent to the broker"):
                await echo.execute(2, WorkflowContext())
            redis_server.start()
            # What is sent while the worker finds it again may be lost with its queue.
            again = remote("check_echo", engine=engine, timeout_seconds=PATIENCE / 10)

            async def asked(value: int, context: WorkflowContext) -> int:
                """Have a worker, and ask it."""
                nonlocal worker
                worker = fleet.kept_up(worker)
                return await again.execute(value, context)

            patient = RetryPrimitive(asked, max_retries=9)
            assert await patient.execute(3, WorkflowContext()) == 3
        engine.app.close()
    finally:
        fleet.processes.end()


async def test_a_call_to_a_broker_that_is_not_there_is_an_engine_error(
    monkeypatch,
) -> None:
    """It names what cannot be reached, and leaves no thread."""
    monkeypatch.setattr(celery_mailbox, "_READY_SECONDS", 0.5)
    app = Celery("nobody", broker=NOBODY, set_as_current=False)
    engine = CeleryEngine(check_registry(), app=app)
    with pytest.raises(EngineError, match="broker of the Celery app cannot be reached"):
        await engine.open()
    await engine.close()
    app.close()


async def test_an_opening_that_is_cancelled_leaves_no_thread() -> None:
    """The thread would look for its broker for ever."""
    app = Celery("nobody", broker=NOBODY, set_as_current=False)
    engine = CeleryEngine(check_registry(), app=app)
    opening = asyncio.create_task(engine.open())
    async with asyncio.timeout(PATIENCE):
        while engine._mailbox._replies is None:
            await asyncio.sleep(0.01)
        listener = engine._mailbox._replies
        opening.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await opening
        await asyncio.to_thread(listener._thread.join, PATIENCE)
    assert not listener._thread.is_alive()
    app.close()


@pytest.fixture
def memory_app():
    """A Celery app whose broker is this process."""
    with Celery("memory", broker="memory://", set_as_current=False) as app:
        yield app


def test_a_reply_that_cannot_be_read_holds_up_no_other(memory_app, caplog) -> None:
    """A pickle is not loaded, and does not come again and again either."""
    mailbox = celery_mailbox.BrokerMailbox(memory_app, prefix=uuid4().hex)
    got, came = [], threading.Event()

    def take(text: str) -> None:
        got.append(text)
        came.set()

    mailbox.receive(take)
    with memory_app.producer_or_acquire() as producer:
        producer.publish(
            b"\x80\x04.",
            exchange="",
            routing_key=mailbox.address,
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
    mailbox.post(mailbox.address, "a reply")
    assert came.wait(PATIENCE)
    mailbox.close()
    assert got == ["a reply"]
    assert caplog.text.count("is no JSON and is dropped: ContentDisallowed") == 1


def test_a_worker_obeys_again_when_its_broker_is_back(memory_app, monkeypatch) -> None:
    """Cancellations come although the first look for them found no broker."""
    mailbox = celery_mailbox.BrokerMailbox(memory_app, prefix=uuid4().hex)
    monkeypatch.setattr(celery_mailbox, "_READY_SECONDS", 0.01)
    connect, is_away = memory_app.connection_for_read, True

    def connected():
        if is_away:
            raise ConnectionRefusedError
        return connect()

    monkeypatch.setattr(memory_app, "connection_for_read", connected)
    got, came = [], threading.Event()

    def cancel(call_id: str) -> None:
        got.append(call_id)
        came.set()

    mailbox.obey(cancel)
    is_away = False
    assert mailbox._orders._ready.wait(PATIENCE)
    mailbox.revoke("call")
    assert came.wait(PATIENCE)
    monkeypatch.undo()
    mailbox.close()
    assert got == ["call"]


def test_a_broker_in_memory_is_refused() -> None:
    """No worker could get at it; without an app there is a way."""
    app = Celery("memory", broker="memory://", set_as_current=False)
    with pytest.raises(ValueError, match="leave app= out, and calls are performed"):
        CeleryEngine(check_registry(), app=app)
    app.close()


def test_two_engines_of_an_app_need_two_names() -> None:
    """Their tasks would be one."""
    app = Celery("two", broker=NOBODY, set_as_current=False)
    CeleryEngine(check_registry(), app=app)
    CeleryEngine(check_registry(), app=app, name="other")
    with pytest.raises(ValueError, match=r"task is 'other\.perform': give name="):
        CeleryEngine(check_registry(), app=app, name="other")
    app.close()


async def test_what_a_remote_step_publishes_belongs_to_the_callers_run() -> None:
    """The message of the call has the headers of the run."""
    from tta_primitives.integrations.celery_messages import carried

    @step
    async def look(_: None) -> list:
        running = carried()
        return [running.context.correlation_id, os.getpid()]

    async with CeleryEngine(Registry(look)) as engine:
        got = await remote(look, engine=engine).execute(None, WorkflowContext("A"))
    assert got == ["A", os.getpid()]


async def test_what_is_no_task_is_dropped(caplog) -> None:
    """A stranger's message on the queue ends nobody's worker."""
    engine = CeleryEngine(check_registry())
    async with engine:
        engine._task.apply(("{}", "here"))
        engine._deliver("{}")
        task = RemoteTask(call_id="1", workflow="check_echo", path="check_echo")
        assert (await engine.call(task)).status == "ok"
    assert "instead of a task is dropped" in caplog.text
    assert "instead of a reply is dropped" in caplog.text
