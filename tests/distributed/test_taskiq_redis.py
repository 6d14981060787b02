"""A fleet on a real Redis with real workers, which are killed in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest

from tests.processes import Processes
from tests.redis_server import private_redis
from tta_primitives import MapPrimitive, WorkflowContext
from tta_primitives.distributed import EngineError, RemoteTask, remote
from tta_primitives.distributed.conformance import ENGINE_CHECKS, check_context
from tta_primitives.recovery import RetryPrimitive

pytest.importorskip("taskiq_redis")
from redis.asyncio import Redis

from tests.distributed.fleet_app import VISIBLE, crash, effect, make_fleet
from tta_primitives.integrations.taskiq_redis import FleetBroker

PATIENCE = 30.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextmanager
def worker_processes(redis, folder, count=1):
    """Start so many workers, each one process, and end them in any case."""
    started = Processes(folder)
    try:
        workers = [
            started.python(
                *("-m", "taskiq", "worker", "tests.distributed.fleet_app:broker"),
                *("--workers", "1", "--log-level", "INFO"),
                TTA_FLEET_REDIS=redis.url,
            )
            for _ in range(count)
        ]
        for worker in workers:
            worker.wait_for("Listening started")
        yield workers
    finally:
        started.end()


@pytest.fixture(scope="module")
def workers(redis, tmp_path_factory):
    with worker_processes(redis, tmp_path_factory.mktemp("workers"), 2) as workers:
        yield workers


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
async def test_taskiq_on_redis_conforms(redis, workers, tmp_path, check) -> None:
    """What holds in one process holds across processes."""
    async with make_fleet(redis.url) as engine:
        await check(engine, tmp_path)


def effects(folder, kind):
    """Return the words of the notes of one kind that steps have left."""
    try:
        lines = (folder / "effects").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [words for words in map(str.split, lines) if words[0] == kind]


async def until(condition):
    """Wait for a condition, for as long as a slow machine may need."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_killed_worker_loses_no_task(tmp_path, redis_server) -> None:
    """Those of its tasks that were begun are performed by another, with their keys."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    names = [f"item-{number}" for number in range(8)]
    items = [{"name": n, "folder": str(tmp_path), "waits": True} for n in names]
    async with make_fleet(redis_server.url) as fleet:
        work = MapPrimitive(remote(effect, engine=fleet), max_concurrency=8)
        with worker_processes(redis_server, tmp_path / "a") as [first]:
            call = asyncio.ensure_future(work.execute(items, WorkflowContext()))
            await until(lambda: len(effects(tmp_path, "began")) == 8)
            os.killpg(first.pid, signal.SIGKILL)
            with worker_processes(redis_server, tmp_path / "b"):
                (tmp_path / "go").touch()
                assert await asyncio.wait_for(call, PATIENCE) == names
    ended = effects(tmp_path, "ended")
    assert sorted(name for _, name, _, _ in ended) == names
    began = effects(tmp_path, "began")
    assert len({key for _, _, key, _ in began}) == 8
    assert len({pid for _, _, _, pid in began}) == 2


@pytest.mark.long
async def test_a_thousand_calls_survive_a_kill(tmp_path, redis_server) -> None:
    """Each keeps its own correlation id, though a worker is killed among them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    answered = asyncio.Semaphore(0)

    async def call(number):
        """Make one call under a context of its own."""
        got = await told.execute(None, WorkflowContext(f"request-{number}"))
        answered.release()
        return got["correlation_id"]

    async with make_fleet(redis_server.url) as fleet:
        told = remote(check_context, engine=fleet)
        with (
            worker_processes(redis_server, tmp_path / "a") as [first],
            worker_processes(redis_server, tmp_path / "b"),
        ):
            calls = [asyncio.ensure_future(call(number)) for number in range(1000)]
            for _ in range(200):
                await answered.acquire()
            os.killpg(first.pid, signal.SIGKILL)
            got = await asyncio.wait_for(asyncio.gather(*calls), 2 * PATIENCE)
    assert got == [f"request-{number}" for number in range(1000)]


@pytest.mark.long
async def test_a_long_task_is_not_delivered_again(redis, workers, tmp_path) -> None:
    """A worker that lives gives signs of life, however long its task takes."""
    asked = {"name": "long", "folder": str(tmp_path), "waits": True}
    async with make_fleet(redis.url) as fleet:
        long = remote(effect, engine=fleet)
        call = asyncio.ensure_future(long.execute(asked, WorkflowContext()))
        await until(lambda: effects(tmp_path, "began"))
        # Three times as long as a task may lie without a sign of life.
        with pytest.raises(TimeoutError, match=r"^$"):
            await asyncio.wait_for(asyncio.shield(call), 3 * VISIBLE)
        (tmp_path / "go").touch()
        assert await asyncio.wait_for(call, PATIENCE) == "long"
    assert len(effects(tmp_path, "began")) == 1


@pytest.mark.long
async def test_a_task_that_kills_its_workers_fails(tmp_path, redis_server) -> None:
    """After so many deliveries the caller is told, and workers are left alone."""
    async with make_fleet(redis_server.url) as fleet:
        with worker_processes(redis_server, tmp_path) as [worker]:
            poison = remote(crash, engine=fleet)
            call = poison.execute({"folder": str(tmp_path)}, WorkflowContext())
            with pytest.raises(EngineError, match="'crash' was delivered 3 times"):
                await asyncio.wait_for(call, PATIENCE)
            assert worker.returncode is None
    assert len(effects(tmp_path, "crash")) == 2


@pytest.mark.long
async def test_workers_that_are_told_to_end_finish_first(
    tmp_path, redis_server
) -> None:
    """SIGTERM ends a worker when its tasks are done, and their replies arrive."""
    asked = {"name": "last", "folder": str(tmp_path), "waits": True}
    async with make_fleet(redis_server.url) as fleet:
        with worker_processes(redis_server, tmp_path) as [worker]:
            last = remote(effect, engine=fleet)
            call = asyncio.ensure_future(last.execute(asked, WorkflowContext()))
            await until(lambda: effects(tmp_path, "began"))
            worker.send(signal.SIGTERM)
            await until(lambda: "Stopping prefetching" in worker.output)
            (tmp_path / "go").touch()
            assert await asyncio.wait_for(call, PATIENCE) == "last"
            await until(lambda: worker.returncode is not None)
    assert b"tta-tests:replies" not in redis_server.ask("KEYS", "*")
    assert b":0" in redis_server.ask("XLEN", "tta-tests")


@pytest.mark.long
async def test_a_cancelled_call_is_never_begun(tmp_path, redis_server) -> None:
    """A worker that starts later finds that nobody waits for it any more."""
    asked = {"name": "left", "folder": str(tmp_path)}
    async with make_fleet(redis_server.url) as fleet:
        step = remote(effect, engine=fleet)
        call = asyncio.ensure_future(step.execute(asked, WorkflowContext()))
        await until(lambda: b":1" in redis_server.ask("XLEN", "tta-tests"))
        call.cancel()
        await asyncio.wait((call,))
        # Starting workers holds the loop, and with it what is sent on the side.
        await until(lambda: b"tta-tests:cancelled" in redis_server.ask("KEYS", "*"))
        with worker_processes(redis_server, tmp_path):
            after = {"name": "after", "folder": str(tmp_path)}
            assert await step.execute(after, WorkflowContext()) == "after"
    assert [name for _, name, _, _ in effects(tmp_path, "began")] == ["after"]


@pytest.mark.long
async def test_time_in_the_queue_counts(tmp_path, redis_server) -> None:
    """A worker that comes too late does not begin, as the deadline has passed."""
    asked = {"name": "late", "folder": str(tmp_path)}
    async with make_fleet(redis_server.url) as fleet:
        late = remote(effect, engine=fleet)
        sent = RemoteTask(
            call_id="a" * 32,
            workflow="effect",
            path=late.name,
            value=asked,
            context={"remaining_seconds": 0.2},
        )
        call = asyncio.ensure_future(fleet.call(sent))
        await until(lambda: b":1" in redis_server.ask("XLEN", "tta-tests"))
        with worker_processes(redis_server, tmp_path):
            reply = await asyncio.wait_for(call, PATIENCE)
    assert reply.error is not None
    assert reply.error["message"] == "effect had no time left to start"
    assert effects(tmp_path, "began") == []


@pytest.mark.long
async def test_a_fleet_survives_its_redis(tmp_path, redis_server) -> None:
    """Workers and callers go on when the server that they lost is back."""
    async with make_fleet(redis_server.url) as fleet:
        with worker_processes(redis_server, tmp_path) as [worker]:
            step = remote(effect, engine=fleet)
            first = {"name": "first", "folder": str(tmp_path)}
            assert await step.execute(first, WorkflowContext()) == "first"
            redis_server.stop()
            with pytest.raises(EngineError, match="could not be sent"):
                await step.execute(first, WorkflowContext())
            await until(lambda: "Redis is away" in worker.output)
            redis_server.start()
            again = {"name": "again", "folder": str(tmp_path)}
            call = RetryPrimitive(step, max_retries=20, max_delay=0.2)
            running = call.execute(again, WorkflowContext())
            assert await asyncio.wait_for(running, PATIENCE) == "again"


async def test_a_strange_entry_of_the_stream_ends_no_worker(redis) -> None:
    """Neither a new one, nor one that others have left too often."""
    broker = FleetBroker(
        redis.url, queue_name="strange", visibility_timeout=0.001, max_deliveries=1
    )
    await broker.startup()
    client = Redis.from_url(redis.url)
    tasks = broker.listen()
    coming = asyncio.create_task(anext(tasks))
    await client.xadd("strange", {"other": "1"})
    await client.xadd("strange", {"data": "no JSON"})
    async with asyncio.timeout(PATIENCE):
        assert (await coming).data == b"no JSON"
        broker._in_flight.clear()  # As in another worker.
        await client.xadd("strange", {"data": "{}"})
        # Whoever looks for tasks that others have left takes it out, and goes on.
        while await client.xlen("strange") > 1:
            assert await broker._left_task() is None
        assert (await anext(tasks)).data == b"{}"
    await tasks.aclose()
    await client.aclose()
    await broker.shutdown()


async def test_a_fleet_that_is_away_says_so(redis_server) -> None:
    """Opening fails at once, without the address and its password in the text."""
    redis_server.stop()
    fleet = make_fleet(redis_server.url.replace("//", "//:hidden@"))
    with pytest.raises(EngineError, match="cannot reach its broker") as caught:
        await fleet.open()
    assert "hidden" not in f"{caught.value} {fleet!r}"
