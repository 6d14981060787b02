"""Workflows as jobs of RQ, on a real Redis, with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest
import redis
from fakeredis import FakeStrictRedis
from flask import Flask
from rq import Queue, Retry
from rq.job import JobStatus

from tta_primitives import WorkflowContext, step
from tta_primitives.integrations.flask import Tta
from tta_primitives.integrations.rq import (
    async_job,
    enqueue,
    job_context,
    job_meta,
    run_workflow,
)
from tta_primitives.runtime import loop_thread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="RQ needs fork")

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JOBS = "tests.integrations.rq_jobs"
# A fork for each job, or all of them in the process of the worker.
SIMPLE = ["-w", "rq.SimpleWorker"]
KINDS = [[], SIMPLE]


@pytest.fixture
def connection(redis_server):
    """A plain client of the test's own Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def queue(connection):
    """A queue in it."""
    return Queue("jobs", connection=connection)


@pytest.fixture
def start_worker(processes, redis_server):
    """A function that starts a worker process."""

    def start(*options):
        url = redis_server.url
        command = ["-m", "rq.cli", "worker", "-u", url, *options, "jobs"]
        settings = {"JOBS_REDIS": url, "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}
        return processes.python(*command, **settings)

    return start


def seen(connection):
    """Return what jobs have noted."""
    return [each.decode() for each in connection.lrange("seen", 0, -1)]


@pytest.mark.parametrize(
    "kind", [[], ["-w", "rq.SimpleWorker"]], ids=["fork", "simple"]
)
def test_jobs_share_a_client_and_keep_the_run_of_their_caller(
    queue, connection, start_worker, kind
):
    """In a fork for each job, and one after the other in one process."""
    jobs = [
        enqueue(
            queue,
            f"{JOBS}.{name}",
            str(number),
            context=WorkflowContext(f"run-{number}", state={"user": "ada"}),
        )
        for number in range(3)
        for name in ("remember_async", "remember_sync")
    ]
    assert start_worker("--burst", *kind).wait() == 0
    assert [job.return_value() for job in jobs] == [
        {
            "text": str(number),
            "correlation_id": f"run-{number}",
            "key": jobs[2 * number + second].id,
            "user": "ada",
        }
        for number in range(3)
        for second in range(2)
    ]
    assert seen(connection) == ["0", "0", "1", "1", "2", "2"]


def test_the_time_of_a_job_is_up(queue, connection, start_worker):
    """The coroutine is cancelled and cleans up; the worker goes on."""
    hanging = enqueue(queue, f"{JOBS}.hang", job_timeout=1)
    after = enqueue(queue, f"{JOBS}.remember_async", "after")
    assert start_worker("--burst").wait() == 0
    assert hanging.get_status() is JobStatus.FAILED
    assert "JobTimeoutException" in hanging.latest_result().exc_string
    assert seen(connection) == ["began", "cleaned", "after"]
    assert after.return_value()["text"] == "after"


@pytest.mark.parametrize(
    "kind", [[], ["-w", "rq.SimpleWorker"]], ids=["fork", "simple"]
)
def test_submitted_work_is_part_of_the_job(queue, connection, start_worker, kind):
    """A work horse ends hard, which would lose it."""
    enqueue(queue, f"{JOBS}.submit_more", "later")
    assert start_worker("--burst", *kind).wait() == 0
    assert seen(connection) == ["later"]


@pytest.mark.long
def test_a_job_that_rq_executes_again_has_the_same_key(queue, connection, start_worker):
    """What it has done already it does not do twice."""
    job = enqueue(queue, f"{JOBS}.fail_once", retry=Retry(max=1))
    assert start_worker("--burst").wait() == 0
    assert job.return_value() == job.id
    assert seen(connection) == [job.id, job.id]


@pytest.mark.parametrize(
    "kind", [[], ["-w", "rq.SimpleWorker"]], ids=["fork", "simple"]
)
def test_sigterm_lets_a_running_job_end(queue, connection, start_worker, kind):
    """The worker takes no other, and ends after it."""
    job = enqueue(queue, f"{JOBS}.wait_for_word")
    other = enqueue(queue, f"{JOBS}.remember_async", "other")
    worker = start_worker(*kind)
    worker.wait_until(lambda: seen(connection) == ["began"])
    worker.send(signal.SIGTERM)
    worker.wait_for("warm shut down")
    connection.rpush("words", "go on")
    assert worker.wait() == 0
    assert job.return_value() == "go on"
    assert other.get_status() is JobStatus.QUEUED


@pytest.mark.long
def test_a_killed_worker_loses_no_job(queue, connection, start_worker):
    """RQ gives the job back when its worker is missed, and another one does it."""
    job = enqueue(queue, f"{JOBS}.wait_for_word", retry=Retry(max=1))
    worker = start_worker()
    worker.wait_until(lambda: seen(connection) == ["began"])
    worker.kill()
    # What it has forked is the leader of a group of its own.
    os.kill(int(connection.lpop("pids")), signal.SIGKILL)
    # What a later worker finds when the heartbeat is overdue.
    queue.started_job_registry.cleanup(timestamp=2**40)
    connection.rpush("words", "again")
    assert start_worker("--burst").wait() == 0
    assert job.return_value() == "again"


@pytest.mark.long
def test_the_deadline_goes_on_in_the_queue(queue, connection, start_worker):
    """A job has what its caller has left, or its own time if that is less."""

    async def enqueue_it(seconds, **options):
        deadline = asyncio.get_running_loop().time() + seconds
        context = WorkflowContext(deadline=deadline)
        return enqueue(queue, f"{JOBS}.remaining", context=context, **options)

    jobs = [
        asyncio.run(enqueue_it(100)),
        asyncio.run(enqueue_it(100, job_timeout=20)),
        asyncio.run(enqueue_it(-1)),
    ]
    assert start_worker("--burst").wait() == 0
    first, second, third = jobs
    assert 0 < first.return_value() < 100
    assert 0 < second.return_value() <= 20
    assert "had no time left to start" in third.latest_result().exc_string


# --- in the process of the test ----------------------------------------------


@pytest.fixture
def inline():
    """A queue whose jobs are executed where they are enqueued."""
    return Queue(connection=FakeStrictRedis(), is_async=False)


@async_job
async def nap(seconds):
    """Sleep, and tell whose job it is."""
    await asyncio.sleep(seconds)
    return job_context().correlation_id


@step
async def identity(value, context):
    """Return the id of the run."""
    await asyncio.sleep(0)
    return context.correlation_id


def inner_job():
    """Enqueue another job without naming a context."""
    return enqueue(inner_job.queue, nap, 0).return_value()


def workflow_job(value):
    """Run a workflow."""
    return run_workflow(identity, value)


def test_a_job_in_virtual_time(tta, inline):
    """Tests need neither a server nor a worker."""
    job = enqueue(inline, nap, 3600, context=WorkflowContext("mine"), job_timeout=7200)
    assert (job.return_value(), tta.elapsed) == ("mine", 3600.0)


def test_the_limit_of_a_job_in_virtual_time(tta, inline):
    """Without a worker the work is cancelled a second after its time."""
    job = enqueue(inline, nap, 3600, job_timeout=10)
    assert "nap took longer than 11 s" in job.latest_result().exc_string
    assert tta.elapsed == 11.0


async def test_a_job_inside_a_running_loop(tta, inline):
    """`is_async=False` works in async code: it blocks, as everything sync does."""
    assert enqueue(inline, nap, 5).return_value()
    assert tta.elapsed == 5.0


def test_a_job_on_the_loop_thread_itself(inline):
    """An async view may execute a job on the spot."""

    async def view():
        return enqueue(inline, nap, 0, context=WorkflowContext("view")).return_value()

    assert loop_thread().run(view()) == "view"


def test_a_job_of_a_job_belongs_to_its_run(inline):
    """The id goes on without being named."""
    inner_job.queue = inline
    job = enqueue(inline, inner_job, context=WorkflowContext("outer"))
    assert job.return_value() == "outer"


def test_a_job_of_a_request_belongs_to_its_run(inline):
    """A view of Flask enqueues with the id of its request."""
    app = Flask("shop")
    app.testing = True
    Tta(app)
    app.add_url_rule("/", view_func=lambda: enqueue(inline, nap, 0).return_value())
    answer = app.test_client().get("/", headers={"x-correlation-id": "request-1"})
    assert answer.text == "request-1"


def test_a_plain_job_has_its_own_id(inline):
    """Also one that was enqueued without us."""
    job = inline.enqueue(workflow_job, 1)
    assert job.return_value() == job.id


def test_meta_data_carries_the_run(inline):
    """For the other ways to enqueue; what the caller has there stays."""
    context = WorkflowContext("run-1", traceparent=TRACE, tags={"tenant": "blue"})
    job = enqueue(inline, nap, 0, context=context, meta={"mine": 1})
    assert job.meta["mine"] == 1
    assert job.meta == {"mine": 1, **job_meta(context)}
    carried = job.meta["tta"]
    assert (carried["correlation_id"], carried["traceparent"]) == ("run-1", TRACE)
    assert carried["tags"] == {"tenant": "blue"}
    assert job_meta() == {}


def test_a_function_that_is_not_async_is_refused():
    """There is nothing to run on a loop."""
    with pytest.raises(TypeError, match="needs an `async def` function, not <function"):
        async_job(inner_job)


async def test_the_function_itself_can_be_awaited(tta):
    """A unit test needs no RQ at all."""
    assert len(await nap.__wrapped__(1)) == 32
    assert tta.elapsed == 1.0
