"""Async tasks on real workers: Redis and RabbitMQ, processes and threads."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from uuid import uuid4

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery.exceptions import SoftTimeLimitExceeded

from tests.integrations.celery_system import PATIENCE, System, system_of
from tests.redis_server import private_redis
from tta_primitives import WorkflowContext
from tta_primitives.integrations.celery import carrying

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FEW, MANY = 50, 1000

# Each broker with each pool; both pools are enough for every day.
SYSTEMS = [
    pytest.param(("redis", "prefork"), id="redis-prefork"),
    pytest.param(("redis", "threads"), id="redis-threads"),
    pytest.param(
        ("rabbitmq", "prefork"), id="rabbitmq-prefork", marks=pytest.mark.long
    ),
    pytest.param(
        ("rabbitmq", "threads"), id="rabbitmq-threads", marks=pytest.mark.long
    ),
]
every_system = pytest.mark.parametrize("running", SYSTEMS, indirect=True)


@pytest.fixture(scope="module")
def _started(request, tmp_path_factory):
    """Start systems when they are first asked for, and end them after the module."""
    with ExitStack() as stack:
        found = {}

        def start(broker, pool):
            if (broker, pool) not in found:
                folder = tmp_path_factory.mktemp(f"celery-{broker}-{pool}")
                server = stack.enter_context(private_redis(folder))
                url = server.url
                if broker == "rabbitmq":
                    url = request.getfixturevalue("_rabbitmq_node").url
                system = stack.enter_context(system_of(url, server, folder))
                found[broker, pool] = system, system.worker(pool)
            return found[broker, pool]

        yield start


@pytest.fixture
def running(request, _started):
    """A system and its worker, which the test leaves running."""
    return _started(*request.param)


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.long)])
def system(request, tmp_path) -> System:
    """A system without workers yet, for a test that ends them."""
    redis_server = request.getfixturevalue("redis_server")
    url = redis_server.url
    if request.param == "rabbitmq":
        url = request.getfixturevalue("rabbitmq_server").url
    with system_of(url, redis_server, tmp_path) as system:
        yield system


def _identify(system, count):
    """Publish tasks of requests, every third of none; return what they say."""
    sent = []
    for number in range(count):
        if number % 3:
            with carrying(WorkflowContext(f"request-{number}")):
                sent.append(system.send("identify", number))
        else:
            sent.append(system.send("identify", number))
    ids = [f"request-{n}" if n % 3 else sent[n].id for n in range(count)]
    wanted = [[number, own, None, own] for number, own in enumerate(ids)]
    return system.results(sent), wanted


@every_system
def test_each_task_keeps_its_own_correlation_id(running) -> None:
    """A, B and none stay A, B and none, and contextvars are those of one task."""
    system, _ = running
    got, wanted = _identify(system, FEW)
    assert got == wanted


@pytest.mark.long
@every_system
def test_a_thousand_tasks_keep_their_own_correlation_ids(running) -> None:
    """The same under load."""
    system, _ = running
    got, wanted = _identify(system, MANY)
    assert got == wanted


@every_system
def test_a_task_gets_the_context_of_its_publisher(running) -> None:
    """Trace, baggage and the remaining time travel; the key is the task's own id."""
    system, _ = running
    context = WorkflowContext("A", traceparent=TRACEPARENT, baggage={"tenant": "t 1"})
    headers = {"x-tta-remaining-seconds": "30"}
    with carrying(context):
        result = system.send("describe", headers=headers)
    told = system.results([result])[0]
    assert 25 < told.pop("remaining") <= 30
    assert told.pop("pid") != os.getpid()
    assert told == {
        "correlation_id": "A",
        "traceparent": TRACEPARENT,
        "baggage": {"tenant": "t 1"},
        "key": result.id,
        "id": result.id,
        "root": result.id,
        "parent": None,
    }


@every_system
def test_what_a_running_task_publishes_belongs_to_its_run(running) -> None:
    """Published from the loop, with `delay` and with `send`: its child in all ways."""
    system, _ = running
    with carrying(WorkflowContext("A", traceparent=TRACEPARENT)):
        result = system.send("publish", headers={"x-tta-remaining-seconds": "30"})
    own, *published = system.results([result])[0]
    for child in published:
        told = system.results([system.app.AsyncResult(child)])[0]
        assert (told["parent"], told["root"]) == (own, own)
        assert (told["correlation_id"], told["traceparent"]) == ("A", TRACEPARENT)
        assert told["key"] == told["id"] == child
        assert 20 < told["remaining"] < 30


@every_system
def test_the_tasks_of_a_chain_belong_to_one_run(running) -> None:
    """Celery publishes the next when the first has ended; it still belongs to it."""
    system, _ = running
    tasks = system.app.tasks
    chain = tasks["jobs.sync"].si() | tasks["jobs.identify"].si(1)
    with carrying(WorkflowContext("A")):
        result = chain.apply_async()
    assert system.results([result.parent, result]) == ["A", [1, "A", None, "A"]]


@every_system
def test_a_retry_of_celery_keeps_the_run_and_the_key(running) -> None:
    """`autoretry_for` works for async bodies, and the second time is the same run."""
    system, _ = running
    with carrying(WorkflowContext("A")):
        result = system.send("flaky")
    assert system.results([result]) == [[1, "A", result.id]]


@every_system
def test_an_error_of_the_body_is_the_failure_of_the_task(running) -> None:
    """The caller gets the type and the text."""
    system, _ = running
    with pytest.raises(ValueError, match="no such order"):
        system.results([system.send("fail", "no such order")])


@every_system
def test_the_soft_limit_cancels_the_workflow_which_cleans_up(running) -> None:
    """Both pools: cancelled once, cleaned up to the end, and the next task is well."""
    system, worker = running
    name = uuid4().hex
    result = system.send("endless", name, soft_time_limit=1)
    with pytest.raises(SoftTimeLimitExceeded, match="SoftTimeLimit"):
        result.get(timeout=PATIENCE)
    assert system.told(f"began:{name}", 1, worker) == ["1.0"]
    assert system.told(f"ended:{name}", 2, worker) == ["cancelled", "clean"]
    got, wanted = _identify(system, 3)
    assert got == wanted


def test_a_warm_shutdown_completes_what_runs(system) -> None:
    """SIGTERM: the task that has begun ends, the worker exits with 0."""
    worker, name = system.worker(), uuid4().hex
    result = system.send("order", {"name": name})
    system.told(f"began:{name}", 1, worker)
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    system.open(name)
    assert worker.wait(PATIENCE) == 0
    assert system.results([result]) == [{"name": name, "done": True}]


@pytest.mark.long
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_warm_shutdown_completes_what_runs_in_other_pools(system, pool) -> None:
    """The same where the loop is in the worker's own process."""
    worker, name = system.worker(pool), uuid4().hex
    result = system.send("order", {"name": name})
    system.told(f"began:{name}", 1, worker)
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    system.open(name)
    assert worker.wait(PATIENCE) == 0
    assert system.results([result]) == [{"name": name, "done": True}]


def test_a_killed_process_loses_no_task_and_repeats_its_keys(system) -> None:
    """SIGKILL of a pool process: the message goes back, with the same task id."""
    worker, name = system.worker(concurrency=1), uuid4().hex
    result = system.send("gate", name)
    first = system.told(f"began:{name}", 1, worker)[0].split()
    os.kill(int(first[0]), signal.SIGKILL)
    second = system.told(f"began:{name}", 2, worker)[1].split()
    system.open(name)
    assert system.results([result]) == [name]
    assert first[0] != second[0]
    assert first[1] == second[1] == result.id


@pytest.mark.long
def test_the_keys_inside_a_workflow_are_repeated_too(system) -> None:
    """A retry inside the workflow derives its key from the task's, also next time."""
    worker, name = system.worker(concurrency=1), uuid4().hex
    result = system.send("order", {"name": name})
    first = system.told(f"began:{name}", 1, worker)[0]
    os.kill(int(first), signal.SIGKILL)
    system.told(f"began:{name}", 2, worker)
    system.open(name)
    assert system.results([result]) == [{"name": name, "done": True}]
    # Two attempts each time: one step, one key.
    keys = system.store.lrange(f"keys:{name}", 0, -1)
    assert (len(keys), len(set(keys)), None in keys) == (4, 1, False)


def _killed_with_many(system, pool, count):
    """Kill a worker in the middle of many tasks; let another one take over."""
    first, name = system.worker(pool), uuid4().hex
    sent = [system.send("gate", name) for _ in range(count)]
    system.told(f"began:{name}", 2, first)
    first.kill()
    second = system.worker(pool)
    system.open(name, 3 * count)
    return name, sent, second


@pytest.mark.parametrize(
    "pool", ["prefork", pytest.param("threads", marks=pytest.mark.long)]
)
def test_a_killed_worker_loses_no_task_of_rabbitmq(
    rabbitmq_server, redis_server, tmp_path, pool
) -> None:
    """SIGKILL of the whole worker: the broker hands its tasks to another at once."""
    with system_of(rabbitmq_server.url, redis_server, tmp_path) as system:
        name, sent, _ = _killed_with_many(system, pool, 8)
        assert system.results(sent) == [name] * 8


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_killed_worker_loses_no_task_of_redis(redis_server, tmp_path, pool) -> None:
    """With Redis another worker takes them when the visibility timeout is over."""
    with system_of(redis_server.url, redis_server, tmp_path) as system:
        name, sent, _ = _killed_with_many(system, pool, 8)
        assert system.results(sent) == [name] * 8


@pytest.mark.long
def test_a_broker_that_restarts_loses_no_task(
    rabbitmq_server, redis_server, tmp_path
) -> None:
    """Killed with tasks in the queue and in the worker; all of them end."""
    with system_of(rabbitmq_server.url, redis_server, tmp_path) as system:
        worker, name = system.worker("threads"), uuid4().hex
        sent = [system.send("gate", name) for _ in range(6)]
        system.told(f"began:{name}", 2, worker)
        rabbitmq_server.kill()
        rabbitmq_server.start()
        system.open(name, 30)
        assert system.results(sent) == [name] * 6
        # The worker that has lost its broker is the one that goes on.
        assert worker.returncode is None
