"""Async tasks without a broker: bodies, contexts, headers, limits, pools."""

from __future__ import annotations

import asyncio
import sys

import pytest

pytest.importorskip("celery")

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import (
    before_task_publish,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)
from kombu.utils import compat

from tta_primitives import WorkflowContext, step
from tta_primitives.integrations import celery as ours
from tta_primitives.integrations.celery import (
    AsyncTask,
    carrying,
    message_headers,
    send,
    workflow_task,
)
from tta_primitives.integrations.celery_messages import REMAINING_HEADER
from tta_primitives.runtime import loop_thread

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FOREVER = 3600.0


class App(Celery):
    """An app whose tasks are not those of all other apps, too."""

    def task(self, *args, **options):
        return super().task(*args, **{"shared": False, **options})


@pytest.fixture
def app():
    """An app whose tasks are executed where they are called."""
    app = App(
        "eager", broker="memory://", backend="cache+memory://", task_cls=AsyncTask
    )
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield app
    app.close()


class Worker:
    """As much of a worker as its signals tell of."""

    def __init__(self, app):
        self.app = app


@pytest.fixture
def published(app):
    """What `apply_async` hands to a broker: the headers of each message."""
    found = []
    app.conf.task_always_eager = False

    def note(headers=None, **_):
        found.append(headers)

    before_task_publish.connect(note, weak=False)
    yield found
    before_task_publish.disconnect(note)


@pytest.fixture
def identify(app):
    """A task that tells who it is."""

    @app.task(name="identify", bind=True)
    async def identify(self, context: WorkflowContext):
        await asyncio.sleep(0)
        return context.correlation_id, context.idempotency_key, self.request.id

    return identify


def test_an_async_body_is_run_to_its_end(app) -> None:
    """What `@app.task async def` alone never does: the caller gets the value."""

    @app.task
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    assert double.delay(21).get() == 42
    assert double(21) == 42


def test_all_tasks_of_a_process_run_on_one_loop(app) -> None:
    """So that clients and pools live from task to task."""

    @app.task(serializer="json")
    async def which():
        return id(asyncio.get_running_loop())

    assert len({which.delay().get() for _ in range(3)}) == 1


def test_an_eager_task_works_inside_a_running_loop(app) -> None:
    """Where a kept loop says that another loop is running."""

    @app.task
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    async def main():
        """Call it from async code, as a test of a view does."""
        return double.delay(21).get()

    assert asyncio.run(main()) == 42


def test_the_task_id_is_the_correlation_id_and_the_key(identify) -> None:
    """Where the message names none; the key is the id in any case."""
    result = identify.delay()
    assert result.get() == (result.id, result.id, result.id)
    result = identify.apply_async(headers={"x-correlation-id": "A"})
    assert result.get() == ("A", result.id, result.id)


def test_a_context_does_not_stay_for_the_next_task(identify) -> None:
    """A, B, None stays A, B, None, eagerly, too."""
    for name in ("A", "B"):
        with carrying(WorkflowContext(name)):
            assert identify.delay().get()[0] == name
    result = identify.delay()
    assert result.get()[0] == result.id


def test_the_context_is_no_argument_of_the_task(app) -> None:
    """Wherever it stands among the parameters, with and without `bind`."""

    @app.task
    async def first(context: WorkflowContext, a, b=2):
        return [a, b, context.correlation_id]

    @app.task(bind=True)
    async def middle(self, a, context: "WorkflowContext", b=2):  # noqa: UP037 - as users may
        return [a, b, context.correlation_id]

    @app.task
    async def last(a, *, b=2, context: WorkflowContext):
        return [a, b, context.correlation_id]

    for task in (first, middle, last):
        with carrying(WorkflowContext("A")):
            assert task.delay(1).get() == [1, 2, "A"]
            assert task.delay(a=1, b=3).get() == [1, 3, "A"]
        with pytest.raises(TypeError, match="missing 1 required positional"):
            task.delay()
        with pytest.raises(TypeError, match=r"takes|unexpected"):
            task.delay(1, b=2, context=3)
    with carrying(WorkflowContext("A")):
        assert middle.delay(1, 3).get() == [1, 3, "A"]


def test_a_parameter_that_is_only_called_context_is_the_callers(app) -> None:
    """Tasks take whatever arguments they like; the annotation tells."""

    @app.task
    async def keep(context):
        return context

    assert keep.delay("mine").get() == "mine"


def test_a_class_can_be_a_task(app) -> None:
    """With `async def run`, as old tasks are written."""

    class Double(AsyncTask):
        name = "double"

        async def run(self, number, context: WorkflowContext):
            return [2 * number, context.correlation_id, self.request.id]

    task = app.register_task(Double())
    result = task.delay(21)
    assert result.get() == [42, result.id, result.id]


def test_a_body_that_is_not_async_is_called_as_ever(app) -> None:
    """And gets the context as well, if it wants it."""

    @app.task
    def plain(number, context: WorkflowContext):
        return [number, context.correlation_id]

    with carrying(WorkflowContext("A")):
        assert plain.delay(1).get() == [1, "A"]
    assert not plain.is_async


def test_a_body_that_yields_is_refused_when_it_is_made(app) -> None:
    """Celery has no streams."""

    async def numbers():
        yield 1

    with pytest.raises(TypeError, match="task 'numbers' yields"):
        app.task(numbers, name="numbers", lazy=False)


def test_pydantic_models_are_dumped_for_async_bodies_too(app) -> None:
    """Celery's own `pydantic=True` validates arguments and dumps results."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Order", number=(int, ...))

    async def grow(order, context: WorkflowContext):
        return model(number=order.number + 1)

    grow.__annotations__ = {"order": model, "return": model}
    grow.__annotations__["context"] = WorkflowContext
    task = app.task(grow, pydantic=True, name="grow")
    assert task.delay({"number": 1}).get() == {"number": 2}


def test_an_error_of_the_body_reaches_the_caller(app) -> None:
    """Its own, not that of a loop or a thread."""

    @app.task
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("order")

    with pytest.raises(KeyError, match="order"):
        fail.delay().get()


def test_work_that_is_cancelled_from_within_is_a_failure(app) -> None:
    """Not the end of the worker, which a CancelledError would be."""

    @app.task(name="give_up")
    async def give_up():
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="work of task 'give_up' was cancelled"):
        give_up.delay().get()


def test_a_task_that_is_called_inside_another_says_what_to_write(app) -> None:
    """The loop would wait for itself; `call` and `send` do not."""

    @app.task(name="inner")
    async def inner(number):
        return number

    @app.task
    async def wrong():
        return inner(1)

    @app.task
    async def right(context: WorkflowContext):
        sent = await send(inner.s(2))
        return [await inner.call(context, 1), sent.status]

    message = r"task 'inner' was called .* `await send"
    with pytest.raises(RuntimeError, match=message):
        wrong.delay().get()
    assert right.delay().get() == [1, "SUCCESS"]


def test_the_soft_limit_holds_where_celery_has_none(tta, app) -> None:
    """In threads, solo and eagerly: cancelled, cleaned up, SoftTimeLimitExceeded."""
    told = []

    @app.task(soft_time_limit=FOREVER)
    async def endless(context: WorkflowContext):
        told.append(0 < context.remaining() <= FOREVER)
        try:
            await asyncio.sleep(10 * FOREVER)
        finally:
            await asyncio.sleep(0)
            told.append("clean")

    with pytest.raises(SoftTimeLimitExceeded, match="SoftTimeLimit"):
        endless.delay().get()
    assert told == [True, "clean"]


def test_a_timeout_of_the_body_stays_its_own(app) -> None:
    """A TimeoutError before the limit is no soft limit."""

    @app.task(soft_time_limit=FOREVER)
    async def fail():
        raise TimeoutError("of the database")

    with pytest.raises(TimeoutError, match="of the database"):
        fail.delay().get()


def test_the_deadline_arrives_as_remaining_seconds(app) -> None:
    """On the clock of the loop that executes; nonsense is no deadline."""

    @app.task
    async def remaining(context: WorkflowContext):
        return context.remaining()

    for given in ("30", "1e1"):
        result = remaining.apply_async(headers={REMAINING_HEADER: given})
        assert float(given) - 5 < result.get() <= float(given)
    for nonsense in ("soon", "nan", "-1", ""):
        result = remaining.apply_async(headers={REMAINING_HEADER: nonsense})
        assert result.get() is None


def test_hours_of_a_task_take_no_time_in_a_test(tta, app) -> None:
    """The loop of the tasks has the virtual time of the test, soft limits included."""

    @app.task(soft_time_limit=2 * FOREVER)
    async def wait(seconds):
        await asyncio.sleep(seconds)
        return seconds

    assert wait.delay(FOREVER).get() == FOREVER
    with pytest.raises(SoftTimeLimitExceeded, match="7200"):
        wait.delay(3 * FOREVER).get()


async def test_the_body_can_be_awaited_by_a_test() -> None:
    """In the test's own loop, so that its time is virtual under `--tta`."""
    app = App("call", task_cls=AsyncTask)

    @app.task(bind=True)
    async def wait(self, number, context: WorkflowContext):
        return [number, context.correlation_id, asyncio.get_running_loop()]

    @app.task
    def plain(number):
        return number

    told = await wait.call(WorkflowContext("A"), 1)
    assert told == [1, "A", asyncio.get_running_loop()]
    assert await plain.call(WorkflowContext(), 2) == 2


def test_a_message_carries_the_context(published, identify) -> None:
    """Correlation id, trace and baggage; nothing outside, and nothing afterwards."""
    context = WorkflowContext("A", traceparent=TRACEPARENT, baggage={"tenant": "t 1"})
    with carrying(context):
        identify.delay()
    identify.delay()
    carried, plain = published
    assert carried["x-correlation-id"] == "A"
    assert carried["traceparent"] == TRACEPARENT
    assert carried["baggage"] == "tenant=t%201"
    assert REMAINING_HEADER not in carried
    assert not {"x-correlation-id", "traceparent", "baggage"} & set(plain)


def test_headers_of_the_publishers_own_come_first(published, identify) -> None:
    """Whoever names another run means another run."""
    with carrying(WorkflowContext("A", traceparent=TRACEPARENT)):
        identify.apply_async(headers={"X-Correlation-ID": "B"})
    assert published[0]["X-Correlation-ID"] == "B"
    assert not {"x-correlation-id", "traceparent"} & set(published[0])


async def test_send_carries_the_deadline_and_leaves_the_loop_free(
    published, identify
) -> None:
    """From FastAPI, for instance: the loop goes on while the broker is asked."""
    now = asyncio.get_running_loop().time()
    threads = []

    def note(**_):
        """Tell whether a loop runs in the thread that publishes."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            threads.append("elsewhere")

    before_task_publish.connect(note, weak=False)
    try:
        context = WorkflowContext("A", deadline=now + 30)
        await send(identify.s(), context=context, expires=60)
        await send(identify.s())
    finally:
        before_task_publish.disconnect(note)
    headers = published[0]
    assert threads == ["elsewhere", "elsewhere"]
    assert headers["x-correlation-id"] == "A"
    assert 25 < float(headers[REMAINING_HEADER]) <= 30
    assert headers["expires"] is not None


def test_what_is_published_afterwards_has_the_rest_of_the_time(
    published, app, identify
) -> None:
    """The next of a chain, for instance: Celery publishes it where no loop runs."""

    class Chained(AsyncTask):
        name = "chained"

        async def run(self):
            await asyncio.sleep(0)

        def on_success(self, retval, task_id, args, kwargs):
            identify.delay()

    task = app.register_task(Chained())
    task.apply(headers={"x-correlation-id": "A", REMAINING_HEADER: "30"})
    assert published[0]["x-correlation-id"] == "A"
    assert 25 < float(published[0][REMAINING_HEADER]) < 30


async def test_the_shorter_of_two_deadlines_is_carried(published, identify) -> None:
    """One in the message cannot become longer by way of a context."""
    now = asyncio.get_running_loop().time()
    with carrying(WorkflowContext(deadline=now + 30)):
        identify.apply_async(headers={REMAINING_HEADER: "10"})
        identify.apply_async(headers={REMAINING_HEADER: "100"})
    told = [float(headers[REMAINING_HEADER]) for headers in published]
    assert told[0] == 10
    assert 25 < told[1] <= 30


async def test_headers_can_be_given_by_hand() -> None:
    """For a publisher that has nothing but the name of a task."""
    now = asyncio.get_running_loop().time()
    headers = message_headers(WorkflowContext("A", deadline=now + 30))
    assert headers["x-correlation-id"] == "A"
    assert 25 < float(headers[REMAINING_HEADER]) <= 30


def test_secrets_of_the_context_do_not_travel(published, identify) -> None:
    """Only ids, trace and baggage; never state, tags, metadata or deps."""
    secret = "s3cret"
    context = WorkflowContext(
        "A", tags={"t": secret}, state={"s": secret}, metadata={"m": secret}
    )
    context.deps = {"d": secret}
    with carrying(context):
        identify.delay()
    assert secret not in repr(published)


@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_a_worker_with_green_threads_is_refused(app, monkeypatch, name) -> None:
    """When it starts if it has async tasks, and at the task in any case."""
    monkeypatch.setattr(compat, "_environment", name)

    @app.task(name="wait")
    async def wait():
        return 1

    message = f"task 'wait' is async and cannot run in a worker of {name}"
    with pytest.raises(RuntimeError, match=message):
        wait.delay().get()
    with pytest.raises(SystemExit, match=message):
        worker_init.send(sender=Worker(app))


def test_a_worker_with_green_threads_may_have_plain_tasks(app, monkeypatch) -> None:
    """What needs no loop works there as ever."""
    monkeypatch.setattr(compat, "_environment", "gevent")

    @app.task
    def plain():
        return 1

    assert plain.delay().get() == 1
    worker_init.send(sender=Worker(app))


def test_the_loop_is_closed_after_what_users_do_at_the_end() -> None:
    """Their receivers still have the loop, whichever was connected first."""
    order = []

    def close_clients(**_):
        order.append(loop_thread().run(_name()))

    async def _name():
        return "users"

    worker_process_init.send(sender="test")
    worker_process_shutdown.connect(close_clients, weak=False)
    try:
        worker_process_init.send(sender="test")
        worker_process_shutdown.send(sender="test")
    finally:
        for signal in (worker_process_shutdown, worker_shutdown):
            signal.disconnect(ours._close_loop)
        worker_process_shutdown.disconnect(close_clients)
    assert order == ["users"]
    assert not loop_thread().is_running


def test_a_workflow_becomes_a_task_that_loses_nothing(app) -> None:
    """One line, with late acknowledgement and a hard limit after the soft one."""

    async def total(order, context: WorkflowContext):
        return [sum(order["prices"]), context.correlation_id, context.idempotency_key]

    workflow = step(lambda order: order) >> step(total)
    task = workflow_task(app, workflow, name="orders.total", soft_time_limit=10)
    result = task.delay({"prices": [1, 2]})
    assert result.get() == [3, result.id, result.id]
    assert (task.name, task.acks_late) == ("orders.total", True)
    assert task.reject_on_worker_lost
    assert (task.soft_time_limit, task.time_limit) == (10, 40)
    assert app.tasks["orders.total"].name == task.name


def test_the_options_of_a_workflow_task_can_be_changed(app) -> None:
    """Whatever `app.task` takes."""
    task = workflow_task(
        app, step(lambda value: value), name="x", acks_late=False, time_limit=99
    )
    assert (task.acks_late, task.time_limit, task.soft_time_limit) == (False, 99, None)


def test_what_is_no_workflow_is_refused(app) -> None:
    """With what to give instead."""
    with pytest.raises(TypeError, match="cannot be a step of a workflow"):
        workflow_task(app, 3, name="x")
    with pytest.raises(TypeError, match=r"name='' must be a text, for instance"):
        workflow_task(app, step(lambda value: value), name="")
    with pytest.raises(ValueError, match=r"soft_time_limit=0"):
        workflow_task(app, step(lambda value: value), name="x", soft_time_limit=0)


def test_without_celery_the_extra_is_named(monkeypatch) -> None:
    """In one sentence that can be pasted."""
    monkeypatch.setitem(sys.modules, "celery", None)
    monkeypatch.setitem(sys.modules, "celery.signals", None)
    name = "tta_primitives.integrations.celery_messages"
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"tta-dev-primitives\[celery\]"):
        __import__(name)
