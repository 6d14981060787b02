"""Requests of any ASGI application as runs: contexts, deadlines, and a drain.

It needs no library. It is plain ASGI, as a middleware that calls the application in a
task of its own would take its context variables and its streams away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.context import (
    Enforced,
    WorkflowContext,
    _is_traceparent,
    _parse_baggage,
)
from tta_primitives.door import current
from tta_primitives.loops import now, running_loop
from tta_primitives.runtime.lifecycle import Lifecycle, LifecycleStoppedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tta_primitives.runtime.lifecycle import TrackedRun

__all__ = ["WorkflowMiddleware", "context_of", "route_of"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

logger: logging.Logger = logging.getLogger("tta_primitives")

# Where the context of a request is kept in its scope.
_KEY = "tta.context"
_CORRELATION = "x-correlation-id"
_CORRELATION_BYTES = _CORRELATION.encode()
_MAX_ID = 256
_NAMES = {
    name.encode(): name
    for name in (_CORRELATION, "traceparent", "tracestate", "baggage")
}
# Who asks whether the process is ready is no work to wait for.
_UNTRACKED = ("/livez", "/readyz", "/health", "/metrics")
# A server may offer to send a file itself; that message is the last one then.
_LAST = frozenset({"http.response.body", "http.response.pathsend"})
_TIMED_OUT, _UNAVAILABLE = 504, 503
_WORDS = {
    _TIMED_OUT: "the request took longer than its time limit",
    _UNAVAILABLE: "the service is shutting down; ask again",
}


def context_of(scope: Scope) -> WorkflowContext:
    """Return the context of a request, made of its headers if it has none yet.

    `x-correlation-id`, `traceparent`, `tracestate` and `baggage` are taken over if they
    are well-formed; what is malformed is left out and fails no request.
    """
    context: WorkflowContext | None = scope.get(_KEY)
    if context is None:
        context = scope[_KEY] = WorkflowContext()
        found = _headers_of(scope)
        if found:
            _take_over(context, found)
    return context


def route_of(scope: Scope) -> str:
    """Return the route of a request, without values: they may be secrets."""
    path = getattr(scope.get("route"), "path", None)
    return f"{scope['method']} {path or '(no route)'}"


def _headers_of(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope.get("headers", ()):
        if name in _NAMES:
            known, text = _NAMES[name], value.decode("latin-1").strip()
            # Lists may be split over several lines; a second traceparent spoils both.
            found[known] = f"{found[known]},{text}" if known in found else text
    return found


def _take_over(context: WorkflowContext, found: dict[str, str]) -> None:
    """Set what well-formed headers say, as `WorkflowContext.from_headers` does."""
    # Written out for what is there: most requests have one of them, or none.
    identity = found.get(_CORRELATION)
    if identity is not None and _is_id(identity):
        context.correlation_id = identity
    traceparent = found.get("traceparent")
    if traceparent is not None and _is_traceparent(traceparent):
        context.traceparent = traceparent
        if "tracestate" in found:
            context.tracestate = found["tracestate"]
    if "baggage" in found:
        context.baggage = _parse_baggage(found["baggage"])


def _is_id(text: str) -> bool:
    return 0 < len(text) <= _MAX_ID and text.isascii() and text.isprintable()


class WorkflowMiddleware:
    """Gives each request a `WorkflowContext`, a time limit and a place in the drain.

    The answer has the `x-correlation-id` of the context. While the application works,
    `tta_primitives.door.current_context()` is the context, for logs.

    Args:
        app: The application.
        lifecycle: Whose drain waits for requests, and cancels them when the time is up.
        request_timeout: Seconds until a request that has not begun to answer is
            cancelled and answered with 504. They are the deadline of its context.
        timeout_header: The name of a header in which a caller may ask for less, in
            seconds; for instance `x-request-timeout`.
        cancel_on_disconnect: Whether a request is cancelled when its client goes away
            before it is answered. Handlers that must come to their end, such as
            payments, need it to be False.
        untracked: Paths for which no drain waits, such as those of probes.
        trust_headers: Whether ids, trace and baggage of the caller are taken over;
            False at the edge, where callers are strangers.
    """

    def __init__(
        self,
        app: App,
        *,
        lifecycle: Lifecycle | None = None,
        request_timeout: float | None = None,
        timeout_header: str | None = None,
        cancel_on_disconnect: bool = False,
        untracked: Iterable[str] = _UNTRACKED,
        trust_headers: bool = True,
    ) -> None:
        if lifecycle is not None and not isinstance(lifecycle, Lifecycle):
            msg = f"lifecycle={lifecycle!r} must be a Lifecycle"
            raise TypeError(msg)
        self._app = app
        self._lifecycle = lifecycle
        self._timeout = (
            None
            if request_timeout is None
            else seconds("request_timeout", request_timeout)
        )
        self._timeout_header = timeout_header and timeout_header.lower().encode()
        self._watches = check_flag("cancel_on_disconnect", cancel_on_disconnect)
        self._untracked = frozenset(untracked)
        self._trusts = check_flag("trust_headers", trust_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one websocket; pass on what is neither."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if not self._trusts:
            scope[_KEY] = WorkflowContext()
        context = context_of(scope)
        token = current.set(context)
        try:
            if scope["type"] == "http":
                await self._serve(scope, receive, _Reply(send, context))
            else:
                await self._app(scope, receive, send)
        finally:
            current.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        run = None
        if self._lifecycle is not None and scope["path"] not in self._untracked:
            run = self._lifecycle.track()
            try:
                run.__enter__()
            except LifecycleStoppedError:
                await reply.refuse(_UNAVAILABLE)
                return
        try:
            await self._watched(scope, receive, reply, run)
        finally:
            if run is not None:
                run.__exit__(None, None, None)

    async def _watched(
        self, scope: Scope, receive: Receive, reply: _Reply, run: TrackedRun | None
    ) -> None:
        """Serve a request, unless a drain cuts it or its client leaves it."""
        client = _Client(receive, reply) if self._watches else None
        try:
            if client is not None:
                client.watch()
                receive = client.receive
            await self._limited(scope, receive, reply)
        except asyncio.CancelledError:
            is_gone = client is not None and client.is_gone
            is_cut = run is not None and run.is_cut and not reply.is_started
            task = asyncio.current_task()
            # A cancellation from elsewhere goes on.
            if task is None or not (is_gone or is_cut) or task.uncancel() > 0:
                raise
            if not is_gone:
                await reply.refuse(_UNAVAILABLE)
        finally:
            if client is not None:
                await client.leave()

    async def _limited(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        """Serve a request until it has begun to answer, or the time is up."""
        limit = self._limit_of(scope)
        if limit is None:
            await self._app(scope, receive, reply.send)
            return
        deadline = now() + limit
        # Limits inside leave it to this one, which gives the answer.
        reply.context.deadline = Enforced(deadline)
        timeout = asyncio.timeout_at(deadline)
        try:
            async with timeout as reply.limit:
                await self._app(scope, receive, reply.send)
        except TimeoutError:
            if not timeout.expired():
                raise
            logger.warning(
                "%s took longer than its limit of %g s", route_of(scope), limit
            )
            await reply.refuse(_TIMED_OUT)

    def _limit_of(self, scope: Scope) -> float | None:
        own, name = self._timeout, self._timeout_header
        if name is None:
            return own
        asked = [_seconds_in(value) for key, value in scope["headers"] if key == name]
        return min(
            [limit for limit in (own, *asked) if limit is not None], default=None
        )


def _seconds_in(value: bytes) -> float | None:
    """Return the seconds that a header asks for, None if it makes no sense."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if 0 < found < math.inf else None


class _Reply:
    """What is sent to the client, with our header.

    Attributes:
        context: The context of the request.
        limit: The time limit until the answer has begun, None without.
        is_started: Whether the answer has begun.
        is_complete: Whether it is over.
    """

    __slots__ = ("_send", "context", "is_complete", "is_started", "limit")

    def __init__(self, send: Send, context: WorkflowContext) -> None:
        self._send = send
        self.context = context
        self.limit: asyncio.Timeout | None = None
        self.is_started = self.is_complete = False

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        kind = message["type"]
        if kind == "http.response.start":
            self._begin()
            self._sign(message)
        elif kind in _LAST and not message.get("more_body"):
            self.is_complete = True
        await self._send(message)

    def _begin(self) -> None:
        self.is_started = True
        if self.limit is not None and not self.limit.expired():
            # A stream may take longer; what is inside of it sees to the deadline now.
            self.limit.reschedule(None)
            deadline = self.context.deadline
            self.context.deadline = None if deadline is None else float(deadline)

    def _sign(self, message: Message) -> None:
        """Add the correlation id, unless the application has."""
        # It may be an iterator, which is over when it was looked at.
        message["headers"] = headers = list(message.get("headers", ()))
        for name, _ in headers:
            if name.lower() == _CORRELATION_BYTES:
                return
        identity = self.context.correlation_id
        if _is_id(identity):
            headers.append((_CORRELATION_BYTES, identity.encode("ascii")))

    async def refuse(self, status: int) -> None:
        """Answer in the application's place, if it has not begun to."""
        if self.is_started:
            return
        identity = self.context.correlation_id
        problem = {"detail": _WORDS[status], "correlation_id": identity}
        body = json.dumps(problem, separators=(",", ":")).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == _UNAVAILABLE:
            headers += [(b"retry-after", b"1"), (b"connection", b"close")]
        start: Message = {"type": "http.response.start", "status": status}
        start["headers"] = headers
        self._sign(start)
        self.is_started = self.is_complete = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


class _Client:
    """Reads ahead of the application, to notice when the client goes away.

    Args:
        receive: Returns what the client sends.
        reply: What it is answered.

    Attributes:
        is_gone: Whether it went away before it was answered.
    """

    def __init__(self, receive: Receive, reply: _Reply) -> None:
        self._receive = receive
        self._reply = reply
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._task = asyncio.current_task()
        self._listener: asyncio.Task[None] | None = None
        self._is_over = self.is_gone = False

    def watch(self) -> None:
        """Begin to read."""
        self._listener = running_loop().create_task(self._listen())

    async def receive(self) -> Message:
        """Return the next message to the application."""
        if self._is_over and self._messages.empty():
            return {"type": "http.disconnect"}
        message = await self._messages.get()
        self._messages.task_done()
        if isinstance(message, Exception):
            # Whoever asks again must not wait for ever.
            self._messages.put_nowait(message)
            raise message
        return message

    async def leave(self) -> None:
        """Stop reading."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener})

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._receive()
            except Exception as error:  # noqa: BLE001 - the application gets it
                self._messages.put_nowait(error)
                return
            self._messages.put_nowait(message)
            if message["type"] == "http.disconnect":
                self._is_over = True
                if not self._reply.is_complete and self._task is not None:
                    self.is_gone = True
                    self._task.cancel("the client went away")
                return
            if message.get("more_body"):
                # No more of a large body is kept than the application has asked for.
                await self._messages.join()
