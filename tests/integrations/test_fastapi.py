"""FastAPI: contexts, deadlines, probes, errors and streams, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Annotated

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from tta_primitives import WorkflowContext, step
from tta_primitives.door import current_context
from tta_primitives.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.integrations.fastapi import (
    Context,
    EventStream,
    WorkflowMiddleware,
    add_error_handlers,
    health_router,
    integrate,
    tta_lifespan,
    workflow_context,
)
from tta_primitives.integrations.pydantic import validate
from tta_primitives.recovery import FallbackPrimitive, TimeoutPrimitive
from tta_primitives.runtime import Lifecycle

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextlib.asynccontextmanager
async def serving(app):
    """Start an application, and yield a client of it."""
    async with app.router.lifespan_context(app), asking(app) as client:
        yield client


def asking(app):
    """Return a client of an application."""
    # An error that was answered with 500 is raised again for the server's log.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def made(lifecycle=None, **options):
    """Return an application, and its lifecycle."""
    lifecycle = Lifecycle() if lifecycle is None else lifecycle
    return integrate(FastAPI(), lifecycle, **options), lifecycle


def shown(context: WorkflowContext) -> dict:
    """Return what a context has taken over from a request."""
    return {
        "correlation_id": context.correlation_id,
        "traceparent": context.traceparent,
        "tracestate": context.tracestate,
        "baggage": context.baggage,
        "remaining": context.remaining(),
    }


def showing(app):
    """Add a handler that shows the context that it gets."""

    @app.get("/context")
    async def show(context: Context) -> dict:
        """Show it."""
        return shown(context)

    return app


async def identity(context: Context) -> str:
    """Be a dependency of a handler."""
    return context.correlation_id


class Client:
    """The server's side of one connection, message by message."""

    def __init__(self, app, path="/", method="GET") -> None:
        self.sent: list[dict] = []
        self.is_sent = asyncio.Event()
        self._incoming: asyncio.Queue[dict] = asyncio.Queue()
        self._app = app
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.error: BaseException | None = None

    def send(self, body=b"", *, more_body=False) -> None:
        """Send a piece of the request."""
        message = {"type": "http.request", "body": body, "more_body": more_body}
        self._incoming.put_nowait(message)

    def leave(self) -> None:
        """Go away."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    def start(self) -> asyncio.Task:
        """Begin the request."""
        return asyncio.ensure_future(
            self._app(self.scope, self._incoming.get, self._take)
        )

    async def _take(self, message) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(message)
        self.is_sent.set()

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def test_context_comes_from_the_headers(tta) -> None:
    """Ids, trace and baggage are the caller's, and the correlation id goes back."""
    app, _ = made(request_timeout=10)
    headers = {
        "X-Correlation-ID": "order-7",
        "traceparent": TRACE,
        "tracestate": "a=1",
        "baggage": "tenant=acme",
    }
    async with serving(showing(app)) as client:
        reply = await client.get("/context", headers=headers)
    assert reply.headers["x-correlation-id"] == "order-7"
    assert reply.json() == {
        "correlation_id": "order-7",
        "traceparent": TRACE,
        "tracestate": "a=1",
        "baggage": {"tenant": "acme"},
        "remaining": 10.0,
    }


@pytest.mark.parametrize(
    "headers",
    [
        [("x-correlation-id", "")],
        [("x-correlation-id", "x" * 257)],
        [("x-correlation-id", "\xe9t\xe9".encode("latin-1"))],
        [("x-correlation-id", b"a\x1b[31m")],
        [("traceparent", "00-" + "0" * 32 + "-b7ad6b7169203331-01")],
        [("traceparent", TRACE), ("traceparent", TRACE)],
        [("tracestate", "a=1")],
        [("baggage", "x" * 9000)],
        [("baggage", ",,;=;")],
    ],
    ids=["empty", "long", "latin", "escape", "zeros", "two", "alone", "huge", "none"],
)
async def test_malformed_headers_are_left_out(tta, headers) -> None:
    """None fails a request, and none goes to logs or back to the caller."""
    app, _ = made()
    async with serving(showing(app)) as client:
        reply = await client.get("/context", headers=headers)
    assert reply.status_code == 200
    found = reply.json()
    assert reply.headers["x-correlation-id"] == found["correlation_id"]
    assert len(found.pop("correlation_id")) == 32
    assert found == {
        "traceparent": None,
        "tracestate": None,
        "baggage": {},
        "remaining": None,
    }


async def test_lists_in_several_lines_are_one_list(tta) -> None:
    """Proxies may add a line of their own to tracestate and baggage."""
    app, _ = made()
    headers = [
        ("traceparent", TRACE),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("baggage", "x=1"),
        ("baggage", "y=2"),
        ("x-correlation-id", "first"),
        ("x-correlation-id", "second"),
    ]
    async with serving(showing(app)) as client:
        found = (await client.get("/context", headers=headers)).json()
    assert found["tracestate"] == "a=1,b=2"
    assert found["baggage"] == {"x": "1", "y": "2"}
    assert found["correlation_id"] == "first,second"


async def test_strangers_are_given_ids_of_ours(tta) -> None:
    """`trust_headers=False`: at the edge nobody chooses what is in our logs."""
    app, _ = made(trust_headers=False)
    headers = {"x-correlation-id": "mine", "traceparent": TRACE, "baggage": "a=1"}
    async with serving(showing(app)) as client:
        reply = await client.get("/context", headers=headers)
    assert reply.headers["x-correlation-id"] != "mine"
    assert (reply.json()["traceparent"], reply.json()["baggage"]) == (None, {})


async def test_dependency_works_without_the_middleware(tta) -> None:
    """The context is made of the headers, and is the same for the whole request."""
    app = FastAPI()

    @app.get("/")
    async def show(
        inner: Annotated[str, Depends(identity)],
        context: Annotated[WorkflowContext, Depends(workflow_context)],
    ) -> bool:
        """Compare the two."""
        return inner == context.correlation_id

    async with asking(app) as client:
        assert (await client.get("/")).json() is True


async def test_current_context_is_there_for_logs(tta) -> None:
    """In async handlers, in sync ones, which run in threads, and not afterwards."""
    app, _ = made()

    @app.get("/async")
    async def in_the_loop() -> str:
        """Look."""
        return current_context().correlation_id

    @app.get("/sync")
    def in_a_thread() -> str:
        """Look."""
        return current_context().correlation_id

    async with serving(app) as client:
        for path in ("/async", "/sync"):
            reply = await client.get(path, headers={"x-correlation-id": path})
            assert reply.json() == path
    assert current_context() is None


async def test_header_that_the_application_sets_is_kept(tta) -> None:
    """It is not sent twice."""
    app, _ = made()

    @app.get("/")
    async def reply() -> PlainTextResponse:
        """Set it."""
        return PlainTextResponse("", headers={"X-Correlation-Id": "own"})

    async with serving(app) as client:
        found = await client.get("/")
    assert found.headers.get_list("x-correlation-id") == ["own"]


async def test_headers_that_can_be_read_once_are_sent() -> None:
    """ASGI lets an application give any iterable of them."""
    headers = [(b"x-correlation-id", b"own"), (b"content-type", b"text/plain")]

    async def app(_scope, _receive, send) -> None:
        """Begin to answer."""
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": iter(headers)})

    client = Client(WorkflowMiddleware(app))
    await client.start()
    assert list(client.sent[0]["headers"]) == headers


async def test_time_limit_is_told_to_the_client_and_in_the_log(tta, caplog) -> None:
    """With the run and the route, and no value of it."""
    app, _ = made(request_timeout=5)

    @app.get("/slow/{key}")
    async def slow(key: str) -> None:
        """Take too long."""
        await asyncio.sleep(60)

    async with serving(app) as client:
        reply = await client.get("/slow/sk-1", headers={"x-correlation-id": "a"})
    detail = "the request took longer than its time limit"
    assert reply.json() == {"detail": detail, "correlation_id": "a"}
    assert [record.getMessage() for record in caplog.records] == [
        "GET /slow/{key} took longer than its limit of 5 s"
    ]


async def test_bug_in_a_handler_is_told_with_its_run(tta, caplog) -> None:
    """The server logs the traceback outside of the run: a line ties the two."""
    app, _ = made()

    @app.get("/broken/{key}")
    async def broken(key: str) -> None:
        """Have a bug."""
        raise LookupError(key)

    async with serving(app) as client:
        await client.get("/broken/sk-1", headers={"x-correlation-id": "a\tb"})
        await client.get("/broken/sk-1", headers={"x-correlation-id": "a"})
    told = [record.getMessage() for record in caplog.records]
    assert told[-1] == "GET /broken/{key} failed with LookupError: run 'a'"
    assert not any("sk-1" in line or "\t" in line for line in told)


@pytest.mark.parametrize("identity", ["a\r\nset-cookie: b=1", "\N{CHECK MARK}"])
async def test_id_that_is_no_header_makes_none(tta, identity) -> None:
    """A handler may take it from anywhere; errors are answered all the same."""
    app, _ = made()

    @app.get("/{status}")
    async def refuse(status: int, context: Context) -> None:
        """Raise what is answered inside of the middleware, or outside of it."""
        context.correlation_id = identity
        if status == 503:
            raise BulkheadFullError("full")
        raise ValueError(status)

    async with serving(app) as client:
        for status in (503, 500):
            reply = await client.get(f"/{status}")
            assert reply.status_code == status
            assert "x-correlation-id" not in reply.headers
            assert reply.json()["correlation_id"] == identity


async def test_request_that_takes_too_long_is_cancelled(tta) -> None:
    """504 at its limit, whatever it is doing; the workflow has ended by then."""
    app, lifecycle = made(request_timeout=5)
    ended = []

    @app.get("/")
    async def slow() -> None:
        """Take an hour."""
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async with serving(app) as client:
        began = asyncio.get_running_loop().time()
        reply = await client.get("/", headers={"x-correlation-id": "a"})
        assert (reply.status_code, reply.headers["x-correlation-id"]) == (504, "a")
        assert ended == [pytest.approx(began + 5)]
        assert lifecycle.running == 0


async def test_timeouts_of_the_workflow_see_the_deadline(tta) -> None:
    """A step may take ten seconds, but only three are left: the request ends first."""
    app, _ = made(request_timeout=3)

    @step
    async def think(value):
        await asyncio.sleep(3600)

    # There is no time left for another answer either.
    workflow = FallbackPrimitive(TimeoutPrimitive(think, timeout_seconds=10), ["late"])

    @app.get("/")
    async def ask(context: Context) -> None:
        """Run it."""
        await workflow.execute(1, context)

    async with serving(app) as client:
        began = asyncio.get_running_loop().time()
        assert (await client.get("/")).status_code == 504
        assert asyncio.get_running_loop().time() == pytest.approx(began + 3)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [("2", 2), ("2.5", 2.5), ("60", 10), ("0", 10), ("-1", 10), ("nan", 10)],
)
async def test_caller_may_ask_for_less_time(tta, asked, limit) -> None:
    """Never for more; what makes no sense is left out."""
    app, _ = made(request_timeout=10, timeout_header="X-Request-Timeout")
    async with serving(showing(app)) as client:
        reply = await client.get("/context", headers={"x-request-timeout": asked})
    assert reply.json()["remaining"] == limit


async def test_timeout_error_of_the_handler_is_its_own(tta) -> None:
    """Only a limit of ours is a 504; a bug that raises TimeoutError stays a 500."""
    app, _ = made(request_timeout=5)

    @app.get("/")
    async def fail() -> None:
        """Raise it."""
        raise TimeoutError("the database")

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 500


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (RateLimitExceededError("key 7", retry_after=0.2), 429, "1"),
        (RateLimitExceededError("key 7", retry_after=59.01), 429, "60"),
        (RateLimitExceededError("key 7"), 429, None),
        (BulkheadFullError("full", retry_after=0.0), 503, "0"),
        (CircuitOpenError("open", retry_after=30), 503, "30"),
        (CircuitOpenError("open", retry_after=float("inf")), 503, None),
    ],
)
async def test_rejections_say_when_to_ask_again(tta, error, status, after) -> None:
    """429 for a rate limit, else 503; seconds are rounded up; no text is shown."""
    app, _ = made()

    @app.get("/")
    async def refuse() -> None:
        """Raise it."""
        raise error

    async with serving(app) as client:
        reply = await client.get("/", headers={"x-correlation-id": "a"})
    assert reply.status_code == status
    assert reply.headers.get("retry-after") == after
    assert reply.json().pop("correlation_id") == "a"
    assert str(error) not in reply.text


async def test_input_that_a_workflow_refuses_is_422(tta) -> None:
    """What is wrong is told field by field, and not what was given."""
    app, _ = made()
    workflow = validate(dict[str, int])

    @app.get("/")
    async def ask(context: Context) -> None:
        """Give it something else."""
        await workflow.execute({"size": "sk-secret"}, context)

    async with serving(app) as client:
        reply = await client.get("/")
    assert reply.status_code == 422
    assert [one["field"] for one in reply.json()["detail"]] == ["size"]
    assert "sk-secret" not in reply.text


async def test_time_limit_of_a_step_is_504(tta) -> None:
    """A timeout of the workflow that nobody handles."""
    app, _ = made()
    workflow = TimeoutPrimitive(lambda _: asyncio.sleep(60), timeout_seconds=1)

    @app.get("/")
    async def ask(context: Context) -> None:
        """Run it."""
        await workflow.execute(1, context)

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 504


async def test_unknown_error_is_500_with_the_correlation_id_alone(tta) -> None:
    """By the id the error is found in the log; its text is nobody else's business."""
    app, _ = made()

    @app.get("/")
    async def fail() -> None:
        """Fail with a secret."""
        raise RuntimeError("password=hunter2")

    async with serving(app) as client:
        reply = await client.get("/", headers={"x-correlation-id": "a"})
    assert reply.status_code == 500
    assert reply.headers["x-correlation-id"] == "a"
    assert reply.json() == {"detail": "internal server error", "correlation_id": "a"}


async def test_handlers_of_the_application_are_kept(tta) -> None:
    """Who answers errors in a form of their own goes on doing so."""
    app = FastAPI()

    @app.exception_handler(RateLimitExceededError)
    async def own(request, error) -> PlainTextResponse:
        """Answer it."""
        return PlainTextResponse("own", 420)

    @app.exception_handler(500)
    async def failed(request, error) -> PlainTextResponse:
        """Answer it."""
        return PlainTextResponse("own", 500)

    add_error_handlers(app)

    @app.get("/limit")
    async def refuse() -> None:
        """Be limited."""
        raise RateLimitExceededError("")

    @app.get("/fail")
    async def fail() -> None:
        """Fail."""
        raise ValueError

    async with asking(app) as client:
        assert (await client.get("/limit")).status_code == 420
        assert (await client.get("/fail")).text == "own"


async def test_probes_answer_with_status_and_body(tta) -> None:
    """Not a tuple in a 200, as a handler of FastAPI would make of one."""
    lifecycle = Lifecycle(checks={"redis": lambda: False})
    app, _ = made(lifecycle, health="/health")
    async with serving(app) as client:
        live = await client.get("/livez")
        assert (live.status_code, live.json()["status"]) == (200, "alive")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {
            "status": "failing",
            "checks": {"redis": {"status": "failed"}},
        }
        assert ready.headers["cache-control"] == "no-store"
        health = await client.get("/health")
        assert (health.status_code, health.json()["running"]) == (503, 0)
        assert (await client.head("/livez")).status_code == 200


async def test_probes_have_other_paths_or_none(tta) -> None:
    """The router alone, where everything else is not wanted."""
    lifecycle = Lifecycle()
    app = FastAPI(lifespan=tta_lifespan(lifecycle))
    app.include_router(health_router(lifecycle, live=None, ready="/up"), prefix="/a")
    async with serving(app) as client:
        assert (await client.get("/a/up")).status_code == 200
        assert (await client.get("/a/livez")).status_code == 404
        assert "/a/up" not in (await client.get("/openapi.json")).text


async def test_probes_come_before_a_route_that_takes_everything(tta) -> None:
    """Single-page applications have one."""
    app = FastAPI()

    @app.get("/{path:path}")
    async def everything(path: str) -> str:
        """Answer all the rest."""
        return path

    integrate(app, Lifecycle())
    async with serving(app) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.get("/other")).json() == "other"


async def test_starlette_alone_works_as_well(tta) -> None:
    """Nothing but the dependency needs FastAPI."""

    async def hello(request) -> PlainTextResponse:
        """Say hello."""
        return PlainTextResponse(str(await workflow_context(request)))

    app = integrate(Starlette(routes=[Route("/", hello)]), Lifecycle())
    async with serving(app) as client:
        reply = await client.get("/", headers={"x-correlation-id": "a"})
        assert reply.text == "<WorkflowContext correlation_id='a'>"
        assert (await client.get("/readyz")).status_code == 200


async def test_lifespan_of_the_application_is_inside(tta) -> None:
    """Its clients are open until nothing runs; what was registered closes last."""
    told = []
    lifecycle = Lifecycle()

    @contextlib.asynccontextmanager
    async def own(app):
        """Open something, and close it."""
        told.append(f"open, {lifecycle.state}")
        lifecycle.on_shutdown(lambda: told.append("closed last"))
        yield {"client": "a client"}
        told.append(f"closed with {lifecycle.running} running")

    app = integrate(FastAPI(lifespan=own), lifecycle)

    async def run():
        """Be a run of three seconds."""
        with lifecycle.track():
            told.append(lifecycle.state)
            await asyncio.sleep(3)
            told.append("run ended")

    async with app.router.lifespan_context(app) as state:
        assert state == {"client": "a client"}
        lifecycle.spawn(run())
        await asyncio.sleep(0)
    assert told == [
        "open, starting",
        "ready",
        "run ended",
        "closed with 0 running",
        "closed last",
    ]


async def test_lifespan_that_does_not_end_is_left(tta, caplog) -> None:
    """Half of what is left of the budget is for it, the other half for the rest."""
    closed = []
    lifecycle = Lifecycle(drain_seconds=20)

    @contextlib.asynccontextmanager
    async def own(app):
        """Hang at the end."""
        yield
        await asyncio.sleep(3600)

    app = integrate(FastAPI(lifespan=own), lifecycle)
    async with app.router.lifespan_context(app):
        lifecycle.on_shutdown(lambda: closed.append(True))
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began == pytest.approx(10)
    assert closed == [True]
    assert "the lifespan of the application did not end in time" in caplog.text


async def test_lifespan_that_fails_to_start_ends_what_was_begun(tta) -> None:
    """The error is the server's to tell; the lifecycle is stopped."""
    lifecycle = Lifecycle()

    @contextlib.asynccontextmanager
    async def own(app):
        """Fail."""
        raise ConnectionError("no database")
        yield

    app = integrate(FastAPI(lifespan=own), lifecycle)
    with pytest.raises(ConnectionError, match="no database"):
        async with app.router.lifespan_context(app):
            pass
    assert lifecycle.state == "stopped"


async def test_requests_are_waited_for_and_probes_are_not(tta) -> None:
    """A drain ends with the last request; the one of a probe is none."""
    lifecycle = Lifecycle(drain_seconds=20)
    app, _ = made(lifecycle)

    @app.get("/")
    async def slow() -> str:
        """Take three seconds."""
        await asyncio.sleep(3)
        return "done"

    async with serving(app) as client:
        request = asyncio.ensure_future(client.get("/"))
        await asyncio.sleep(1)
        assert lifecycle.running == 1
        lifecycle.begin_drain()
        assert (await client.get("/readyz")).status_code == 503
        # Accepted before the server closed its socket.
        late = asyncio.ensure_future(client.get("/"))
        await asyncio.sleep(0)
        report = await lifecycle.drain()
        assert [(await each).json() for each in (request, late)] == ["done", "done"]
        assert (report.completed, report.seconds) == (2, pytest.approx(3))
        refused = await client.get("/", headers={"x-correlation-id": "a"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["connection"] == "close"
    assert refused.headers["x-correlation-id"] == "a"


async def test_request_that_a_drain_cuts_is_answered(tta) -> None:
    """503, rather than a connection that breaks off."""
    lifecycle = Lifecycle(drain_seconds=10)
    app, _ = made(lifecycle, request_timeout=3600)

    @app.get("/")
    async def slow() -> None:
        """Take an hour."""
        await asyncio.sleep(3600)

    async with serving(app) as client:
        request = asyncio.ensure_future(client.get("/"))
        await asyncio.sleep(1)
        report = await lifecycle.drain()
        assert (await request).status_code == 503
    assert (report.cancelled, report.seconds) == (1, pytest.approx(8))


async def test_client_that_goes_away_cancels_if_asked_to(tta) -> None:
    """Also a handler that never reads its request; and the drain knows of it."""
    app, lifecycle = made(cancel_on_disconnect=True)
    ended = []

    @app.get("/")
    async def slow() -> None:
        """Take an hour."""
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async with app.router.lifespan_context(app):
        client = Client(app)
        request = client.start()
        client.send()
        await asyncio.sleep(1)
        assert lifecycle.running == 1
        client.leave()
        await request
        assert (ended, client.sent, lifecycle.running) == ([True], [], 0)


async def test_client_that_goes_away_cancels_nothing_by_itself(tta) -> None:
    """A payment comes to its end, whoever waits for it."""
    app, _ = made()

    @app.get("/")
    async def slow() -> str:
        """Take some time."""
        await asyncio.sleep(3)
        return "paid"

    async with app.router.lifespan_context(app):
        client = Client(app)
        request = client.start()
        client.send()
        client.leave()
        await request
        assert client.body == b'"paid"'


async def test_body_is_read_as_it_comes_while_the_client_is_watched(tta) -> None:
    """No piece is lost, and no more than one is read ahead."""
    app, _ = made(cancel_on_disconnect=True)

    @app.post("/")
    async def take(body: dict) -> dict:
        """Give it back."""
        return body

    async with app.router.lifespan_context(app):
        client = Client(app, method="POST")
        client.scope["headers"] = [(b"content-type", b"application/json")]
        for piece in (b'{"a"', b": ", b"1"):
            client.send(piece, more_body=True)
        client.send(b"}")
        await client.start()
        assert json.loads(client.body) == {"a": 1}


async def test_error_of_reading_reaches_who_reads_while_the_client_is_watched() -> None:
    """A middleware outside refuses a large body so; nobody waits for ever."""
    raised = []

    async def app(_scope, receive, _send) -> None:
        """Read, and read again."""
        for _ in range(2):
            try:
                await receive()
            except ValueError as error:
                raised.append(str(error))

    async def refuse() -> dict:
        """Refuse."""
        raise ValueError("too large")

    middleware = WorkflowMiddleware(app, cancel_on_disconnect=True)
    async with asyncio.timeout(10):
        await middleware(Client(app).scope, refuse, refuse)
    assert raised == ["too large", "too large"]


async def test_background_task_goes_on_after_the_answer(tta) -> None:
    """The client has its answer and goes: nothing is cancelled any more."""
    app, _ = made(cancel_on_disconnect=True)
    ended = []

    async def later() -> None:
        """Take some time."""
        await asyncio.sleep(5)
        ended.append(True)

    @app.get("/")
    async def begin(background: BackgroundTasks) -> str:
        """Begin it."""
        background.add_task(later)
        return "begun"

    async with app.router.lifespan_context(app):
        client = Client(app)
        request = client.start()
        client.send()
        await client.is_sent.wait()
        await asyncio.sleep(1)
        client.leave()
        await request
        assert ended == [True]


async def test_file_that_the_server_sends_is_an_answer(tta) -> None:
    """The path of a file is the last message; what is done afterwards is not ended."""
    ended = []

    async def app(scope, receive, send) -> None:
        """Hand a file on, and do something afterwards."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/some/file"})
        await asyncio.sleep(5)
        ended.append(True)

    client = Client(WorkflowMiddleware(app, cancel_on_disconnect=True))
    request = client.start()
    client.send()
    await client.is_sent.wait()
    await asyncio.sleep(1)
    client.leave()
    await request
    assert ended == [True]


async def test_cancellation_from_elsewhere_is_not_answered(tta) -> None:
    """A server that cancels a request wants it to end, not to be answered."""
    app, _ = made(cancel_on_disconnect=True, request_timeout=60)

    @app.get("/")
    async def slow() -> None:
        """Take an hour."""
        await asyncio.sleep(3600)

    async with app.router.lifespan_context(app):
        client = Client(app)
        request = client.start()
        client.send()
        await asyncio.sleep(1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert client.sent == []


async def test_cancellation_beside_that_of_the_drain_goes_on(tta) -> None:
    """Whoever cancels a request while it cleans up is not told that it was answered."""
    app, lifecycle = made(Lifecycle(drain_seconds=10))

    @app.get("/")
    async def slow() -> None:
        """Take an hour, and a second to clean up."""
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.5)

    async with app.router.lifespan_context(app):
        client = Client(app)
        request = client.start()
        client.send()
        await asyncio.sleep(0)
        draining = asyncio.ensure_future(lifecycle.drain())
        await asyncio.sleep(8.2)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert client.sent == []
        await draining


class Piece(BaseModel):
    """A chunk that is no text."""

    word: str


@step
async def words(text):
    """Stream the words of a text, one each second."""
    try:
        for word in text.split():
            await asyncio.sleep(1)
            if word == "fail":
                raise ConnectionError("secret")
            yield Piece(word=word) if word.startswith("p") else word
    finally:
        CLOSED.append(text)


CLOSED: list[str] = []


@pytest.fixture
def streaming():
    """An application that streams the words that it is asked for."""
    CLOSED.clear()
    app, _ = made(request_timeout=3)

    @app.get("/{text}")
    async def stream(text: str, context: Context) -> EventStream:
        """Stream them."""
        return EventStream(words.stream(text, context), ping_seconds=2.5)

    return app


async def test_stream_is_sent_as_events(tta, streaming) -> None:
    """Text as it is, models as JSON, a sign that it is complete, and pings between."""
    async with serving(streaming) as client:
        reply = await client.get("/a piece b c")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    assert "x-correlation-id" in reply.headers
    assert reply.text == (
        'data: a\n\ndata: {"word":"piece"}\n\ndata: b\n\n: ping\n\n'
        "data: c\n\nevent: done\ndata: \n\n"
    ).replace('{"word":"piece"}', '{"word": "piece"}')
    assert CLOSED == ["a piece b c"]


async def test_error_before_the_first_chunk_is_a_status(tta, streaming) -> None:
    """Nothing has been sent yet: it is 500, and not a stream that breaks off."""
    async with serving(streaming) as client:
        reply = await client.get("/fail")
    assert reply.status_code == 500
    assert CLOSED == ["fail"]


async def test_error_later_is_an_event(tta, streaming, caplog) -> None:
    """The client learns the type; the text goes to the log."""
    async with serving(streaming) as client:
        reply = await client.get("/a fail b")
    assert reply.status_code == 200
    assert reply.text == (
        'data: a\n\nevent: error\ndata: {"error": "ConnectionError"}\n\n'
    )
    assert "a stream failed after its answer had begun" in caplog.text


@pytest.mark.parametrize("how", ["disconnect", "send"])
async def test_stream_is_closed_when_its_client_goes_away(tta, streaming, how) -> None:
    """Servers tell it by a message, or by an error of what is sent."""
    async with streaming.router.lifespan_context(streaming):
        client = Client(streaming, "/a b c d e f")
        request = client.start()
        client.send()
        await client.is_sent.wait()
        if how == "disconnect":
            client.leave()
        else:
            client.error = OSError("gone")
        await request
    assert CLOSED == ["a b c d e f"]
    assert b"done" not in client.body


async def test_stream_without_answer_is_limited_like_any_request(
    tta, streaming
) -> None:
    """The first chunk comes in time or not at all; what follows may take longer."""
    app = streaming

    @app.get("/slow/stream")
    async def slow() -> EventStream:
        """Begin after an hour."""

        async def chunks():
            """Stream nothing."""
            await asyncio.sleep(3600)
            yield "late"

        return EventStream(chunks(), ping_seconds=None)

    async with serving(app) as client:
        assert (await client.get("/slow/stream")).status_code == 504


async def test_lines_of_a_text_stay_lines(tta) -> None:
    """A line break cannot end an event, whichever it is."""
    app, _ = made()

    @app.get("/")
    async def stream() -> EventStream:
        """Stream one text."""

        async def chunks():
            """Try to forge an event."""
            yield "a\nb\r\nc\rid: 7\n\nevent: done"

        return EventStream(chunks())

    async with serving(app) as client:
        text = (await client.get("/")).text
    assert text == (
        "data: a\ndata: b\ndata: c\ndata: id: 7\ndata: \ndata: event: done\n\n"
        "event: done\ndata: \n\n"
    )


def test_websocket_has_a_context() -> None:
    """It is not waited for: a server closes websockets at its end."""
    app, lifecycle = made()

    @app.websocket("/ws")
    async def talk(socket: WebSocket, context: Context) -> None:
        """Say who it is."""
        await socket.accept()
        await socket.send_json([context.correlation_id, lifecycle.running])
        await socket.close()

    with TestClient(app) as client:
        headers = {"x-correlation-id": "a"}
        with client.websocket_connect("/ws", headers=headers) as socket:
            assert socket.receive_json() == ["a", 0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RateLimitExceededError("key 7"), 1013),
        (CircuitOpenError("open", retry_after=30), 1013),
        (TimeoutExceededError("late", timeout_seconds=1.0), 1011),
    ],
)
def test_websocket_is_closed_with_the_code_of_its_error(error, code) -> None:
    """Once it is accepted there is no status to answer with."""
    app, _ = made()

    @app.websocket("/ws")
    async def refuse(socket: WebSocket) -> None:
        """Accept it, and raise."""
        await socket.accept()
        raise error

    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        last = socket.receive()
    assert (last["type"], last.get("code")) == ("websocket.close", code)


def test_application_is_tested_again_and_again() -> None:
    """Each TestClient starts and stops it, in a thread that hears no signals."""
    app, lifecycle = made()
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/readyz").status_code == 200
        assert lifecycle.state == "stopped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_timeout": 0}, r"request_timeout=0 must be a positive number"),
        ({"cancel_on_disconnect": 1}, r"cancel_on_disconnect=1 must be True or False"),
        ({"trust_headers": None}, r"trust_headers=None must be True or False"),
        ({"lifecycle": "mine"}, r"lifecycle='mine' must be a Lifecycle"),
    ],
    ids=["timeout", "cancel", "trust", "lifecycle"],
)
def test_options_of_the_middleware_are_checked(options, message) -> None:
    """Each error names the option, shows the value and says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=message):
        WorkflowMiddleware(None, **options)


async def test_what_was_logged_says_nothing_of_what_was_sent(tta, caplog) -> None:
    """No header, body or query of a request is in our log lines."""
    app, _ = made()
    headers = {"authorization": "Bearer hunter2", "x-correlation-id": "a"}
    with caplog.at_level(logging.DEBUG, logger="tta_primitives"):
        async with serving(showing(app)) as client:
            await client.get("/context?token=hunter2", headers=headers)
    ours = [record for record in caplog.records if record.name == "tta_primitives"]
    assert ours
    assert all("hunter2" not in record.getMessage() for record in ours)
