"""A fleet on taskiq: steps are performed by the processes that `taskiq worker` starts.

    fleet = TaskiqEngine(Registry(summarize))  # in this process, for a start
    fleet = redis_fleet("redis://...", Registry(summarize))
    broker = fleet.broker  # taskiq worker module:broker

Callers and workers import the same module. `remote(summarize, engine=fleet)` is the
step on a worker; `redis_fleet` is in `tta_primitives.integrations.taskiq_redis`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from tta_primitives.distributed.errors import (
    EngineClosedError,
    EngineError,
    RemoteDataError,
)
from tta_primitives.distributed.failures import failure_of
from tta_primitives.distributed.mail import MailEngine
from tta_primitives.distributed.task import RemoteReply, RemoteTask
from tta_primitives.distributed.worker import Worker
from tta_primitives.extras import needs
from tta_primitives.loops import now

with needs("taskiq", __name__):
    from taskiq import Context, InMemoryBroker, TaskiqDepends, TaskiqEvents
    from taskiq.exceptions import TaskiqError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from taskiq import AsyncBroker

    from tta_primitives.distributed.registry import Registry

__all__ = ["DELIVERIES_LABEL", "LocalMailbox", "Mailbox", "TaskiqEngine", "unanswered"]

logger: logging.Logger = logging.getLogger(__name__)

TASK_NAME = "tta.perform"
DELIVERIES_LABEL = "tta_deliveries"
"""The label by which a broker says that a task was delivered too often."""

unanswered: ContextVar[bool] = ContextVar("tta_unanswered", default=False)
"""Whether the task that is being executed got no reply, and must not be acknowledged.

taskiq acknowledges in the task and context that has executed the function.
"""


class Mailbox(Protocol):
    """Brings replies to callers, and cancellations to workers.

    Attributes:
        address: Where replies to this process are posted.
    """

    address: str

    async def receive(self, deliver: Callable[[str], None]) -> None:
        """Begin to hand over the replies that are posted to this process."""

    async def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to hand over the ids of calls that were cancelled."""

    async def post(self, address: str, reply: str) -> None:
        """Post a reply; it is there when this returns."""

    async def revoke(self, call_id: str) -> None:
        """Cancel a call, wherever it is."""

    async def is_revoked(self, call_id: str) -> bool:
        """Tell whether a call was cancelled before anybody began it."""
        ...

    def now(self) -> float:
        """Return the time in seconds on a clock that all processes share."""
        ...

    async def close(self) -> None:
        """End everything that was begun."""


class LocalMailbox:
    """The mailbox of a fleet that is this process alone."""

    address = "here"

    def __init__(self) -> None:
        self._deliver: Callable[[str], None] = _nobody
        self._cancel: Callable[[str], object] = _nobody

    async def receive(self, deliver: Callable[[str], None]) -> None:
        """Begin to hand over replies."""
        self._deliver = deliver

    async def obey(self, cancel: Callable[[str], object]) -> None:
        """Begin to hand over cancellations."""
        self._cancel = cancel

    async def post(self, address: str, reply: str) -> None:  # noqa: ARG002 - there is one
        """Hand over a reply."""
        self._deliver(reply)

    async def revoke(self, call_id: str) -> None:
        """Cancel a call."""
        self._cancel(call_id)

    async def is_revoked(self, call_id: str) -> bool:  # noqa: ARG002 - as the protocol
        """Tell nothing: the one worker knows by itself."""
        return False

    def now(self) -> float:
        """Return the time of the event loop."""
        return now()

    async def close(self) -> None:
        """Forget both."""
        self._deliver = self._cancel = _nobody


def _nobody(_: str) -> None:
    """Take what comes when nobody waits for it any more."""


class TaskiqEngine(MailEngine):
    """Lets the workers of a taskiq broker perform calls.

    The task is registered on the broker when this is made; nothing else has to be. A
    reply comes back through the mailbox, so that nobody polls for results.

    Args:
        registry: What workers can be asked for.
        broker: The broker, for one fleet; `InMemoryBroker()` unless given, which
            performs calls in this process.
        mailbox: Brings replies back; must be given for a broker that leaves the
            process.
        remembered: How many replies a worker keeps for tasks that come twice.

    Raises:
        ValueError: A broker of other processes was given without a mailbox, or one that
            has an engine.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        broker: AsyncBroker | None = None,
        mailbox: Mailbox | None = None,
        remembered: int = 100,
    ) -> None:
        super().__init__()
        self.broker: InMemoryBroker | AsyncBroker = (
            InMemoryBroker() if broker is None else broker
        )
        if mailbox is None and not isinstance(self.broker, InMemoryBroker):
            msg = (
                f"{type(self.broker).__name__} leaves this process: give mailbox=, for "
                "instance RedisMailbox(url), or use redis_fleet(url, registry)"
            )
            raise ValueError(msg)
        if TASK_NAME in self.broker.local_task_registry:
            msg = f"this {type(self.broker).__name__} has an engine: make a second one"
            raise ValueError(msg)
        self.registry = registry
        self._mailbox: Mailbox = LocalMailbox() if mailbox is None else mailbox
        self._worker = Worker(registry, remembered=remembered)
        self._task = self._register()

    def _register(self) -> Any:  # noqa: ANN401 - a decorated task, whose types say little
        broker = self.broker

        async def perform(
            task: str,
            address: str,
            sent_at: float,
            context: Annotated[Context, TaskiqDepends()],
        ) -> None:
            deliveries = context.message.labels.get(DELIVERIES_LABEL)
            await self._perform(task, address, sent_at, deliveries)

        # taskiq reads the types when it prepares a task, and knows no local names.
        perform.__annotations__ = {
            "task": str,
            "address": str,
            "sent_at": float,
            "context": Annotated[Context, TaskiqDepends()],
            "return": None,
        }
        broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, self._begin_working)
        broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._end_working)
        return broker.register_task(perform, task_name=TASK_NAME, ack_type="when_saved")

    async def _connect(self) -> None:
        try:
            await self._mailbox.receive(self._deliver)
            if not self.broker.is_worker_process:
                await self.broker.startup()
        except Exception as error:
            await self._abandon()
            msg = f"{self!r} cannot reach its broker: {type(error).__name__}"
            raise EngineError(msg) from error
        except asyncio.CancelledError:
            # Nobody closes what was not opened.
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        """End what was begun of an opening."""
        await self._mailbox.close()
        if not self.broker.is_worker_process:
            with suppress(Exception):
                await self.broker.shutdown()

    async def _disconnect(self) -> None:
        if not self.broker.is_worker_process:
            await self.broker.shutdown()
            await self._end_local_tasks()
        await self._mailbox.close()

    def _revoke(self, call_id: str) -> Coroutine[Any, Any, None]:
        return self._mailbox.revoke(call_id)

    async def _send(self, task: RemoteTask) -> None:
        kicker = self._task.kicker().with_task_id(task.call_id)
        try:
            await kicker.kiq(task.to_json(), self._mailbox.address, self._mailbox.now())
        except (TaskiqError, OSError) as error:
            reason = type(error.__cause__ or error).__name__
            msg = f"{task.path!r} could not be sent to the broker: {reason}"
            raise EngineError(msg) from error

    async def _begin_working(self, _: object) -> None:
        await self._mailbox.obey(self._worker.cancel)

    async def _end_working(self, _: object) -> None:
        """Give up what has outlived taskiq's own waiting; others get it again."""
        await self._worker.close()
        if self.broker.is_worker_process:
            await self._mailbox.close()

    async def _end_local_tasks(self) -> None:
        """Wait for what the broker of this process has begun."""
        if isinstance(self.broker, InMemoryBroker):
            await self.broker.wait_all()

    async def _perform(
        self, text: str, address: str, sent_at: float, deliveries: object
    ) -> None:
        """Perform a task that taskiq has brought, and post the reply."""
        unanswered.set(True)
        try:
            task = RemoteTask.from_json(text)
        except RemoteDataError as error:
            logger.warning("what came instead of a task is dropped: %s", error)
            unanswered.set(False)
            return
        reply: RemoteReply | None
        if deliveries is None:
            reply = await self._reply(task, sent_at)
        else:
            reply = _too_often(task, deliveries)
        if reply is not None:
            await self._mailbox.post(address, reply.to_json())
            unanswered.set(False)

    async def _reply(self, task: RemoteTask, sent_at: float) -> RemoteReply | None:
        """Return the reply, None if this worker ends before it has one."""
        remaining = task.remaining_seconds
        if remaining is not None:
            # The time in the queue counts as well.
            waited = max(0.0, self._mailbox.now() - sent_at)
            task.context["remaining_seconds"] = remaining - waited
        if await self._mailbox.is_revoked(task.call_id):
            self._worker.cancel(task.call_id)
        try:
            return await self._worker.perform(task)
        except EngineClosedError:
            return None

    def __repr__(self) -> str:
        kind = type(self.broker).__name__
        return f"<{type(self).__name__} {kind} {', '.join(self.registry.names)}>"


def _too_often(task: RemoteTask, deliveries: object) -> RemoteReply:
    """Return the reply to a task whose workers died or hung, one after the other."""
    msg = (
        f"{task.path!r} was delivered {deliveries} times, and no worker has finished "
        "it: each was killed, or blocked its event loop"
    )
    told = failure_of(EngineError(msg), task.path)
    return RemoteReply(call_id=task.call_id, status="failed", error=told)
