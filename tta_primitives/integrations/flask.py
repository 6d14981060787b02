"""Workflows in Flask: one event loop for the process, contexts, probes, and the end.

tta = Tta(app, lifecycle=Lifecycle(checks={"redis": redis.ping}), request_timeout=10)

@app.post("/answer")
def answer():
    return jsonify(tta.run_workflow(workflow, request.get_json()))

@app.get("/status")
async def status():
    return await fetch_status()
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
import signal
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from tta_primitives.arguments import check_flag, seconds
from tta_primitives.context import Enforced, WorkflowContext, _is_safe
from tta_primitives.door import current
from tta_primitives.errors import (
    ExecutionRejectedError,
    RateLimitExceededError,
    TimeoutExceededError,
)
from tta_primitives.extras import needs
from tta_primitives.runtime.lifecycle import Lifecycle
from tta_primitives.runtime.loop_host import name_of
from tta_primitives.runtime.loop_thread import LoopThread, loop_thread

with needs("flask", __name__):
    from flask import (
        Blueprint,
        Flask,
        Response,
        current_app,
        has_request_context,
        jsonify,
        request,
    )

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future
    from types import FrameType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tta_primitives.integrations.pydantic import InputValidationError
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["Tta", "post_worker_init", "request_context", "run_workflow"]

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

logger: logging.Logger = logging.getLogger("tta_primitives")

_EXTENSION = "tta"
# Where a request keeps its context.
_CONTEXT = "tta.context"
_CORRELATION = "x-correlation-id"


def _key_of(header: str) -> str:
    """Return under which key WSGI has a header."""
    return "HTTP_" + header.upper().replace("-", "_")


_CORRELATION_KEY = _key_of(_CORRELATION)
_TRACE_KEYS = {_key_of(n): n for n in ("traceparent", "tracestate", "baggage")}


def _headers_in(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the headers that a context is made of."""
    headers = {n: environ[key] for key, n in _TRACE_KEYS.items() if key in environ}
    identity = environ.get(_CORRELATION_KEY, "").strip()
    # It comes back in a header, and goes to logs.
    if _is_safe(identity):
        headers[_CORRELATION] = identity
    return headers


class _Requests:
    """Gives each request its context, and each answer its correlation id.

    Args:
        app: The application inside.
        tta: Makes the contexts.
    """

    def __init__(self, app: WSGIApplication, tta: Tta) -> None:
        self._app = app
        self._tta = tta

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        context = self._tta.context_of(environ)

        def start(
            status: str,
            headers: list[tuple[str, str]],
            *rest: Any,  # noqa: ANN401 - what the application was failing with
        ) -> Callable[[bytes], object]:
            identity = context.correlation_id
            if all(name.lower() != _CORRELATION for name, _ in headers):
                # A view may have taken it from anywhere.
                more = [(_CORRELATION, identity)] if _is_safe(identity) else []
                headers = [*headers, *more]
            return start_response(status, headers, *rest)

        token = current.set(context)
        try:
            return self._app(environ, start)
        finally:
            current.reset(token)


class Tta:
    """An extension that runs workflows and `async def` views on the process's one loop.

    Nothing starts before a process serves its first request, so that it works with
    `gunicorn --preload` and with the reloader of the development server.

    Args:
        app: The application; with a factory, call `init_app` instead.
        lifecycle: What the probes ask and the end drains; one without checks unless
            given. It is started on the loop, and belongs to this extension.
        loop: The thread with the loop; that of the process unless given.
        request_timeout: Seconds from the beginning of a request, after which what runs
            on the loop for it is cancelled. They are the deadline of its context.
        timeout_header: The name of a header in which a caller may ask for less, in
            seconds; for instance `x-request-timeout`.
        trust_headers: Whether ids, trace and baggage of the caller are taken over;
            False at the edge, where callers are strangers.
        live: The path of the probe for liveness, None for none.
        ready: That for readiness.
        health: That for people, which says more; not for strangers.

    Attributes:
        lifecycle: As above.
        loop: As above.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        lifecycle: Lifecycle | None = None,
        loop: LoopThread | None = None,
        request_timeout: float | None = None,
        timeout_header: str | None = None,
        trust_headers: bool = True,
        live: str | None = "/livez",
        ready: str | None = "/readyz",
        health: str | None = None,
    ) -> None:
        if lifecycle is not None and not isinstance(lifecycle, Lifecycle):
            msg = f"lifecycle={lifecycle!r} must be a Lifecycle"
            raise TypeError(msg)
        self.lifecycle: Lifecycle = Lifecycle() if lifecycle is None else lifecycle
        self._own_loop = loop
        self._timeout = (
            None
            if request_timeout is None
            else seconds("request_timeout", request_timeout)
        )
        self._timeout_key = timeout_header and _key_of(timeout_header)
        self._trusts = check_flag("trust_headers", trust_headers)
        self._probes = {"live": live, "ready": ready, "health": health}
        # The loop on which the lifecycle was started.
        self._home: asyncio.AbstractEventLoop | None = None
        self._pid: int | None = None
        self._passing: asyncio.Task[None] | None = None
        if app is not None:
            self.init_app(app)

    @property
    def loop(self) -> LoopThread:
        """The thread with the loop of this process."""
        return loop_thread() if self._own_loop is None else self._own_loop

    def init_app(self, app: Flask) -> None:
        """Serve an application: contexts, `async def` views, errors and probes.

        Error handlers that the application has already are left as they are.
        """
        if _EXTENSION in app.extensions:
            msg = f"{app!r} has a Tta extension already"
            raise RuntimeError(msg)
        app.extensions[_EXTENSION] = self
        # Flask asks this of each async function that it comes across.
        app.async_to_sync = self.as_sync  # type: ignore[method-assign]
        # Flask takes longer to look at three hooks than these to do their work.
        app.wsgi_app = _Requests(app.wsgi_app, self)  # type: ignore[method-assign]
        app.register_blueprint(self._blueprint())
        _add_error_handlers(app)

    # --- running -------------------------------------------------------------

    def run_workflow(
        self,
        workflow: WorkflowPrimitive[In, Out],
        data: In,
        *,
        context: WorkflowContext | None = None,
    ) -> Out:
        """Execute a workflow on the loop and return its output; block until then.

        `flask.request`, `flask.g` and `current_app` can be used inside of it.

        Args:
            workflow: What to execute.
            data: Its input.
            context: That of the request unless given.

        Raises:
            TimeoutExceededError: The time of the request is up.
            LifecycleStoppedError: The process has drained.
        """
        return self.run(_executed(workflow, data, context or request_context()))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, within the time of the request.

        Raises:
            TimeoutExceededError: The time of the request is up.
            LifecycleStoppedError: The process has drained.
        """
        try:
            loop = self._started()
            limit = self._time_left(loop)
            return loop.run(
                self._tracked(coroutine), timeout=limit, name=_name_of(coroutine)
            )
        finally:
            _close_unbegun(coroutine)

    def _time_left(self, loop: LoopThread) -> float | None:
        """Return the seconds that the request has left, None without a limit."""
        if not has_request_context():
            return None
        deadline = request_context().deadline
        return None if deadline is None else max(0.0, deadline - loop.time())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin background work on the loop, which goes on when the request is over.

        The end of the process waits for it. What it needs of the request it should be
        given: the request is over when it runs.
        """
        try:
            future = self._started().submit(
                self._tracked(coroutine), name=name_of(coroutine)
            )
        except BaseException:
            _close_unbegun(coroutine)
            raise
        future.add_done_callback(lambda _: _close_unbegun(coroutine))
        return future

    def as_sync(self, func: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
        """Return a function that runs an async function on the loop."""

        @wraps(func)
        def run_it(*arguments: Any, **named: Any) -> T:  # noqa: ANN401 - the function's
            return self.run(func(*arguments, **named))

        return run_it

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self.lifecycle.track():
            return await coroutine

    # --- a request -----------------------------------------------------------

    def context_of(self, environ: WSGIEnvironment) -> WorkflowContext:
        """Return the context of a request, made of its headers if it has none yet."""
        context: WorkflowContext | None = environ.get(_CONTEXT)
        if context is None:
            headers = _headers_in(environ) if self._trusts else {}
            context = environ[_CONTEXT] = WorkflowContext.from_headers(headers)
            limit = self._limit_of(environ)
            if limit is not None:
                context.deadline = Enforced(self.loop.time() + limit)
        return context

    def _limit_of(self, environ: WSGIEnvironment) -> float | None:
        own = self._timeout
        if self._timeout_key is None:
            return own
        with suppress(ValueError):
            wanted = float(environ.get(self._timeout_key, ""))
            if 0 < wanted < math.inf:
                return wanted if own is None else min(wanted, own)
        return own

    # --- the process ---------------------------------------------------------

    def _started(self) -> LoopThread:
        """Return the loop, on which the lifecycle has been started."""
        loop = self.loop
        if self._home is not loop.loop:
            loop.run(self._start())
        return loop

    async def _start(self) -> None:
        """Start the lifecycle, on the loop: there one request comes after the other."""
        running = asyncio.get_running_loop()
        if self._home is running:
            return
        lifecycle = self.lifecycle
        if self._home is not None:
            _forget_life(lifecycle, self._home, is_child=self._pid != os.getpid())
        lifecycle.start()
        self._home, self._pid = running, os.getpid()
        loop = self.loop
        loop.at_close(lifecycle.drain)
        loop.drain_seconds = max(loop.drain_seconds, lifecycle._seconds)
        lifecycle.mark_ready()

    def install_signals(self, *, prestop: float | None = None) -> None:
        """Hear SIGTERM before the server does: be unready first, and end then.

        For gunicorn, `post_worker_init` calls it in each worker. It belongs into the
        main thread, after the server has set handlers of its own.

        Args:
            prestop: Seconds to go on serving after the signal while `/readyz` says 503;
                as the lifecycle has it unless given. A second signal ends that.
        """
        loop = self._started()
        before = signal.getsignal(signal.SIGTERM)
        if before is None or before is signal.SIG_IGN:
            return

        def hear(number: int, _frame: FrameType | None) -> None:
            signal.signal(number, before)
            try:
                loop.submit(self._hear(number, prestop, drains=not callable(before)))
            except RuntimeError:  # It is closed: there is nothing to wait for.
                os.kill(os.getpid(), number)

        signal.signal(signal.SIGTERM, hear)

    async def _hear(self, number: int, prestop: float | None, *, drains: bool) -> None:
        wait = self.lifecycle._begin(number)
        coroutine = self._pass_on(number, wait if prestop is None else prestop, drains)
        self._passing = asyncio.get_running_loop().create_task(coroutine)

    async def _pass_on(self, number: int, wait: float, drains: bool) -> None:  # noqa: FBT001 - private
        await asyncio.sleep(wait)
        if drains:
            # Nobody else does where the signal ends the process by default.
            await self.lifecycle.drain()
        os.kill(os.getpid(), number)

    # --- probes --------------------------------------------------------------

    def _blueprint(self) -> Blueprint:
        blueprint = Blueprint(_EXTENSION, __name__)
        views = {"live": self._live, "ready": self._ready, "health": self._health}
        for name, view in views.items():
            path = self._probes[name]
            if path is not None:
                blueprint.add_url_rule(path, name, view, methods=["GET"])
        return blueprint

    def _live(self) -> tuple[Response, int]:
        return _probe(*self.lifecycle.live())

    def _ready(self) -> tuple[Response, int]:
        return _probe(*self._started().run(self.lifecycle.ready()))

    def _health(self) -> tuple[Response, int]:
        return _probe(*self._started().run(self.lifecycle.health()))


def run_workflow(
    workflow: WorkflowPrimitive[In, Out],
    data: In,
    *,
    context: WorkflowContext | None = None,
) -> Out:
    """Execute a workflow on the loop of the current application; see `Tta`.

    For blueprints, which do not have the extension at hand.
    """
    return _current().run_workflow(workflow, data, context=context)


def request_context() -> WorkflowContext:
    """Return the context of the current request."""
    context: WorkflowContext | None = request.environ.get(_CONTEXT)
    return _current().context_of(request.environ) if context is None else context


def post_worker_init(worker: Any) -> None:  # noqa: ANN401 - gunicorn's, which may not be there
    """Be unready before a worker of gunicorn ends; import it in `gunicorn.conf.py`."""
    app = worker.wsgi
    extension = getattr(app, "extensions", {}).get(_EXTENSION)
    if extension is None:
        msg = (
            f"post_worker_init found no Tta extension in {app!r}; where the "
            "application is wrapped, call tta.install_signals() in a hook of your own"
        )
        raise RuntimeError(msg)
    extension.install_signals()


def _current() -> Tta:
    extension: Tta | None = current_app.extensions.get(_EXTENSION)
    if extension is None:
        msg = f"{current_app!r} has no Tta extension: write Tta(app)"
        raise RuntimeError(msg)
    return extension


async def _executed(
    workflow: WorkflowPrimitive[In, Out], data: In, context: WorkflowContext
) -> Out:
    return await workflow.execute(data, context)


def _name_of(coroutine: Coroutine[Any, Any, Any]) -> str:
    """Return what errors call the work of a request."""
    if not has_request_context() or request.url_rule is None:
        return name_of(coroutine)
    return _route()


def _route() -> str:
    """Return the route of a request, without values: they may be secrets."""
    rule = "(no route)" if request.url_rule is None else request.url_rule.rule
    return f"{request.method} {rule}"


def _close_unbegun(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close what was refused before it began, or Python says that nobody awaited it."""
    if getattr(coroutine, "cr_frame", None) is not None and (
        inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    ):
        coroutine.close()


def _forget_life(
    lifecycle: Lifecycle, home: asyncio.AbstractEventLoop, *, is_child: bool
) -> None:
    """Let a lifecycle begin anew that a parent has started, or on a loop that is over.

    In the same process, and on a running loop, it has one life already. One that broke
    does not run, though its thread may not have closed it yet.
    """
    if is_child or not home.is_running():
        lifecycle._runs.clear()
        lifecycle._tasks.clear()
        lifecycle._reset()


def _probe(status: int, body: dict[str, Any]) -> tuple[Response, int]:
    response = jsonify(body)
    response.headers["cache-control"] = "no-store"
    return response, status


def _add_error_handlers(app: Flask) -> None:
    present = app.error_handler_spec[None][None]
    handlers: dict[type[Exception], Callable[[Any], Any]] = {
        ExecutionRejectedError: _rejected,
        TimeoutExceededError: _timed_out,
        CancelledError: _cancelled,
    }
    with suppress(ModuleNotFoundError):  # Without pydantic nobody raises it.
        from tta_primitives.integrations import pydantic

        handlers[pydantic.InputValidationError] = _refused
    for kind, handler in handlers.items():
        if kind not in present:
            app.register_error_handler(kind, handler)


def _rejected(error: ExecutionRejectedError) -> tuple[Response, int]:
    is_limit = isinstance(error, RateLimitExceededError)
    detail = "too many requests" if is_limit else "not available at the moment"
    logger.info("%s was rejected: %s", _route(), error)
    response, status = _problem(429 if is_limit else 503, detail)
    after = error.retry_after
    if after is not None and math.isfinite(after):
        response.headers["retry-after"] = str(max(0, math.ceil(after)))
    return response, status


def _timed_out(error: TimeoutExceededError) -> tuple[Response, int]:
    logger.warning("%s: %s", _route(), error)
    return _problem(504, "the request took longer than its time limit")


def _refused(error: InputValidationError) -> tuple[Response, int]:
    return _problem(error.status_code, error.detail())


def _cancelled(_error: CancelledError) -> tuple[Response, int]:
    logger.warning("%s was cancelled", _route())
    return _problem(503, "the service is shutting down; ask again")


def _problem(status: int, detail: object) -> tuple[Response, int]:
    identity = request_context().correlation_id
    return jsonify(detail=detail, correlation_id=identity), status
