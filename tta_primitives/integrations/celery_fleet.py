"""A fleet on Celery: steps are performed by the processes that `celery worker` starts.

    fleet = CeleryEngine(Registry(summarize))             # in this process, for a start
    fleet = CeleryEngine(Registry(summarize), app=app)    # the workers of the app

Callers and workers import the same module, which makes the engine at its top.
`remote(summarize, engine=fleet)` is the step on a worker.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from tta_primitives.context import WorkflowContext
from tta_primitives.distributed.errors import (
    EngineClosedError,
    EngineError,
    RemoteDataError,
)
from tta_primitives.distributed.mail import MailEngine
from tta_primitives.distributed.task import RemoteTask
from tta_primitives.distributed.worker import Worker
from tta_primitives.extras import needs
from tta_primitives.runtime.loop_thread import loop_thread

with needs("celery", __name__):
    from celery import Celery
    from celery.exceptions import Reject

    from tta_primitives.integrations.celery import AsyncTask
    from tta_primitives.integrations.celery_mailbox import (
        AWAY,
        BrokerMailbox,
        LocalMailbox,
        Mailbox,
    )

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tta_primitives.distributed.registry import Registry

__all__ = ["CeleryEngine"]

logger: logging.Logger = logging.getLogger(__name__)

_TASK_NAME = "tta.perform"
_AT_ONCE = 64
"""How many calls the engine without a broker performs at a time."""


class CeleryEngine(MailEngine):
    """Lets the workers of a Celery app perform calls.

    The task is registered on the app when this is made; nothing else has to be. Replies
    come back over the broker, to one thread for the engine; no result backend is used.

    Args:
        registry: What workers can be asked for.
        app: The app; one that performs calls in this process unless given.
        name: Names the fleet: its task and its queues, when an app has several.
        queue: The queue that the workers take from; the app's default unless given.
        remembered: How many replies a worker keeps for tasks that come twice.

    Raises:
        ValueError: The app has an engine of this name, or a broker in memory, which
            no other process could reach.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        app: Any = None,  # noqa: ANN401 - Celery has no types
        name: str = "tta",
        queue: str | None = None,
        remembered: int = 100,
    ) -> None:
        super().__init__()
        self.registry = registry
        self._is_embedded = app is None
        self.app: Any = _embedded_app() if app is None else app
        self._mailbox: Mailbox = LocalMailbox()
        if not self._is_embedded:
            _check_broker(self.app)
            self._mailbox = BrokerMailbox(self.app, prefix=name)
        self._queue = queue
        self._worker = Worker(registry, remembered=remembered)
        self._threads: ThreadPoolExecutor | None = None
        self._task = self._register(f"{name}.{_TASK_NAME.rpartition('.')[2]}")

    def _register(self, name: str) -> Any:  # noqa: ANN401 - Celery has no types
        if name in self.app._tasks:
            msg = f"this app has an engine whose task is {name!r}: give name="
            raise ValueError(msg)

        async def perform(task: str, address: str) -> None:
            await self._perform(task, address)

        return self.app.task(
            perform,
            name=name,
            base=AsyncTask,
            lazy=False,
            shared=False,
            acks_late=True,
            reject_on_worker_lost=True,
            ignore_result=True,
        )

    # --- the caller's side --------------------------------------------------

    async def _connect(self) -> None:
        try:
            await asyncio.to_thread(self._mailbox.receive, _here(self._deliver))
        except asyncio.CancelledError:
            self._mailbox.give_up()
            raise
        if self._is_embedded:
            self._mailbox.obey(self._cancel)
            self._threads = ThreadPoolExecutor(_AT_ONCE, "tta-celery")

    async def _disconnect(self) -> None:
        if self._threads is not None:
            closing = loop_thread().submit(self._worker.close())
            await asyncio.wrap_future(closing)
            threads, self._threads = self._threads, None
            await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(self._mailbox.close)

    def _revoke(self, call_id: str) -> Coroutine[Any, Any, None]:
        return asyncio.to_thread(self._mailbox.revoke, call_id)

    async def _send(self, task: RemoteTask) -> None:
        args = (task.to_json(), self._mailbox.address)
        options: dict[str, Any] = {"task_id": task.call_id, "headers": _headers(task)}
        if self._threads is not None:
            running = self._threads.submit(self._task.apply, args, **options)
            running.add_done_callback(partial(_log_failure, task.path))
            return
        if self._queue is not None:
            options["queue"] = self._queue
        try:
            await asyncio.to_thread(self._task.apply_async, args, **options)
        except AWAY as error:
            reason = type(error.__cause__ or error).__name__
            msg = f"{task.path!r} could not be sent to the broker: {reason}"
            raise EngineError(msg) from error

    # --- the worker's side, on the loop of its process ----------------------

    async def _perform(self, text: str, address: str) -> None:
        """Perform a task that Celery has brought, and post the reply."""
        try:
            task = RemoteTask.from_json(text)
        except RemoteDataError as error:
            logger.warning("what came instead of a task is dropped: %s", error)
            return
        if not self._is_embedded:
            await asyncio.to_thread(self._mailbox.obey, _here(self._worker.cancel))
        try:
            reply = await self._worker.perform(task)
        except EngineClosedError as error:
            raise Reject(str(error), requeue=not self._is_embedded) from error
        try:
            await asyncio.to_thread(self._mailbox.post, address, reply.to_json())
        except AWAY as error:
            # It comes again, and the reply is remembered.
            msg = f"the reply could not be posted: {type(error).__name__}"
            raise Reject(msg, requeue=True) from error

    def _cancel(self, call_id: str) -> None:
        """Cancel a call on the loop that performs it."""

        async def cancel() -> None:
            self._worker.cancel(call_id)

        loop_thread().run(cancel())

    def __repr__(self) -> str:
        where = "here" if self._is_embedded else self.app.main
        return f"<{type(self).__name__} {where!r} {', '.join(self.registry.names)}>"


def _embedded_app() -> Any:  # noqa: ANN401 - Celery has no types
    """Return an app whose tasks are executed where they are called."""
    return Celery("tta-fleet", broker="memory://", set_as_current=False)


def _check_broker(app: Any) -> None:  # noqa: ANN401 - Celery has no types
    url = app.conf.broker_url or ""
    if url.startswith("memory:"):
        msg = (
            f"the broker {url!r} of {app!r} is in this process, where no worker gets "
            "at it: leave app= out, and calls are performed here"
        )
        raise ValueError(msg)


def _headers(task: RemoteTask) -> dict[str, str]:
    """Return the headers by which the message belongs to the caller's run."""
    told = task.context
    context = WorkflowContext(
        told.get("correlation_id"),
        traceparent=told.get("traceparent"),
        tracestate=told.get("tracestate"),
        baggage=told.get("baggage"),
    )
    return context.to_headers()


def _here(function: Callable[[str], object]) -> Callable[[str], object]:
    """Return what calls a function in the loop that runs now, from any thread."""
    loop = asyncio.get_running_loop()
    return lambda text: loop.call_soon_threadsafe(function, text)


def _log_failure(path: str, running: Any) -> None:  # noqa: ANN401 - a future of Celery's result
    """Tell of what went wrong around a step; its own errors are in its reply."""
    error = running.exception()
    if error is not None:
        logger.error("%r was not performed", path, exc_info=error)
