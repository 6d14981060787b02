"""Workflows in FastAPI and Starlette: contexts, probes, errors, streams, and the end.

lifecycle = Lifecycle(checks={"redis": redis.ping})
app = FastAPI()
integrate(app, lifecycle, request_timeout=10)

@app.post("/answer")
async def answer(question: str, context: Context) -> str:
    return await workflow.execute(question, context)
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from tta_primitives.arguments import seconds
from tta_primitives.context import WorkflowContext, _is_safe
from tta_primitives.door import closing
from tta_primitives.errors import (
    ExecutionRejectedError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.extras import needs
from tta_primitives.integrations.asgi import WorkflowMiddleware, context_of, route_of
from tta_primitives.loops import now, running_loop

with needs("fastapi", __name__):
    from fastapi import APIRouter, Depends
    from fastapi.encoders import jsonable_encoder
    from starlette.requests import HTTPConnection, Request  # noqa: TC002 - FastAPI reads what parameters are annotated with
    from starlette.responses import JSONResponse, Response
    from starlette.websockets import WebSocket, WebSocketState

    from tta_primitives.integrations.pydantic import InputValidationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.applications import Starlette
    from starlette.types import Message, Receive, Scope, Send

    from tta_primitives.runtime.lifecycle import Lifecycle

    Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]

__all__ = [
    "Context",
    "EventStream",
    "WorkflowMiddleware",
    "add_error_handlers",
    "health_router",
    "integrate",
    "tta_lifespan",
    "workflow_context",
]

StarletteT = TypeVar("StarletteT", bound="Starlette")

logger: logging.Logger = logging.getLogger("tta_primitives")

_END = object()
# The codes of websockets for "try again later", "invalid data", "internal error".
_CLOSED = {429: 1013, 503: 1013, 422: 1007, 500: 1011}


async def workflow_context(connection: HTTPConnection) -> WorkflowContext:
    """Return the context of the request: a dependency for handlers.

    Without the middleware it is made of the headers, with no deadline.
    """
    # Not a plain function: FastAPI would run it in a thread.
    return context_of(connection.scope)


Context = Annotated[WorkflowContext, Depends(workflow_context)]
"""The type of a parameter that gets the context of the request."""


def integrate(
    app: StarletteT,
    lifecycle: Lifecycle,
    *,
    live: str | None = "/livez",
    ready: str | None = "/readyz",
    health: str | None = None,
    prestop_seconds: float | None = None,
    **options: Any,  # noqa: ANN401 - those of the middleware, checked there
) -> StarletteT:
    """Give an application everything of this module, and return it.

    That is `WorkflowMiddleware`, `tta_lifespan` around the lifespan that it has,
    `health_router` and `add_error_handlers`. Call it once the application is made, and
    add middleware that is to be inside of this one before.

    Args:
        app: The application.
        lifecycle: Of this process.
        live: The path of the probe for liveness, None for none.
        ready: That for readiness.
        health: That for people, which says more; not for strangers.
        prestop_seconds: How long to go on serving after a signal.
        options: Those of `WorkflowMiddleware`.
    """
    probes = {path for path in (live, ready, health) if path is not None}
    options["untracked"] = probes | set(options.get("untracked", {"/metrics"}))
    app.add_middleware(WorkflowMiddleware, lifecycle=lifecycle, **options)
    own = app.router.lifespan_context
    lifespan = tta_lifespan(lifecycle, own, prestop_seconds=prestop_seconds)
    app.router.lifespan_context = lifespan
    # Before a route that takes every path.
    app.router.routes[:0] = _routes(lifecycle, live, ready, health).routes
    add_error_handlers(app)
    return app


def tta_lifespan(
    lifecycle: Lifecycle,
    inner: Lifespan | None = None,
    *,
    signals: bool = True,
    prestop_seconds: float | None = None,
) -> Lifespan:
    """Return the lifespan of an application: `FastAPI(lifespan=tta_lifespan(...))`.

    The lifecycle starts before the inner lifespan and is ready after it has started. At
    the end what runs is waited for while everything is still open; then the inner one
    ends, and last what was given to `on_shutdown`.

    Args:
        lifecycle: Of this process.
        inner: The application's own lifespan.
        signals: Whether SIGTERM and SIGINT are heard before the server hears them.
        prestop_seconds: How long to go on serving after a signal; that of the lifecycle
            unless given.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - as Starlette has it
        """Start before the application's own, and close after it."""
        lifecycle.start()
        if signals:
            lifecycle.install_signals(prestop=prestop_seconds)
        limit = asyncio.timeout(None)
        try:
            async with limit, _entered(inner, app) as state:
                lifecycle.mark_ready()
                try:
                    yield state
                finally:
                    await lifecycle.settle()
                    # The rest is for what was given to `on_shutdown`.
                    limit.reschedule(now() + (lifecycle.remaining() or 0.0) / 2)
        except TimeoutError:
            if not limit.expired():
                raise
            logger.error("the lifespan of the application did not end in time")  # noqa: TRY400 - there is nothing more to say
        finally:
            await lifecycle.drain()

    return lifespan


def _entered(inner: Lifespan | None, app: object) -> AbstractAsyncContextManager[Any]:
    return nullcontext() if inner is None else inner(app)


def health_router(
    lifecycle: Lifecycle,
    *,
    live: str | None = "/livez",
    ready: str | None = "/readyz",
    health: str | None = None,
) -> APIRouter:
    """Return the routes that answer probes, for `app.include_router`.

    Args:
        lifecycle: Of this process.
        live: The path of the probe for liveness, None for none.
        ready: That for readiness.
        health: That for people, which says more; not for strangers.
    """
    return _routes(lifecycle, live, ready, health)


def _routes(
    lifecycle: Lifecycle, live: str | None, ready: str | None, health: str | None
) -> APIRouter:
    async def is_live(_request: Request) -> Response:
        return _probe(*lifecycle.live())

    async def is_ready(_request: Request) -> Response:
        return _probe(*await lifecycle.ready())

    async def is_well(_request: Request) -> Response:
        return _probe(*await lifecycle.health())

    router = APIRouter()
    for path, answer in ((live, is_live), (ready, is_ready), (health, is_well)):
        if path is not None:
            router.add_route(path, answer, ["GET"], include_in_schema=False)
    return router


def _probe(status: int, body: dict[str, Any]) -> Response:
    return JSONResponse(body, status, headers={"cache-control": "no-store"})


def add_error_handlers(app: Starlette) -> None:
    """Answer errors of workflows with the status that says what happened.

    A rate limit is 429, every other rejection 503, both with `Retry-After` in whole
    seconds if it is known when to ask again; a time limit of ours is 504; an input that
    a workflow refuses is 422, with what is wrong, field by field. Everything else is
    500, with the correlation id by which it is found in the log. No text of an error is
    shown. A websocket that was accepted is closed: with 1013, 1011 or, for an input,
    1007. Handlers that the application has already are left as they are.
    """
    handlers: Any = app.exception_handlers
    handlers.setdefault(ExecutionRejectedError, _rejected)
    handlers.setdefault(TimeoutExceededError, _timed_out)
    handlers.setdefault(InputValidationError, _refused)
    if 500 not in handlers:  # noqa: PLR2004 - either may stand for both
        handlers.setdefault(Exception, _failed)


async def _rejected(
    request: HTTPConnection, error: ExecutionRejectedError
) -> Response | None:
    is_limit = isinstance(error, RateLimitExceededError)
    headers = {}
    after = error.retry_after
    if after is not None and math.isfinite(after):
        headers["retry-after"] = str(max(0, math.ceil(after)))
    detail = "too many requests" if is_limit else "not available at the moment"
    return await _problem(request, 429 if is_limit else 503, detail, headers)


async def _timed_out(request: HTTPConnection, _error: Exception) -> Response | None:
    return await _problem(
        request, 504, "the request took longer than its time limit", {}
    )


async def _refused(
    request: HTTPConnection, error: InputValidationError
) -> Response | None:
    return await _problem(request, error.status_code, error.detail(), {})


def _where(connection: HTTPConnection) -> str:
    is_request = connection.scope["type"] == "http"
    return route_of(connection.scope) if is_request else "a websocket"


async def _failed(request: HTTPConnection, error: Exception) -> Response | None:
    # The server logs the traceback, outside of the run: this line ties the two.
    identity = context_of(request.scope).correlation_id
    kind = type(error).__name__
    logger.error("%s failed with %s: run %r", _where(request), kind, identity)
    return await _problem(request, 500, "internal server error", {})


async def _problem(
    request: HTTPConnection, status: int, detail: object, headers: dict[str, str]
) -> Response | None:
    if isinstance(request, WebSocket) and (
        request.application_state is WebSocketState.CONNECTED
    ):
        # It was answered when it was accepted.
        await request.close(_CLOSED.get(status, _CLOSED[500]))
        return None
    identity = context_of(request.scope).correlation_id
    # The handler of all errors stands outside of the middleware that adds it.
    if _is_safe(identity):
        headers["x-correlation-id"] = identity
    body = {"detail": detail, "correlation_id": identity}
    return JSONResponse(body, status, headers)


class EventStream(Response):
    """The chunks of a stream as server-sent events: `EventStream(workflow.stream(…))`.

    A text is the data of an event as it is, everything else as JSON. The answer begins
    with the first chunk, so that what fails before it has the status of an error. What
    fails later is an event `error` with the type of the error; a stream that was sent
    to its end has an event `done`. When the client goes away the stream is closed.

    Args:
        chunks: What to send; an async iterator, which is closed in any case.
        ping_seconds: How often to send a comment, so that no proxy takes a slow stream
            for a dead one; None for never.
        headers: More headers.
        status_code: The status.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[Any],
        *,
        ping_seconds: float | None = 15.0,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
    ) -> None:
        self.status_code = status_code
        self.background: None = None
        self._chunks = chunks
        self._ping_seconds = (
            None if ping_seconds is None else seconds("ping_seconds", ping_seconds)
        )
        # nginx keeps back what it does not know to be a stream.
        own = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self.init_headers({**own, **(headers or {})})

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - as ASGI has it
        receive: Receive,
        send: Send,
    ) -> None:
        """Send the stream, until its end or until the client goes away."""
        channel = _Channel(send)
        loop = running_loop()
        pump = loop.create_task(self._pump(channel))
        others = [loop.create_task(_gone(receive))]
        if self._ping_seconds is not None:
            others.append(loop.create_task(channel.ping(self._ping_seconds)))
        tasks = {pump, *others}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in others:
                # Looked at, or asyncio says that nobody has.
                _ = task.cancelled() or task.exception()
        with suppress(_GoneError):
            if not pump.cancelled():
                pump.result()

    async def _pump(self, channel: _Channel) -> None:
        async with closing(self._chunks) as chunks:
            each = aiter(chunks)
            chunk = await anext(each, _END)
            await channel.start(self.status_code, self.raw_headers)
            try:
                while chunk is not _END:
                    await channel.event(_data(chunk))
                    chunk = await anext(each, _END)
                await channel.event("", name="done")
            except _GoneError:
                raise
            except Exception as error:
                logger.exception("a stream failed after its answer had begun")
                await channel.event(
                    _data({"error": type(error).__name__}), name="error"
                )
            await channel.end()


class _GoneError(Exception):
    """The client went away."""


class _Channel:
    """Sends one event at a time, whoever has it sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self._is_started = asyncio.Event()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._write(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        self._is_started.set()

    async def event(self, data: str, name: str | None = None) -> None:
        lines = [] if name is None else [f"event: {name}"]
        lines += [f"data: {line}" for line in data.split("\n")]
        await self._text("\n".join(lines))

    async def ping(self, interval: float) -> None:
        await self._is_started.wait()
        while True:
            await asyncio.sleep(interval)
            await self._text(": ping")

    async def end(self) -> None:
        await self._write({"type": "http.response.body", "body": b""})

    async def _text(self, text: str) -> None:
        body = f"{text}\n\n".encode()
        await self._write(
            {"type": "http.response.body", "body": body, "more_body": True}
        )

    async def _write(self, message: Message) -> None:
        async with self._lock:
            try:
                await self._send(message)
            except OSError:
                raise _GoneError from None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _data(chunk: object) -> str:
    if isinstance(chunk, str):
        # A carriage return would end the line, and the event with the next.
        return chunk.replace("\r\n", "\n").replace("\r", "\n")
    return json.dumps(jsonable_encoder(chunk), ensure_ascii=False)
