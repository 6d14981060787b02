"""The durable runtime on DBOS: runs, what is kept of them, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pickle
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from dbos import DBOS
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from tests.durable.test_runs import Broken, Effects
from tests.services import require_sqlite_of_dbos
from tta_primitives import MapPrimitive, WorkflowContext, step
from tta_primitives.durable import (
    DurableError,
    JournalError,
    RunCancelledError,
    UnknownRunError,
    WorkflowChangedError,
)
from tta_primitives.integrations import dbos_runtime
from tta_primitives.integrations.dbos import (
    DatabaseStep,
    RunStatus,
    done_steps,
    durable,
    durable_runtime,
)
from tta_primitives.recovery import SagaPrimitive
from tta_primitives.runtime import Lifecycle


@pytest.fixture(autouse=True)
def sqlite_of_dbos() -> None:
    """Need a SQLite that DBOS works on."""
    require_sqlite_of_dbos()


@pytest.fixture
def effects():
    """The world of one test."""
    return Effects()


@pytest.fixture
def file(tmp_path):
    """Where the runs of one test are kept."""
    return tmp_path / "runs.sqlite"


@pytest.fixture
def open_runtime(file):
    """Return a runtime for workflows, on the test's own file."""

    def make(*workflows, **options):
        options = {"poll_seconds": 0.02, "drain_seconds": 5.0, **options}
        return durable_runtime(*workflows, database_url=f"sqlite:///{file}", **options)

    return make


class Gate:
    """A step that waits until it is let through; it counts who came."""

    def __init__(self):
        self.came = 0
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, value):
        self.came += 1
        self.arrived.set()
        await self.open.wait()
        return value


async def test_a_run_is_begun_once(open_runtime, effects):
    """The same id again gives what is stored, also in another process."""
    order = durable(effects.step("a") >> effects.step("b"), name="order")
    async with open_runtime(order) as runtime:
        assert await runtime.run(order, 1, workflow_id="17") == 1
        assert await runtime.run(order, 2, workflow_id="17") == 1
    async with open_runtime(order) as runtime:
        assert await runtime.run(order, 3, workflow_id="17") == 1
        assert await runtime.handle("17").result() == 1
    assert effects.log == ["a", "b"]


async def test_one_that_fails_raises_what_it_was(open_runtime, effects):
    """The error is stored, and raised as its own type each time."""
    order = durable(effects.failing("a", Broken(7, hint=[1])), name="order")
    async with open_runtime(order) as runtime:
        for _ in range(2):
            with pytest.raises(Broken, match="broken 7") as caught:
                await runtime.run(order, 1, workflow_id="17")
            assert caught.value.hint == [1]
        assert (await runtime.status("17")).state == "failed"
    assert effects.log == ["a"]


async def test_runs_at_the_same_time_are_apart(open_runtime):
    """Each of many has its own context, and items their own records."""

    @step
    async def tell(item, context):
        await asyncio.sleep(0)
        return f"{context.correlation_id} {context.baggage['shop']} {item}"

    order = durable(MapPrimitive(tell), name="order")
    async with open_runtime(order) as runtime:
        results = await asyncio.gather(
            *(
                runtime.run(
                    order,
                    [1, 2],
                    WorkflowContext(f"c{n}", baggage={"shop": f"s{n}"}),
                    workflow_id=f"{n}",
                )
                for n in range(20)
            )
        )
    assert results == [[f"c{n} s{n} 1", f"c{n} s{n} 2"] for n in range(20)]


async def test_a_run_that_a_closed_runtime_left_goes_on_in_the_next(open_runtime):
    """Context, state and baggage come back; nothing was compensated on the way."""
    gate, undone = Gate(), []

    @step
    async def begin(value, context):
        context.state["began"] = value
        return value

    @step
    async def end(value, context):
        return [context.state, context.correlation_id, context.baggage, context.tags]

    saga = SagaPrimitive([(begin, step(lambda _: undone.append(1), name="undo")), gate])
    order = durable(saga >> end, name="order")
    context = WorkflowContext(
        "c", baggage={"b": "1"}, tags={"t": "2"}, state={"given": (1, 2)}
    )
    async with open_runtime(order, drain_seconds=0.05) as runtime:
        await runtime.start(order, 5, context, workflow_id="17")
        await gate.arrived.wait()
    gate.open.set()
    async with open_runtime(order) as runtime:
        state, *others = await runtime.handle("17").result()
        assert (await runtime.status("17")).attempts == 2
    assert state == {"given": (1, 2), "began": 5}
    assert others == ["c", {"b": "1"}, {"t": "2"}]
    assert gate.came == 2
    assert not undone


async def test_a_lifecycle_that_runs_out_of_time_undoes_nothing(open_runtime):
    """It cancels what still runs: a durable run goes on in the next process."""
    gate, undone = Gate(), []
    undo = step(lambda _: undone.append(1), name="undo")
    saga = SagaPrimitive([((lambda x: x), undo), gate])
    order = durable(saga, name="order")
    async with open_runtime(order) as runtime:
        checks = {"durable": runtime.check}
        lifecycle = Lifecycle(checks=checks, check_timeout=30, track_runs=True)
        async with lifecycle:
            lifecycle.mark_ready()
            assert (await lifecycle.ready())[0] == 200
            await runtime.start(order, 5, workflow_id="17")
            await gate.arrived.wait()
            report = await lifecycle.drain(0.5)
        assert report.cancelled == 1
        assert (await runtime.status("17")).state == "running"
    gate.open.set()
    async with open_runtime(order) as runtime:
        assert await runtime.handle("17").result() == 5
    assert not undone


async def test_the_id_of_a_run_is_its_key(tmp_path, effects):
    """If the database is lost the same id begins anew, with the same keys."""

    @step
    async def key(value, context):
        return context.idempotency_key

    order = durable(key, name="order")
    keys = []
    for name, run in (("1", "17"), ("2", "17"), ("2", "18")):
        url = f"sqlite:///{tmp_path / name}.sqlite"
        async with durable_runtime(order, database_url=url) as runtime:
            keys.append(await runtime.run(order, 1, workflow_id=run))
    assert keys[0] == keys[1] != keys[2]


async def test_a_runtime_waits_for_runs_when_it_closes(open_runtime):
    """What ends within the budget is finished."""
    gate = Gate()
    order = durable(gate, name="order")
    async with open_runtime(order) as runtime:
        handle = await runtime.start(order, 5, workflow_id="17")
        await gate.arrived.wait()
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
    async with open_runtime(order) as runtime:
        assert (await runtime.status(handle.workflow_id)).state == "done"
    assert gate.came == 1


async def test_nothing_is_left_of_a_closed_runtime(open_runtime, effects):
    """No thread, no task, no open file; and the loop's own threads still work."""
    order = durable(effects.step("a"), name="order")
    threads = set(threading.enumerate())
    files = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(2):
        async with open_runtime(order) as runtime:
            await runtime.run(order, 1, workflow_id=f"{number}")
    left = {t for t in set(threading.enumerate()) - threads if t.is_alive()}
    assert not left
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await asyncio.to_thread(lambda: 7) == 7


async def test_nobody_is_called_but_the_database(open_runtime, effects, monkeypatch):
    """No conductor, no telemetry, no admin server: nothing connects or listens."""
    called = []
    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(
            socket.socket, name, lambda *given, name=name: called.append((name, given))
        )
    order = durable(effects.step("a"), name="order")
    async with open_runtime(order) as runtime:
        await runtime.run(order, 1, workflow_id="17")
    assert not called


async def test_the_log_is_quiet(open_runtime, effects, capfd, caplog):
    """Also of a run that fails, whose error is told to who waits for it."""
    order = durable(effects.failing("a", ValueError("secret")), name="order")
    with caplog.at_level(logging.INFO, "dbos"):
        async with open_runtime(order) as runtime:
            with pytest.raises(ValueError, match="secret"):
                await runtime.run(order, 1, workflow_id="17")
    assert capfd.readouterr() == ("", "")
    assert "secret" not in caplog.text


async def test_a_cancelled_run_stops_and_can_be_resumed(open_runtime, effects):
    """It stands before its next step; nothing is undone, and what is done stays."""
    gate = Gate()
    order = durable(effects.step("a") >> step(gate, name="gate"), name="order")
    async with open_runtime(order) as runtime:
        handle = await runtime.start(order, 5, workflow_id="17")
        await gate.arrived.wait()
        await handle.cancel()
        with pytest.raises(RunCancelledError, match="'17' is cancelled; resume it"):
            await handle.result()
        assert (await handle.status()).state == "cancelled"
        gate.open.set()
        await handle.resume()
        assert await handle.result() == 5
    assert effects.log == ["a"]
    assert gate.came == 2


async def test_runs_are_listed(open_runtime, effects):
    """By workflow and by state, the oldest first."""
    good = durable(effects.step("a"), name="good")
    bad = durable(effects.failing("b", ValueError("b")), name="bad")
    async with open_runtime(good, bad) as runtime:
        await runtime.run(good, 1, workflow_id="1")
        with pytest.raises(ValueError, match="b"):
            await runtime.run(bad, 1, workflow_id="2")
        done = RunStatus("1", "good", "done", "local", 1)
        failed = RunStatus("2", "bad", "failed", "local", 1)
        assert await runtime.runs() == [done, failed]
        assert await runtime.runs(workflow=bad) == [failed]
        assert await runtime.runs(state="done", limit=5) == [done]
        with pytest.raises(ValueError, match="state='finished' must be one of 'wait"):
            await runtime.runs(state="finished")
        await runtime.check()


async def test_an_unknown_run_is_an_error(open_runtime, effects):
    """Asked for, cancelled or resumed."""
    order = durable(effects.step("a"), name="order")
    async with open_runtime(order) as runtime:
        handle = runtime.handle("18")
        for ask in (handle.status, handle.result, handle.cancel, handle.resume):
            with pytest.raises(UnknownRunError, match="no run with the id '18'"):
                await ask()


async def test_a_run_of_another_version_waits(open_runtime, effects, caplog):
    """It is not executed by steps that may mean something else, nor lost."""
    gate = Gate()
    old = durable(step(gate, name="gate"), name="order")
    new = durable(step(gate, name="gate") >> effects.step("more"), name="order")
    async with open_runtime(old, drain_seconds=0.05) as runtime:
        await runtime.start(old, 5, workflow_id="17")
        await gate.arrived.wait()
    gate.open.set()
    async with open_runtime(new) as runtime:
        with pytest.raises(WorkflowChangedError, match=old.version):
            await runtime.handle("17").result()
    assert "compatible_with=" in caplog.text
    assert effects.log == []
    again = durable(new.workflow, name="order", compatible_with=[old.version])
    async with open_runtime(again) as runtime:
        assert await runtime.handle("17").result() == 5
    assert effects.log == ["more"]


def test_a_version_is_that_of_the_names_in_the_workflow(effects):
    """It changes with a step's name, and not with what a retry is set to."""
    one = durable(effects.step("a") >> effects.step("b"), name="order")
    same = durable(effects.step("a") >> effects.step("b"), name="other")
    moved = durable(effects.step("b") >> effects.step("a"), name="order")
    named = durable(effects.step("a"), name="order", version="2026-11")
    assert one.version == same.version != moved.version
    assert repr(named) == "<DurableWorkflow 'order' version='2026-11'>"


class Evil:
    """What executes code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("where", ["inputs", "output", "error", "step"])
async def test_planted_pickles_are_not_loaded(
    where, open_runtime, file, monkeypatch, tmp_path
):
    """Neither in a run's row nor in a step's, though the row says that it is one."""
    monkeypatch.chdir(tmp_path)
    planted = base64.b64encode(pickle.dumps(Evil())).decode()
    gate = Gate()
    order = durable((lambda x: x) >> step(gate, name="gate"), name="order")
    async with open_runtime(order, drain_seconds=0.05) as runtime:
        await runtime.start(order, 5, workflow_id="17")
        await gate.arrived.wait()
    with sqlite3.connect(file) as database:
        if where == "step":
            table, values = "operation_outputs", "output = ?, serialization = ?"
        else:
            table, values = "workflow_status", f"{where} = ?, serialization = ?"
        if where in {"output", "error"}:
            state = "SUCCESS" if where == "output" else "ERROR"
            values += f", status = '{state}'"
        database.execute(f"UPDATE {table} SET {values}", (planted, "py_pickle"))
    database.close()
    gate.open.set()
    async with open_runtime(order) as runtime:
        with pytest.raises(JournalError, match=r"pickle|not what|cannot be read"):
            await runtime.handle("17").result()
    assert not Path("unpickled").exists()


async def test_what_is_written_is_json(open_runtime, file, effects):
    """No row says anything else."""
    order = durable(effects.step("a", does=lambda _: (1, b"x")), name="order")
    async with open_runtime(order) as runtime:
        assert await runtime.run(order, 1, workflow_id="17") == (1, b"x")
    with sqlite3.connect(file) as database:
        rows = database.execute(
            "SELECT serialization FROM operation_outputs "
            "UNION SELECT serialization FROM workflow_status"
        ).fetchall()
    database.close()
    assert rows == [("tta_json",)]


async def test_the_file_is_its_owners_and_one_process_has_it(
    open_runtime, file, effects
):
    """Whoever opens it a second time is told, before a run is executed twice."""
    order = durable(effects.step("a"), name="order")
    import fcntl

    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DurableError, match="another process has its durable"):
            async with open_runtime(order):
                pass
    async with open_runtime(order):
        assert file.stat().st_mode & 0o777 == 0o600


async def test_there_is_one_runtime_in_a_process(open_runtime, effects, tmp_path):
    """A second one is refused, and the first goes on."""
    order = durable(effects.step("a"), name="order")
    async with open_runtime(order) as runtime:
        second = durable_runtime(order, database_url=f"sqlite:///{tmp_path}/2.sqlite")
        with pytest.raises(DurableError, match="DBOS runs in this process already"):
            await second.__aenter__()
        with pytest.raises(DurableError, match="is open already"):
            await runtime.__aenter__()
        assert await runtime.run(order, 1, workflow_id="17") == 1
    await runtime.close()
    with pytest.raises(DurableError, match=r"closed>.* is closed: use it inside"):
        await runtime.run(order, 1, workflow_id="18")


async def test_a_database_that_does_not_answer_is_told_without_its_password(effects):
    """The error names the address and the way out; nothing is left running."""
    order = durable(effects.step("a"), name="order")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql://me:hunter2@127.0.0.1:{port}/orders"
    threads = set(threading.enumerate())
    runtime = durable_runtime(order, database_url=url, executor_id="one")
    with pytest.raises(DurableError, match="cannot start on postgresql") as caught:
        await runtime.__aenter__()
    assert "hunter2" not in str(caught.value) + repr(runtime)
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"database_url": "mysql://x"}, "must be sqlite:///file.sqlite or"),
        ({"database_url": "sqlite://"}, "must name a file"),
        ({"database_url": 7}, "must be a text, not int"),
        ({"database_url": "postgresql://h/d"}, "executor_id must be given"),
        ({"drain_seconds": -1}, "drain_seconds=-1"),
        ({"max_recoveries": 1.5}, "max_recoveries=1.5"),
    ],
)
def test_wrong_arguments_are_told(arguments, told):
    """At once, with what to write instead."""
    with pytest.raises((TypeError, ValueError), match=told):
        durable_runtime(**arguments)


def test_what_is_not_durable_is_told(effects):
    """Before anything is opened."""
    one = durable(effects.step("a"), name="a")
    with pytest.raises(TypeError, match="is no durable workflow: make one with"):
        durable_runtime(effects.step("a"))
    with pytest.raises(ValueError, match="two workflows have the name 'a'"):
        durable_runtime(one, durable(effects.step("b"), name="a"))
    with pytest.raises(ValueError, match="name='' must be a text of 1 to 200"):
        durable(effects.step("a"), name="")
    with pytest.raises(TypeError, match="compatible_with='1' must be a collection"):
        durable(effects.step("a"), name="a", compatible_with="1")
    with pytest.raises(TypeError, match="deps=7 must be a function"):
        durable(effects.step("a"), name="a", deps=7)


async def test_a_foreign_workflow_and_a_taken_id_are_told(open_runtime, effects):
    """A run belongs to the workflow that it was begun with."""
    one = durable(effects.step("a"), name="one")
    two = durable(effects.step("b"), name="two")
    other = durable(effects.step("c"), name="one")
    async with open_runtime(one, two) as runtime:
        with pytest.raises(DurableError, match="is not one that"):
            await runtime.start(other, 1, workflow_id="17")
        await runtime.run(one, 1, workflow_id="17")
        with pytest.raises(Exception, match="17"):
            await runtime.start(two, 1, workflow_id="17")


async def test_what_cannot_be_kept_is_told_before_the_run(open_runtime, effects):
    """The input, and the state of the context."""
    order = durable(effects.step("a"), name="order")
    async with open_runtime(order) as runtime:
        with pytest.raises(TypeError, match="run '17' holds a object"):
            await runtime.start(order, object(), workflow_id="17")
        context = WorkflowContext(state={"live": object()})
        with pytest.raises(TypeError, match="run '17' holds a object"):
            await runtime.start(order, 1, context, workflow_id="17")
        assert await runtime.runs() == []


async def test_live_objects_come_from_the_context_or_the_workflow(open_runtime):
    """Those of the context are for this process; others are made for each execution."""

    @step
    async def read(value, context):
        return [context.deps["a"], context.deps["b"]]

    order = durable(read, name="order", deps=lambda: {"a": 1, "b": 1})
    async with open_runtime(order) as runtime:
        context = WorkflowContext(deps={"b": 2})
        assert await runtime.run(order, 1, context, workflow_id="17") == [1, 2]
        assert await runtime.run(order, 1, workflow_id="18") == [1, 1]


async def test_a_run_whose_deps_cannot_be_made_waits(open_runtime, effects, caplog):
    """It has not failed: a process that can make them goes on with it."""

    def broken():
        msg = "no bank today"
        raise OSError(msg)

    workflow = effects.step("a")
    order = durable(workflow, name="order", deps=broken)
    async with open_runtime(order) as runtime:
        with pytest.raises(OSError, match="no bank today"):
            await runtime.run(order, 1, workflow_id="17")
    assert "run '17' waits: its deps cannot be made" in caplog.text
    async with open_runtime(durable(workflow, name="order")) as runtime:
        assert await runtime.handle("17").result() == 1


async def test_a_run_waits_for_a_database_that_is_away(
    open_runtime, effects, monkeypatch
):
    """It begins when its journal can be read, rather than to fail for good."""
    order = durable(effects.step("a"), name="order")
    read, failures = DBOS.list_workflow_steps, iter([1, 2])

    def sometimes(run_id):
        if next(failures, None):
            raise OperationalError("SELECT 1", {}, OSError("gone"))
        return read(run_id)

    monkeypatch.setattr(DBOS, "list_workflow_steps", sometimes)
    monkeypatch.setattr(dbos_runtime, "_PAUSE_SECONDS", 0.01)
    async with open_runtime(order) as runtime:
        assert await runtime.run(order, 1, workflow_id="17") == 1


async def test_a_database_step_needs_a_key_and_sessions():
    """Without a key nothing tells two executions apart."""

    async def book(value, session):
        return value

    one = DatabaseStep(book, sessions="sessions")
    with pytest.raises(DurableError, match="book needs an idempotency key"):
        await one.execute(1, WorkflowContext())
    with pytest.raises(DurableError, match=r"context\.deps has no 'sessions'"):
        await one.execute(1, WorkflowContext(idempotency_key="k"))


async def test_two_database_steps_with_the_callers_key_are_both_done(tmp_path):
    """Outside of a durable run a key of the caller's own is that of all steps."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'books.sqlite'}")
    async with engine.begin() as connection:
        await connection.run_sync(done_steps.metadata.create_all)
    sessions, done = async_sessionmaker(engine), []

    async def charge(value, session):
        """Note that it was called."""
        done.append("charge")
        return value + 1

    async def ship(value, session):
        """Note that it was called."""
        done.append("ship")
        return f"shipped {value}"

    workflow = DatabaseStep(charge, sessions=sessions) >> DatabaseStep(
        ship, sessions=sessions
    )
    for _ in range(2):
        context = WorkflowContext(idempotency_key="order-17" * 50)
        assert await workflow.execute(1, context) == "shipped 2"
    assert done == ["charge", "ship"]
    await engine.dispose()


@pytest.mark.long
async def test_a_run_outlives_its_server(postgres_server, effects):
    """PostgreSQL is killed while a step is at work, and comes back: the run goes on."""
    gate = Gate()
    order = durable(step(gate, name="gate") >> effects.step("end"), name="order")
    runtime = durable_runtime(
        order, database_url=postgres_server.url(), executor_id="one"
    )
    async with runtime:
        handle = await runtime.start(order, 5, workflow_id="17")
        await gate.arrived.wait()
        await asyncio.to_thread(postgres_server.kill)
        gate.open.set()
        await asyncio.to_thread(postgres_server.start)
        assert await handle.result() == 5
    assert effects.log == ["end"]
    assert gate.came == 1


@pytest.mark.long
async def test_a_runtime_closes_though_its_server_hangs(postgres_server, effects):
    """It leaves its threads to the end of the process, and says so."""
    order = durable(effects.step("a"), name="order")
    runtime = durable_runtime(
        order,
        database_url=postgres_server.url(),
        executor_id="one",
        drain_seconds=1.0,
    )
    async with runtime:
        await runtime.run(order, 5, workflow_id="17")
        postgres_server.hang()
        began = asyncio.get_running_loop().time()
        await runtime.close()
        took = asyncio.get_running_loop().time() - began
        postgres_server.wake()
    assert took < 20
