"""What crosses between callers and workers, and what is refused."""

from __future__ import annotations

import asyncio
import json

import pytest

from pytest_tta import S
from tta_primitives import MapPrimitive, ParallelPrimitive, WorkflowContext, step
from tta_primitives.distributed import (
    EngineClosedError,
    InlineEngine,
    Registry,
    RemoteCancelledError,
    RemoteDataError,
    RemoteError,
    RemoteReply,
    RemoteTask,
    RemoteValueError,
    TypeCodec,
    UnknownWorkflowError,
    Worker,
    perform,
    register_errors,
    remote,
)
from tta_primitives.distributed.failures import error_from, failure_of
from tta_primitives.errors import (
    CircuitOpenError,
    FallbackExhaustedError,
    RetryResultError,
    TimeoutExceededError,
)
from tta_primitives.recovery import CircuitBreakerPrimitive, RetryPrimitive
from tta_primitives.recovery.classify import is_retryable

TASK = RemoteTask(call_id="c", workflow="w", path="w/x", value=[1], context={})


# Tasks and replies are data.


def test_a_task_comes_back_as_it_was() -> None:
    """Its JSON has a kind and a version, and its repr shows no value."""
    data = json.loads(TASK.to_json())
    assert (data["tta"], data["version"]) == ("task", 1)
    assert RemoteTask.from_json(TASK.to_json()) == TASK
    secret = RemoteTask(call_id="c", workflow="w", path="w", value="sk-secret")
    assert "secret" not in repr(secret)


def test_what_a_later_version_adds_is_ignored() -> None:
    """A field that is unknown does not stop a worker."""
    assert RemoteTask.from_dict({**TASK.to_dict(), "priority": 3}) == TASK


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tta": "reply"}, "is no task of tta_primitives"),
        ({"version": 2}, "of version 2, and version 1 is read here"),
        ({"version": None}, "of version None"),
        ({"call_id": 7}, "its 'call_id' is 7"),
        ({"path": None}, "its 'path' is None"),
        ({"value": {1}}, "holds something that is no JSON"),
        ({"context": [1]}, "its context is list"),
        ({"context": {"correlation_id": 7}}, "context's 'correlation_id' is no"),
        ({"context": {"baggage": {"a": 1}}}, "'baggage' holds more than texts"),
        ({"context": {"state": [1]}}, "context's 'state' is no"),
        ({"context": {"remaining_seconds": "soon"}}, "'remaining_seconds' is no"),
    ],
)
def test_a_malformed_task_is_refused(change, match) -> None:
    """The error says what is wrong, whoever has written it."""
    with pytest.raises(RemoteDataError, match=match):
        RemoteTask.from_dict({**TASK.to_dict(), **change})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', "\x80", "[" * 100_000])
def test_foreign_text_is_refused(text) -> None:
    """Nothing but an error comes of it."""
    with pytest.raises(RemoteDataError, match=r"task"):
        RemoteTask.from_json(text)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"status": "done"}, "its status is 'done'"),
        ({"status": "failed"}, "it is no success, and has no error"),
        ({"state": 3}, "its 'state' is no object"),
    ],
)
def test_a_malformed_reply_is_refused(change, match) -> None:
    """A caller does not take anything for an answer."""
    reply = RemoteReply(call_id="c", status="ok")
    with pytest.raises(RemoteDataError, match=match):
        RemoteReply.from_dict({**reply.to_dict(), **change})


# Errors.


class Stranger(Exception):
    """An error that is known nowhere."""


@register_errors
class Declined(Exception):
    """An error with a constructor of its own."""

    def __init__(self, order: object, *, code: int) -> None:
        raise AssertionError("the constructor is not called by what arrives")


def again(error: Exception) -> Exception:
    """Return what a caller raises for an error of a worker."""
    return error_from(json.loads(json.dumps(failure_of(error, "w/x"))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("a"),
        OSError(2, "No such file"),
        FileNotFoundError(2, "No such file", "page.md"),
        TimeoutExceededError("late", timeout_seconds=3.0),
        CircuitOpenError("open", retry_after=2.5),
        RetryResultError("none", last_result={"a": 1}),
    ],
)
def test_a_known_error_is_itself(error) -> None:
    """Type, arguments and attributes come back, with a note of the place."""
    got = again(error)
    assert type(got) is type(error)
    assert (got.args, str(got)) == (error.args, str(error))
    attributes = {k: v for k, v in vars(got).items() if k != "__notes__"}
    assert attributes == vars(error)
    assert got.__notes__ == ["raised on a worker, in w/x"]


def test_a_registered_error_is_made_without_its_constructor() -> None:
    """What an argument cannot tell as JSON becomes its text."""
    error = Declined.__new__(Declined, object())
    error.code = 7
    got = again(error)
    assert (type(got), got.code, len(got.args)) == (Declined, 7, 1)


def test_an_unknown_error_tells_no_attributes() -> None:
    """It may hold anything, for instance headers with a key."""
    error = Stranger("odd")
    error.headers = {"authorization": "sk-secret", "retry-after": "4"}
    assert "secret" not in json.dumps(failure_of(error, "w"))
    got = again(error)
    assert type(got) is RemoteError
    assert (got.message, got.path, got.retry_after) == ("odd", "w/x", 4.0)
    assert got.type == f"{__name__}.Stranger"


def test_a_worker_says_whether_a_retry_makes_sense() -> None:
    """What it knows of the HTTP answer is not lost with it."""
    error = Stranger("bad request")
    error.status_code = 400
    assert not is_retryable(again(error))
    assert is_retryable(again(Stranger("who knows")))


def test_a_syntax_error_keeps_its_text() -> None:
    """Models answer with code that cannot be read; the caller learns why."""
    with pytest.raises(SyntaxError, match="was never closed") as caught:
        compile("(", "answer", "eval")
    raised = again(caught.value)
    assert type(raised) is SyntaxError
    assert str(raised) == str(caught.value)


def test_an_error_that_cannot_be_asked_is_told_all_the_same() -> None:
    """Without a reply the task would be delivered again and again."""

    class Broken(Exception):
        __notes__ = None

        @property
        def retry_after(self):
            """Fail."""
            raise RuntimeError

    raised = again(Broken("no"))
    assert isinstance(raised, RemoteError)
    assert raised.message == "no"
    assert raised.retry_after is None


def test_groups_are_groups() -> None:
    """Each of their errors is told by itself."""
    error = FallbackExhaustedError("all", [ValueError("a"), Stranger("b")])
    got = again(error)
    assert type(got) is FallbackExhaustedError
    assert [type(one) for one in got.exceptions] == [ValueError, RemoteError]


def test_what_arrives_names_no_other_types() -> None:
    """A name that is not known is never looked up elsewhere."""
    for name in ("os.system", "subprocess.Popen", "builtins.eval", "SystemExit"):
        got = error_from({"type": name, "message": "x", "args": ["id"], "path": "w"})
        assert type(got) is RemoteError


def test_only_errors_can_be_registered() -> None:
    """A mistake shows where it is made."""
    with pytest.raises(TypeError, match="must be given subclasses of Exception"):
        register_errors(int)


# Registry.


@step
async def fetch(name: str) -> str:
    """Return it."""
    return name


@step
async def shout(name: str) -> str:
    """Return it in capitals."""
    return name.upper()


def test_names_belong_to_one_workflow() -> None:
    """Two workflows of one name would be a lottery."""
    registry = Registry(fetch)
    registry.register(fetch)
    with pytest.raises(ValueError, match="name='fetch' is registered for"):
        registry.register(shout, name="fetch")


def test_positions_have_paths() -> None:
    """They begin with the name under which the workflow is registered."""
    registry = Registry()
    registry.register(RetryPrimitive(fetch) >> shout >> shout, name="greet")
    assert registry.paths() == (
        "greet",
        "greet/retry",
        "greet/retry/fetch",
        "greet/shout",
        "greet/shout#2",
    )
    with pytest.raises(UnknownWorkflowError, match="did you mean 'greet/shout'"):
        registry.find("greet", "greet/shuot")
    with pytest.raises(
        UnknownWorkflowError, match=r"no workflow 'x' .*there is 'greet'"
    ):
        registry.find("x", "x")


# Remote steps.


async def test_a_position_of_a_workflow_is_called(tta) -> None:
    """The path stands in the place of the step, on the worker too."""
    registry = Registry()
    registry.register(RetryPrimitive(fetch) >> shout, name="greet")
    engine = InlineEngine(registry)
    one = remote(shout, engine=engine, name="greet/shout")
    assert await one.execute("ada", WorkflowContext()) == "ADA"
    caller, worker = tta.trace.roots
    assert (caller.path, worker.path) == ("shout", "greet/shout")


async def test_a_breaker_stands_around_it(tta) -> None:
    """Failures on workers open it, and then nothing is sent."""

    @step
    async def fail(_: None) -> None:
        raise ConnectionError("gone")

    calls = remote(fail, engine=InlineEngine(fail))
    breaker = CircuitBreakerPrimitive(calls, failure_threshold=2)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="gone"):
            await breaker.execute(None, WorkflowContext())
    with pytest.raises(CircuitOpenError, match="open"):
        await breaker.execute(None, WorkflowContext())
    assert len(tta.trace.spans_at("/fail")) == 2


async def test_a_step_that_cancels_itself_is_a_failure(tta) -> None:
    """A cancellation that nobody asked for would be lost in a group."""

    @step
    async def give_up(_: None) -> None:
        raise asyncio.CancelledError

    call = remote(give_up, engine=InlineEngine(give_up))
    with pytest.raises(RemoteCancelledError, match="'give_up' was cancelled"):
        await call.execute(None, WorkflowContext())


async def test_a_sibling_that_fails_cancels_the_work(tta) -> None:
    """In a parallel, the worker is told as a local branch would be."""
    ended = []

    @step
    async def slow(_: None) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append(asyncio.get_running_loop().time())
            raise

    @step
    async def fail(_: None) -> None:
        await asyncio.sleep(1)
        raise ConnectionError("gone")

    engine = InlineEngine(slow, fail)
    both = ParallelPrimitive(remote(slow, engine=engine), remote(fail, engine=engine))
    with pytest.raises(ConnectionError, match="gone"):
        await both.execute(None, WorkflowContext())
    assert tta.elapsed == 1
    assert len(ended) == 1


async def test_items_of_a_map_have_keys_of_their_own(tta) -> None:
    """An order's key becomes one for each of its items, as in a local map."""

    @step
    async def key(_: int, context: WorkflowContext) -> str | None:
        return context.idempotency_key

    work = MapPrimitive(remote(key, engine=InlineEngine(key)))
    local = MapPrimitive(key)
    context = WorkflowContext(idempotency_key="order-17")
    assert await work.execute([1, 2], context) == ["order-17[0]", "order-17[1]"]
    assert await local.execute([1, 2], context) == ["order-17[0]", "order-17[1]"]
    retried = RetryPrimitive(remote(key, engine=InlineEngine(key)))
    first = await retried.execute(1, WorkflowContext())
    second = await retried.execute(1, WorkflowContext())
    assert first != second


async def test_steps_of_a_remote_workflow_have_keys_of_their_own(tta) -> None:
    """They are the same when the call is delivered once more."""
    keys = []

    @step
    async def debit(value: int, context: WorkflowContext) -> int:
        keys.append(context.idempotency_key)
        return value

    @step
    async def credit(value: int, context: WorkflowContext) -> int:
        keys.append(context.idempotency_key)
        return value

    registry = Registry((debit >> credit).named("move"))
    context = {"idempotency_key": "k", "key_is_shared": False}
    task = a_task(workflow="move", path="move", value=1, context=context)
    for _ in range(2):
        assert (await perform(task, registry)).status == "ok"
    assert len(set(keys)) == 2
    assert keys[:2] == keys[2:]


async def test_state_that_is_no_json_is_named(tta) -> None:
    """The message says where live objects belong."""
    call = remote(fetch, engine=InlineEngine(fetch))
    context = WorkflowContext(state={"session": object()})
    with pytest.raises(RemoteValueError, match=r"context.deps.*value\['session'\]"):
        await call.execute("ada", context)


async def test_types_travel_by_a_codec(tta) -> None:
    """Dataclasses, dates and tuples go out and come back."""
    from datetime import date

    @step
    async def later(day: date) -> tuple[date, int]:
        return day.replace(year=day.year + 1), 1

    registry = Registry()
    codec = TypeCodec(date, tuple[date, int])
    registry.register(later, codec=codec)
    call = remote(later, engine=InlineEngine(registry), codec=codec)
    got = await call.execute(date(2031, 5, 1), WorkflowContext())
    assert got == (date(2032, 5, 1), 1)


async def test_it_shows_in_the_trace(tta) -> None:
    """The call is a span with its events, and describes itself."""
    call = remote(fetch, engine=InlineEngine(fetch), timeout_seconds=5)
    await call.execute("ada", WorkflowContext())
    caller = tta.trace.roots[0]
    assert caller == S("fetch", kind="RemotePrimitive", output="ada")
    assert caller.event_names == ["remote.sent", "remote.replied"]
    assert repr(call) == (
        "<RemotePrimitive 'fetch' on='InlineEngine' path='fetch' timeout_seconds=5.0>"
    )
    assert call.describe()["children"] == [fetch.describe()]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"engine": object()}, TypeError, "engine=.* must be an Engine"),
        ({"name": "a//b"}, ValueError, "name='a//b' must be the name"),
        ({"timeout_seconds": 0}, ValueError, "timeout_seconds=0 must be"),
        ({"carry_state": 1}, TypeError, "carry_state=1 must be True or False"),
    ],
)
def test_arguments_are_checked(given, error, match) -> None:
    """A mistake names the argument and what is allowed."""
    with pytest.raises(error, match=match):
        remote(fetch, **{"engine": InlineEngine(fetch), **given})


# Workers.


def counting():
    """Return a step that counts how often it began, and a registry with it."""
    began = []

    @step
    async def work(value: str) -> str:
        began.append(value)
        await asyncio.sleep(1)
        return value.upper()

    return began, Registry(work)


def a_task(**changes) -> RemoteTask:
    fields = {"call_id": "c", "workflow": "work", "path": "work", "value": "a"}
    return RemoteTask(**{**fields, **changes})


async def test_a_duplicate_joins_what_is_running(tta) -> None:
    """One call is executed once, and each delivery is answered."""
    began, registry = counting()
    worker = Worker(registry)
    replies = await asyncio.gather(*(worker.perform(a_task()) for _ in range(3)))
    assert [reply.value for reply in replies] == ["A"] * 3
    assert (await worker.perform(a_task())).value == "A"
    assert began == ["a"]
    assert worker.running == 0


async def test_a_worker_remembers_no_more_than_it_was_told(tta) -> None:
    """Memory is bounded; what was forgotten is executed again."""
    began, registry = counting()
    worker = Worker(registry, remembered=1)
    for call_id in ("1", "2", "1"):
        await worker.perform(a_task(call_id=call_id))
    assert began == ["a"] * 3


async def test_one_delivery_that_leaves_does_not_end_the_others(tta) -> None:
    """Only the last to leave cancels the work."""
    began, registry = counting()
    worker = Worker(registry)
    first = asyncio.ensure_future(worker.perform(a_task()))
    second = asyncio.ensure_future(worker.perform(a_task()))
    await asyncio.sleep(0.5)
    first.cancel()
    assert (await second).value == "A"
    third = asyncio.ensure_future(worker.perform(a_task(call_id="3")))
    await asyncio.sleep(0.5)
    third.cancel()
    await asyncio.wait((first, third))
    assert worker.running == 0
    assert began == ["a", "a"]


async def test_a_call_can_be_cancelled_before_it_comes(tta) -> None:
    """It is not begun, and its delivery is answered."""
    began, registry = counting()
    worker = Worker(registry)
    assert not worker.cancel("c")
    assert (await worker.perform(a_task())).status == "cancelled"
    assert began == []


async def test_a_closed_worker_gives_its_tasks_back(tta) -> None:
    """They count as never answered, so that another delivery performs them."""
    began, registry = counting()
    worker = Worker(registry)
    running = asyncio.ensure_future(worker.perform(a_task()))
    await asyncio.sleep(0.5)
    await worker.close()
    with pytest.raises(EngineClosedError, match="closed while it performed 'work'"):
        await running
    assert (await worker.perform(a_task())).value == "A"
    assert began == ["a", "a"]


async def test_a_reply_is_told_from_a_broken_state(tta) -> None:
    """A step that leaves a live object in the state fails, and says so."""

    @step
    async def spoil(_: None, context: WorkflowContext) -> None:
        context.state["client"] = object()

    call = remote(spoil, engine=InlineEngine(spoil))
    with pytest.raises(RemoteValueError, match="as the step has left it"):
        await call.execute(None, WorkflowContext())
