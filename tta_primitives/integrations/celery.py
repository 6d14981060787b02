"""Celery: async workflows as tasks.

Celery calls a task and takes what it returns; of an `async def` that is a coroutine,
which nobody runs. An `AsyncTask` runs it on the one event loop of its worker process,
which is started after the fork and lives as long as the process, with every client and
pool that was opened in it. Each task has contextvars and a `WorkflowContext` of its
own, which are read from the headers of its message.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from tta_primitives.arguments import seconds
from tta_primitives.context import WorkflowContext
from tta_primitives.extras import needs
from tta_primitives.primitive import as_primitive
from tta_primitives.runtime.loop_thread import loop_thread

with needs("celery", __name__):
    from celery import Task
    from celery.exceptions import SoftTimeLimitExceeded
    from celery.signals import (
        worker_init,
        worker_process_init,
        worker_process_shutdown,
        worker_shutdown,
    )

# What Celery brings along.
with needs("celery", __name__):
    from billiard.process import current_process
    from kombu.utils.compat import detect_environment

    from tta_primitives.integrations.celery_messages import (
        Carried,
        carried,
        carrying,
        message_headers,
        received,
    )

if TYPE_CHECKING:
    from collections.abc import Callable

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["AsyncTask", "carrying", "message_headers", "send", "workflow_task"]

_HARD_AFTER_SOFT_SECONDS = 30.0
"""How long after the soft limit the hard one comes: cleanup has five seconds."""

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


if TYPE_CHECKING:

    class _Task:
        """Celery's class, which has no types; some checkers guess wrong ones."""

        __header__: Any
        _get_app: Any
        _get_request: Any
        apply: Any
        name: Any
        request_stack: Any
        run: Any

        def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401 - as above

else:
    _Task = Task


class AsyncTask(_Task):
    """A task whose body may be `async def`.

    Use it for a whole app, `Celery("jobs", task_cls=AsyncTask)`, or for one task,
    `@app.task(base=AsyncTask)`. A parameter that is annotated `WorkflowContext` gets
    the context of the task and is no argument of `delay`. Bodies that are not async
    run as ever.

    Attributes:
        is_async: Whether the body is run on the loop.
    """

    abstract = True
    is_async = False
    _body: Any = None
    _inject: _Injection | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - the mixins' own
        """Put the way to the loop around the body of a task."""
        super().__init_subclass__(**kwargs)
        if "run" in vars(cls):
            _wrap(cls, vars(cls)["run"])

    @property
    def request(self) -> Any:  # noqa: ANN401 - Celery has no types
        """Celery's request, also in the loop, whose thread Celery knows nothing of."""
        if self.request_stack.top is None:
            running = carried()
            if running is not None and _is_of(running.request, self):
                return running.request
        return self._get_request()

    async def call(
        self,
        context: WorkflowContext,
        /,
        *args: Any,  # noqa: ANN401 - the body's own
        **kwargs: Any,  # noqa: ANN401 - the body's own
    ) -> Any:  # noqa: ANN401 - as above
        """Await the body in the loop that runs, as a test does.

        Args:
            context: What a parameter annotated `WorkflowContext` gets.
            args: Arguments of the task.
            kwargs: Arguments of the task.
        """
        with carrying(context):
            result = self._begin(context, args, kwargs)
            return await result if inspect.isawaitable(result) else result

    def apply(
        self,
        args: Any = None,  # noqa: ANN401 - as Celery
        kwargs: Any = None,  # noqa: ANN401 - as Celery
        *positional: Any,  # noqa: ANN401 - as Celery
        headers: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - as Celery
    ) -> Any:  # noqa: ANN401 - as Celery
        """Execute the task here and now, as Celery does, with the caller's context."""
        # No message is published, so that no signal can give it headers.
        outer = carried()
        if outer is not None:
            headers = {**outer.headers(), **(headers or {})}
        options["headers"] = headers
        return super().apply(args, kwargs, *positional, **options)

    def _begin(
        self, context: WorkflowContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - a coroutine, or what the body returns
        if self._inject is not None:
            args, kwargs = self._inject.put(context, args, kwargs)
        return self._body(*args, **kwargs)

    def _perform(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        """Run the body, in the worker's thread until it is done."""
        running = carried()
        if running is None or not _is_of(running.request, self):
            running = received(self.request)  # It is called directly, as a function.
            if running.request.id is None:
                running = Carried(_context_here(), request=running.request)
        if not self.is_async:
            return self._begin(running.context, args, kwargs)
        _refuse_green_threads(self.name)
        _refuse_own_loop(self.name)
        try:
            result = loop_thread().run(self._work(running, args, kwargs))
        except CancelledError:
            msg = f"the work of task {self.name!r} was cancelled, and it let it happen"
            raise RuntimeError(msg) from None
        return _dumped(result) if self._dump_pydantic_arguments else result

    async def _work(
        self, running: Carried, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - as above
        """Run the body, in the loop."""
        soft = _soft_limit(self, running.request)
        running.begin(soft)
        try:
            if soft is None or _is_pool_child():
                return await self._begin(running.context, args, kwargs)
            # Only the prefork pool has limits of its own.
            return await _limited(self._begin(running.context, args, kwargs), soft)
        finally:
            running.note()


class _Injection:
    """Where in its arguments a body wants the context.

    Args:
        parameter: The parameter.
        before: How many positional arguments come before it; None where it is given by
            its name.
    """

    def __init__(self, parameter: inspect.Parameter, before: int | None) -> None:
        self.name = parameter.name
        self._before = before

    def put(
        self, context: WorkflowContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with the context in its place."""
        before = self._before
        if self.name in kwargs or before is None or len(args) < before:
            return args, {self.name: context, **kwargs}
        return (*args[:before], context, *args[before:]), kwargs


def _wrap(cls: type[AsyncTask], run: Any) -> None:  # noqa: ANN401 - function, staticmethod
    """Let `run` of a task class lead to the loop, and hide the context's parameter."""
    is_bound = not isinstance(run, staticmethod)
    body = run if is_bound else run.__func__
    cls._body = run
    cls.is_async = inspect.iscoroutinefunction(inspect.unwrap(body))
    if inspect.isasyncgenfunction(inspect.unwrap(body)):
        msg = f"task {cls.name or body.__name__!r} yields; let it return the whole"
        raise TypeError(msg)
    parameters = list(inspect.signature(body).parameters.values())
    own = parameters[1:] if is_bound else parameters
    cls._inject, shown = _hidden(own)

    def enter(self: AsyncTask, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the body's own
        return self._perform(args, kwargs)

    def head() -> None:
        """Have the signature that Celery checks arguments with."""

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    for function in (enter, head):
        function.__name__, function.__module__ = body.__name__, body.__module__
        function.__doc__ = body.__doc__
    enter.__signature__ = inspect.Signature([first, *shown])  # type: ignore[attr-defined]
    head.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    cls.run = enter
    if "__header__" in vars(cls) and cls._inject is not None:
        cls.__header__ = cls._get_app().type_checker(head)


def _hidden(
    parameters: list[inspect.Parameter],
) -> tuple[_Injection | None, list[inspect.Parameter]]:
    """Find the parameter for the context; return it, and the others."""
    for index, parameter in enumerate(parameters):
        if _is_context(parameter):
            others = [p for p in parameters if p is not parameter]
            before = index if parameter.kind in _POSITIONAL else None
            return _Injection(parameter, before), others
    return None, parameters


def _is_context(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter is annotated with the context, as text or as a class."""
    annotation = parameter.annotation
    written = annotation.strip("'\"") if isinstance(annotation, str) else ""
    name = written or getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] == WorkflowContext.__name__


def _is_of(request: Any, task: AsyncTask) -> bool:  # noqa: ANN401 - Celery has no types
    return request is not None and getattr(request, "task", None) == task.name


def _context_here() -> WorkflowContext:
    """Return the context of who calls a task as a function, or a new one."""
    outer = carried()
    return WorkflowContext() if outer is None else outer.context.child()


def _dumped(result: Any) -> Any:  # noqa: ANN401 - of a task with pydantic=True
    """Return a model as plain data, as `pydantic=True` does for bodies not async."""
    return result.model_dump(mode="json") if hasattr(result, "model_dump") else result


# --- limits and pools -------------------------------------------------------


def _soft_limit(task: AsyncTask, request: Any) -> float | None:  # noqa: ANN401 - as above
    """Return the seconds of the soft limit that holds for this message."""
    limits = getattr(request, "timelimit", None) or (None, None)
    found = limits[1] if limits[1] is not None else task.soft_time_limit
    return None if found is None else float(found)


def _is_pool_child() -> bool:
    """Tell whether this is a process of the prefork pool, which has its own limits."""
    return bool(current_process().name != "MainProcess")


async def _limited(work: Any, limit: float) -> Any:  # noqa: ANN401 - as the body's
    """Await the body, cancelled at the soft limit as the prefork pool does it."""
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await work
    except TimeoutError:
        if scope.expired():
            raise SoftTimeLimitExceeded(limit) from None
        raise


def _refuse_green_threads(name: str) -> None:
    environment = detect_environment()  # type: ignore[no-untyped-call]
    if environment != "default":
        msg = (
            f"task {name!r} is async and cannot run in a worker of {environment}: its "
            "patched threads have no room for an event loop. Start the worker with "
            "`-P threads` (or prefork): the loop runs many such tasks at once"
        )
        raise RuntimeError(msg)


def _refuse_own_loop(name: str) -> None:
    """Say how one async task runs another; waiting for it would stop both."""
    if any(host.is_here for host in loop_thread()._hosts.values()):
        msg = (
            f"task {name!r} was called inside the body of an async task, whose loop "
            "would wait for itself: write `await send(task.s(...))` to publish it, or "
            "`await task.call(context, ...)` to run it here"
        )
        raise RuntimeError(msg)


def _check_pool(sender: Any = None, **_: object) -> None:  # noqa: ANN401 - Celery's worker
    """Refuse to start a worker that would fail each of its async tasks."""
    for task in sender.app.tasks.values():
        if isinstance(task, AsyncTask) and task.is_async:
            try:
                _refuse_green_threads(task.name)
            except RuntimeError as error:
                raise SystemExit(str(error)) from None


# --- the end of a worker ----------------------------------------------------


def _close_loop(**_: object) -> None:
    """Drain the loop of this process and end it."""
    loop_thread().close()


def _close_last(**_: object) -> None:
    """Close the loop after whatever the user does at the end of a worker process.

    Signals come in the order in which their receivers were connected, and modules with
    tasks import this one first.
    """
    for signal in (worker_process_shutdown, worker_shutdown):
        signal.disconnect(_close_loop)
        signal.connect(_close_loop, weak=False)


worker_init.connect(_check_pool, weak=False)
worker_init.connect(_close_last, weak=False)
worker_process_init.connect(_close_last, weak=False)


# --- what users call --------------------------------------------------------


async def send(
    signature: Any,  # noqa: ANN401 - Celery has no types
    *,
    context: WorkflowContext | None = None,
    **options: Any,  # noqa: ANN401 - those of `apply_async`
) -> Any:  # noqa: ANN401 - Celery has no types
    """Publish a task from async code; the loop goes on meanwhile.

    `delay` and `apply_async` block until the broker has taken the message, and with
    them everything else in the loop.

    Args:
        signature: What to publish: `task.s(...)`, a chain, a group.
        context: What the task is to be a part of; inside a task its own, unless given.
        options: Those of `apply_async`, for instance `queue` or `expires`.

    Returns:
        Celery's `AsyncResult`. Do not call its `get` in the loop, it blocks, too.
    """
    publish = partial(signature.apply_async, **options)
    if context is None:
        running = carried()
        if running is not None:
            running.note()
        return await asyncio.to_thread(publish)
    with carrying(context):
        return await asyncio.to_thread(publish)


def workflow_task(
    app: Any,  # noqa: ANN401 - Celery has no types
    workflow: WorkflowPrimitive[Any, Any] | Callable[..., Any],
    *,
    name: str,
    soft_time_limit: float | None = None,
    **options: Any,  # noqa: ANN401 - those of `app.task`
) -> Any:  # noqa: ANN401 - Celery has no types
    """Make a task of a workflow, to be called with the workflow's input.

    A worker that dies loses no such task: its message is acknowledged when the work is
    done, and goes back to the queue when the worker is lost. So it may run twice; its
    steps see the same idempotency keys again.

    Args:
        app: The Celery app.
        workflow: What the task executes.
        name: The name of the task, in messages and in logs.
        soft_time_limit: Seconds after which the workflow is cancelled; it then cleans
            up. Half a minute later the prefork pool kills the process, unless
            `time_limit` says something else.
        options: Further options of `app.task`, for instance `rate_limit`.

    Raises:
        TypeError: It is no workflow, or the name is no text.
        ValueError: A limit is not above 0.
    """
    primitive = as_primitive(workflow)
    if not isinstance(name, str) or not name:
        msg = f"name={name!r} must be a text, for instance 'orders.process'"
        raise TypeError(msg)
    options = {
        "acks_late": True,
        "base": AsyncTask,
        "reject_on_worker_lost": True,
        "shared": False,
        **options,
    }
    if soft_time_limit is not None:
        limit = seconds("soft_time_limit", soft_time_limit)
        options["soft_time_limit"] = limit
        options.setdefault("time_limit", limit + _HARD_AFTER_SOFT_SECONDS)

    async def execute(value: Any, context: WorkflowContext) -> Any:  # noqa: ANN401 - any primitive's
        """Execute the workflow."""
        return await primitive.execute(value, context)

    execute.__doc__ = f"Execute the workflow {primitive.name!r}."
    return app.task(execute, name=name, **options)
