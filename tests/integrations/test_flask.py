"""Workflows in Flask: contexts, limits, errors, probes and async views."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from flask import Blueprint, Flask, current_app, g, jsonify, request

from pytest_tta import Harness
from tta_primitives import WorkflowContext, step
from tta_primitives.door import current_context
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.integrations.flask import (
    Tta,
    post_worker_init,
    request_context,
    run_workflow,
)
from tta_primitives.integrations.pydantic import validate
from tta_primitives.recovery import TimeoutPrimitive
from tta_primitives.runtime import Lifecycle, LoopThread, loop_thread

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@step
async def show(value, context):
    """Return what a step sees of the request."""
    await asyncio.sleep(0)
    return {
        "value": value,
        "path": request.path,
        "user": g.user,
        "app": current_app.name,
        "thread": threading.current_thread().name,
        "correlation_id": context.correlation_id,
        "traceparent": context.traceparent,
        "baggage": context.baggage,
        "is_current": current_context().correlation_id == context.correlation_id,
    }


@step
async def nap(seconds):
    """Sleep."""
    await asyncio.sleep(seconds)
    return seconds


@pytest.fixture
def loop():
    """A loop thread of the test's own."""
    own = LoopThread(name="flask-loop")
    yield own
    own.close(0)


@pytest.fixture
def app(loop):
    """An application without the extension."""
    flask = Flask("shop")
    flask.testing = True
    return flask


def serve(app, loop, function, **options):
    """Give an app the extension and one view, and return both ends of it."""
    tta = Tta(app, loop=loop, **options)
    app.add_url_rule("/", view_func=function, methods=["GET", "POST"])
    return tta, app.test_client()


def test_a_workflow_sees_the_request(app, loop):
    """The contexts of Flask, and that of the workflow, are there on the loop."""

    def view():
        g.user = "ada"
        return jsonify(tta.run_workflow(show, request.get_json()))

    tta, client = serve(app, loop, view)
    headers = {
        "X-Correlation-Id": "order-7",
        "traceparent": TRACE,
        "baggage": "tenant=blue",
    }
    answer = client.post("/", json=[1], headers=headers)
    assert answer.get_json() == {
        "value": [1],
        "path": "/",
        "user": "ada",
        "app": "shop",
        "thread": "flask-loop",
        "correlation_id": "order-7",
        "traceparent": TRACE,
        "baggage": {"tenant": "blue"},
        "is_current": True,
    }
    assert answer.headers["x-correlation-id"] == "order-7"


@pytest.mark.parametrize(
    "sent",
    ["", "x" * 257, "caf\xe9", "tab\there"],
    ids=["none", "long", "latin", "tab"],
)
def test_a_bad_correlation_id_is_replaced(app, loop, sent):
    """Nothing that could forge a header or a line of the log comes back."""
    _, client = serve(app, loop, lambda: request_context().correlation_id)
    answer = client.get("/", environ_base={"HTTP_X_CORRELATION_ID": sent})
    assert answer.text == answer.headers["x-correlation-id"]
    assert len(answer.text) == 32


@pytest.mark.parametrize("identity", ["a\r\nset-cookie: b=1", "\N{CHECK MARK}"])
def test_an_id_that_is_no_header_makes_none(app, loop, identity):
    """A view may take it from anywhere; the request is answered all the same."""

    def view():
        request_context().correlation_id = identity
        return "done"

    _, client = serve(app, loop, view)
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (200, "done")
    assert "x-correlation-id" not in answer.headers


def test_headers_of_strangers_may_be_left_out(app, loop):
    """At the edge nobody else names our requests."""
    _, client = serve(
        app, loop, lambda: str(request_context().traceparent), trust_headers=False
    )
    answer = client.get("/", headers={"x-correlation-id": "mine", "traceparent": TRACE})
    assert answer.text == "None"
    assert answer.headers["x-correlation-id"] != "mine"


def test_each_request_has_a_context_of_its_own(app, loop):
    """Also inside of one application context, as tests may have it."""
    _, client = serve(app, loop, lambda: request_context().correlation_id)
    with app.app_context():
        first, second = client.get("/").text, client.get("/").text
    assert first != second
    assert current_context() is None


def test_async_views_run_on_the_same_loop(app, loop):
    """They need neither asgiref nor a loop for each request."""

    async def view():
        await asyncio.sleep(0)
        return str(id(asyncio.get_running_loop()))

    _, client = serve(app, loop, view)
    assert client.get("/").text == client.get("/").text == str(id(loop.loop))


def test_async_hooks_and_error_handlers_run_on_it_too(app, loop):
    """Whatever Flask finds to be async."""
    seen = []

    @app.before_request
    async def before():
        """Note it."""
        seen.append("before")

    @app.errorhandler(LookupError)
    async def handler(error):
        """Answer it."""
        return "handled", 418

    async def view():
        """Fail."""
        raise LookupError("no such thing")

    _, client = serve(app, loop, view)
    assert (client.get("/").status_code, seen) == (418, ["before"])


def test_a_blueprint_finds_the_extension(app, loop):
    """With a factory the module has no extension at hand."""
    shop = Blueprint("part", __name__)

    @shop.get("/part")
    def part():
        return jsonify(run_workflow(nap, 0))

    app.register_blueprint(shop)
    Tta(loop=loop).init_app(app)
    assert app.test_client().get("/part").get_json() == 0


def test_an_app_without_the_extension_is_told(app):
    """The sentence says what to write."""
    app.add_url_rule("/", view_func=lambda: run_workflow(nap, 0))
    with pytest.raises(RuntimeError, match=r"has no Tta extension: write Tta\(app\)"):
        app.test_client().get("/")


def test_a_second_extension_is_refused(app, loop):
    """Each request would have two contexts."""
    Tta(app, loop=loop)
    with pytest.raises(RuntimeError, match="has a Tta extension already"):
        Tta(app)


def test_the_time_of_a_request_is_up(tta, app, loop, caplog):
    """What runs is cancelled, and the client is told with 504 and no details."""
    cleaned = []

    @step
    async def slow(value):
        """Clean up."""
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(value)

    extension, client = serve(
        app, loop, lambda: extension.run_workflow(slow, 1), request_timeout=2
    )
    answer = client.get("/", headers={"x-correlation-id": "late"})
    assert (answer.status_code, answer.get_json()) == (
        504,
        {
            "detail": "the request took longer than its time limit",
            "correlation_id": "late",
        },
    )
    assert (tta.elapsed, cleaned) == (2.0, [1])
    assert "GET / took longer than 2 s" in caplog.text


def test_the_limit_is_for_the_whole_request(tta, app, loop):
    """A second workflow has what the first one has left."""

    def view():
        extension.run_workflow(nap, 1.5)
        return str(extension.run_workflow(nap, 1.5))

    extension, client = serve(app, loop, view, request_timeout=2)
    assert client.get("/").status_code == 504
    assert tta.elapsed == 2.0


@pytest.mark.parametrize(
    ("asked", "elapsed"),
    [("1", 1.0), ("9", 2.0), ("nan", 2.0), ("-1", 2.0), ("x", 2.0)],
)
def test_a_caller_may_ask_for_less_time(tta, app, loop, asked, elapsed):
    """But neither for more, nor for nonsense."""
    extension, client = serve(
        app,
        loop,
        lambda: extension.run_workflow(nap, 60),
        request_timeout=2,
        timeout_header="x-request-timeout",
    )
    answer = client.get("/", headers={"x-request-timeout": asked})
    assert (answer.status_code, tta.elapsed) == (504, elapsed)


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (RateLimitExceededError("secret", retry_after=1.2), 429, "2"),
        (CircuitOpenError("secret", retry_after=30), 503, "30"),
        (BulkheadFullError("secret"), 503, None),
        (CircuitOpenError("secret", retry_after=float("inf")), 503, None),
    ],
)
def test_rejections_have_their_status(app, loop, error, status, after):
    """The client is told when to ask again, and not why."""

    @step
    async def reject(value):
        """Reject."""
        raise error

    extension, client = serve(app, loop, lambda: extension.run_workflow(reject, 1))
    answer = client.get("/")
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, after)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpenError("open"),
        TimeoutExceededError("late", timeout_seconds=1.0),
        CancelledError(),
    ],
)
def test_log_of_an_error_has_the_route_and_no_values(app, loop, caplog, error):
    """What is in a path may be a secret, or a line break that forges a line."""

    def view(**_values):
        raise error

    caplog.set_level("INFO")
    _, client = serve(app, loop, view)
    app.add_url_rule("/reset/<token>", "reset", view)
    client.get("/reset/hunter2%0aERROR forged")
    assert "GET /reset/<token>" in caplog.text
    assert "hunter2" not in caplog.text
    assert "forged" not in caplog.text


def test_input_that_a_workflow_refuses_is_422(app, loop):
    """What is wrong is told field by field, and not what was given."""
    workflow = validate(dict[str, int])
    given = {"size": "sk-secret"}
    extension, client = serve(
        app, loop, lambda: extension.run_workflow(workflow, given)
    )
    answer = client.get("/")
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json["detail"]] == ["size"]
    assert "sk-secret" not in answer.text


def test_a_timeout_inside_the_workflow_is_504_too(tta, app, loop):
    """Whoever set the limit."""
    limited = TimeoutPrimitive(nap, timeout_seconds=1)
    extension, client = serve(app, loop, lambda: extension.run_workflow(limited, 60))
    assert (client.get("/").status_code, tta.elapsed) == (504, 1.0)


def test_handlers_of_the_application_stay(app, loop):
    """Those that it had, and those that it adds."""

    @app.errorhandler(TimeoutError)
    def other(error):
        return "other", 418

    @app.errorhandler(CircuitOpenError)
    def own(error):
        return "own", 418

    @step
    async def reject(value):
        """Reject."""
        raise CircuitOpenError("open")

    extension, client = serve(app, loop, lambda: extension.run_workflow(reject, 1))
    assert client.get("/").text == "own"


def test_an_error_of_the_workflow_is_the_original(app, loop):
    """In tests it reaches the test; in production it is Flask's 500."""

    @step
    async def fail(value):
        """Fail."""
        raise ZeroDivisionError("secret")

    extension, client = serve(app, loop, lambda: extension.run_workflow(fail, 1))
    with pytest.raises(ZeroDivisionError, match="secret"):
        client.get("/")
    app.testing = app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = client.get("/", headers={"x-correlation-id": "found"})
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert answer.headers["x-correlation-id"] == "found"


def test_probes_answer(app, loop):
    """Liveness asks nothing; readiness asks the checks, on the loop."""
    on = []

    async def ping():
        """Note the loop."""
        on.append(asyncio.get_running_loop() is loop.loop)
        return len(on) < 2

    lifecycle = Lifecycle(checks={"redis": ping}, check_keep_seconds=0)
    tta = Tta(app, loop=loop, lifecycle=lifecycle, health="/health")
    client = app.test_client()
    live, ready = client.get("/livez"), client.get("/readyz")
    assert live.get_json()["status"] == "alive"
    assert (ready.status_code, ready.get_json()["status"], on) == (200, "ready", [True])
    assert ready.headers["cache-control"] == "no-store"
    assert client.get("/readyz").status_code == 503
    assert client.get("/health").get_json()["running"] == 0
    assert tta.lifecycle is lifecycle


def test_draining_is_unready_but_works(app, loop):
    """Requests that still come are answered; from the end on they are refused."""
    tta, client = serve(app, loop, lambda: jsonify(tta.run_workflow(nap, 0)))
    assert client.get("/readyz").status_code == 200
    loop.loop.call_soon_threadsafe(tta.lifecycle.begin_drain)
    loop.run(asyncio.sleep(0))
    assert client.get("/readyz").status_code == 503
    assert client.get("/").status_code == 200
    loop.run(tta.lifecycle.drain())
    answer = client.get("/")
    assert (answer.status_code, "drained" in answer.text) == (503, False)


def test_what_the_drain_cuts_is_503(tta, app, loop):
    """The client may ask another worker."""
    extension, client = serve(
        app,
        loop,
        lambda: extension.run_workflow(nap, 3600),
        lifecycle=Lifecycle(drain_seconds=10),
    )

    async def drain_soon():
        await asyncio.sleep(1)
        await extension.lifecycle.drain()

    loop.submit(drain_soon())
    assert client.get("/").status_code == 503
    assert tta.elapsed <= 10


def test_background_work_goes_on_after_the_request(tta, app, loop):
    """It has no deadline of the request's, and the end of the loop waits for it."""
    done = []

    async def work():
        await asyncio.sleep(5)
        done.append(asyncio.get_running_loop().time())

    def view():
        extension.spawn(work())
        return "accepted", 202

    extension, client = serve(app, loop, view, request_timeout=2)
    assert client.get("/").status_code == 202
    loop.close()
    assert (done, extension.lifecycle.state) == ([5.0], "stopped")


def test_clients_are_closed_on_the_loop_that_opened_them(app, loop):
    """What was given to `on_shutdown` is closed when the loop ends."""
    closed = []
    lifecycle = Lifecycle()

    async def close():
        closed.append(asyncio.get_running_loop())

    lifecycle.on_shutdown(close)
    extension, client = serve(
        app, loop, lambda: jsonify(extension.run_workflow(nap, 0)), lifecycle=lifecycle
    )
    client.get("/")
    used = loop.loop
    loop.close()
    assert closed == [used]


def test_one_app_serves_in_many_tests(app):
    """A module-level app has a new loop in each test that has virtual time."""
    extension = Tta(app)
    app.add_url_rule("/", view_func=lambda: jsonify(extension.run_workflow(nap, 9)))
    for _ in range(2):
        with Harness() as tta:
            assert app.test_client().get("/").get_json() == 9
            assert tta.elapsed == 9.0
    loop_thread().close(0)


def test_a_loop_that_broke_is_replaced(app, loop):
    """The next request has another one, and the lifecycle begins anew on it."""

    def broken_once(timeout):
        selector.select = select
        raise OSError("no more polls")

    async def breaks_it():
        selector.select = broken_once
        await asyncio.Event().wait()

    tta, client = serve(app, loop, lambda: jsonify(tta.run_workflow(nap, 0)))
    assert client.get("/").status_code == 200
    selector = loop.loop._selector
    select = selector.select
    with pytest.raises(OSError, match="no more polls"):
        loop.run(breaks_it())
    assert client.get("/").status_code == client.get("/readyz").status_code == 200


def test_a_loop_that_broke_is_replaced_before_it_is_closed(app, loop):
    """Its thread may take its time for that; no request has to wait for it."""

    def breaks(timeout):
        raise OSError("no more polls")

    async def break_it():
        broken._selector.select = breaks
        await asyncio.Event().wait()

    tta, client = serve(app, loop, lambda: jsonify(tta.run_workflow(nap, 0)))
    assert client.get("/").status_code == 200
    broken, may_close = loop.loop, threading.Event()
    select, close = broken._selector.select, broken.close

    def close_late():
        may_close.wait()
        close()

    broken.close = close_late
    with pytest.raises(OSError, match="no more polls"):
        loop.run(break_it())
    broken._selector.select = select
    try:
        assert not broken.is_closed()
        assert client.get("/").status_code == client.get("/readyz").status_code == 200
    finally:
        may_close.set()


def test_calling_it_in_async_code_is_told(app, loop):
    """There one awaits."""

    async def view():
        """Block."""
        return extension.run_workflow(nap, 0)

    extension, client = serve(app, loop, view)
    with pytest.raises(RuntimeError, match="in its own thread"):
        client.get("/")


def test_a_context_may_be_given(app, loop):
    """Of a job of one's own, for instance."""

    @step
    async def identity(value, context):
        """Return it."""
        return context.correlation_id

    extension, client = serve(
        app,
        loop,
        lambda: extension.run_workflow(identity, 0, context=WorkflowContext("mine")),
    )
    assert client.get("/").text == "mine"


def test_the_hook_of_gunicorn_says_what_it_looks_for():
    """An application that is wrapped hides the extension."""

    class Worker:
        wsgi = "a wrapped application"

    with pytest.raises(
        RuntimeError, match=r"no Tta extension in 'a wrapped app.*wrapp"
    ):
        post_worker_init(Worker())


def test_a_wrong_lifecycle_is_an_error():
    """It shows the value."""
    with pytest.raises(TypeError, match="lifecycle='x' must be a Lifecycle"):
        Tta(lifecycle="x")
