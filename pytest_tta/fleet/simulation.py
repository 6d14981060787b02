"""The fleet itself: a broker that delivers at least once, and workers that die."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakSet

from tta_primitives.distributed.errors import EngineClosedError, EngineError
from tta_primitives.distributed.failures import failure_of
from tta_primitives.distributed.task import RemoteReply, RemoteTask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from pytest_tta.fleet.conditions import Conditions, CrashMoment, Fate
    from pytest_tta.fleet.crashes import Script

__all__ = ["FleetEvent", "Job", "Simulation", "is_late_copy"]

_tasks: WeakSet[asyncio.Task[Any]] = WeakSet()


class Planner(Protocol):
    """What decides what becomes of messages: a search."""

    async def delivered(self, path: str, /) -> Any:  # noqa: ANN401 - what `hang` takes
        """Wait until a message may be delivered; return it, with its fault's `kind`."""

    async def after(self, sent: Any, /) -> None:  # noqa: ANN401 - as above
        """Lose the answer that has come, if that is the fault."""

    async def hang(self, sent: Any, /) -> None:  # noqa: ANN401 - as above
        """Wait for an answer that never comes."""


planner: Planner | None = None
"""Decides what becomes of messages, beside conditions and scripts: a search sets it."""


def is_late_copy(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task performs a delivery, which may outlive its caller."""
    return task in _tasks


@dataclass(frozen=True, slots=True)
class FleetEvent:
    """Something that happened in a simulated fleet.

    Attributes:
        at: When, in seconds since the fleet began.
        name: `sent`, `held_back`, `dropped`, `performed`, `lost_reply`,
            `acknowledged`, `given_up`, `left`, or `crashed_` with the moment.
        path: Of the task.
        task: Which task of the fleet it is, from 1.
        delivery: Which delivery of it, from 1; 0 for what is about the task.
        worker: The number of the worker, None if it is about none.
    """

    at: float
    name: str
    path: str
    task: int
    delivery: int = 0
    worker: int | None = None


@dataclass(slots=True)
class Job:
    """What is to be done on a worker.

    Attributes:
        task: What was sent.
        perform: Performs it, each time anew.
        tell: Tells observers of the call what becomes of it.
    """

    task: RemoteTask
    perform: Callable[[], Awaitable[RemoteReply]]
    tell: Callable[..., None]


class _Message:
    """A task in the broker, until it is acknowledged."""

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.number = number
        # The fault that a search has planned for its first delivery.
        self.fault: str | None = None
        self.deliveries = 0
        self.is_done = False
        self.is_left = False
        self.works: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[RemoteReply] = loop.create_future()

    def copies_at_work(self) -> bool:
        """Tell whether it is being performed elsewhere too."""
        return any(not work.done() for work in self.works - {asyncio.current_task()})

    def crash(self, delivery: int) -> CrashMoment | None:
        """Return when a search wants the worker of a delivery to die."""
        fault = self.fault or ""
        if delivery != 1 or not fault.startswith("crash-"):
            return None
        return cast("CrashMoment", fault.removeprefix("crash-"))

    def answer(self, reply: RemoteReply) -> None:
        """Let the caller have the reply, the first that comes."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: BaseException) -> None:
        """Let the caller have an error."""
        if not self.reply.done():
            self.reply.set_exception(error)
            # Nobody may wait for it any more.
            self.reply.exception()


@dataclass(slots=True)
class _Delivery:
    """One delivery of a message to a worker."""

    message: _Message
    number: int
    fate: Fate


class _Worker:
    """A worker with a queue of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_alive = True
        self.queue: deque[_Delivery] = deque()
        self.works: dict[asyncio.Task[None], _Delivery] = {}


class Simulation:
    """Brings jobs to workers under given conditions, in the time of the event loop.

    Attributes:
        conditions: What it is like; may be replaced between calls.
        log: What has happened, in order.
        tasks: The tasks that are at work for it.
    """

    def __init__(self, conditions: Conditions, script: Script) -> None:
        self.conditions = conditions
        self.log: list[FleetEvent] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._script = script
        self._count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began: float | None = None
        self._workers: list[_Worker] = []
        self._messages: list[_Message] = []
        self._held: list[_Message] = []
        self._news = asyncio.Event()

    async def send(self, job: Job) -> RemoteReply:
        """Let a worker do a job; return the reply.

        Raises:
            EngineError: It was delivered too often.
            EngineClosedError: The fleet was closed.
        """
        self._settle_in()
        self._count += 1
        message = _Message(job, self._count)
        self._messages.append(message)
        self._note("sent", message)
        try:
            if planner is not None:
                return await self._send_as_planned(message, planner)
            self._deliver(message)
            return await asyncio.shield(message.reply)
        except asyncio.CancelledError:
            await self._leave(message)
            raise

    async def settle(self) -> None:
        """Wait until every task is acknowledged, also those that were answered."""
        while self._messages:
            self._news.clear()
            await self._news.wait()
        # Copies that come late are performed as well.
        while self.tasks:
            await asyncio.wait(self.tasks)

    async def close(self) -> None:
        """End everything; callers that wait are told so."""
        for message in list(self._messages):
            self._finish(message)
            message.fail(EngineClosedError("the fleet was closed"))
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._workers = []

    def _settle_in(self) -> None:
        """Begin anew in another event loop: what was left in the old one is gone."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._workers, self._messages, self._held = [], [], []
            self.tasks = set()
            self._news = asyncio.Event()
        if self._began is None:
            self._began = loop.time()
        while len(self._workers) < self.conditions.workers:
            self._workers.append(_Worker(len(self._workers)))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _note(
        self, name: str, message: _Message, delivery: int = 0, worker: int | None = None
    ) -> None:
        at = round(self._now() - (self._began or 0.0), 9)
        path = message.job.task.path
        self.log.append(FleetEvent(at, name, path, message.number, delivery, worker))
        # A call that has its answer is finished, and hears no more.
        if not message.reply.done():
            told = {} if worker is None else {"worker": worker}
            message.job.tell(f"fleet.{name}", delivery=delivery, **told)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"fleet {name}")
        self.tasks.add(task)
        _tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # What a search has planned.

    async def _send_as_planned(
        self, message: _Message, planner: Planner
    ) -> RemoteReply:
        """Deliver a message when a search lets it, or let happen what that wants.

        What it loses is lost for good, as where a broker loses its data: what is lost
        and comes again is what a worker had that dies.
        """
        try:
            sent = await planner.delivered(message.job.task.path)
        except Exception:
            self._finish(message)
            raise
        message.fault = sent.kind
        if message.fault == "drop":
            self._note("dropped", message, 1)
            self._finish(message)
        elif message.fault == "reorder":
            self._hold_back(message)
        else:
            self._deliver(message)
        if message.fault in {"drop", "drop-answer"}:
            await planner.hang(sent)
        reply = await asyncio.shield(message.reply)
        await planner.after(sent)
        return reply

    def _hold_back(self, message: _Message) -> None:
        """Keep a message until a later one was performed, or nobody waits for that."""
        self._note("held_back", message, 1)
        self._held.append(message)
        loop = asyncio.get_running_loop()
        wait = self.conditions.visibility_timeout
        message.timer = loop.call_later(wait, self._let_go, message)

    def _let_go(self, message: _Message) -> None:
        """Deliver a message that was held back."""
        if message in self._held:
            self._held.remove(message)
            if message.timer is not None:
                message.timer.cancel()
                message.timer = None
            self._deliver(message)

    def _performed(self, delivery: _Delivery, worker: _Worker) -> None:
        """Note that a task was performed; what was held back for it may come."""
        message = delivery.message
        self._note("performed", message, delivery.number, worker.number)
        for held in [one for one in self._held if one.number < message.number]:
            self._let_go(held)

    # The broker.

    def _deliver(self, message: _Message) -> None:
        """Send a message on its way to a worker, once or twice."""
        if message.is_done:
            return
        message.deliveries += 1
        number = message.deliveries
        if number > self.conditions.max_deliveries:
            self._give_up(message)
            return
        fate = self.conditions.fate(message.number, number, 0)
        fates = [fate]
        if fate.is_doubled or (message.fault == "duplicate" and number == 1):
            fates.append(self.conditions.fate(message.number, number, 1))
        for one in fates:
            if one.is_dropped:
                self._note("dropped", message, number)
                self._deliver_later(message)
            else:
                delivery = _Delivery(message, number, one)
                if one.delay:
                    loop = asyncio.get_running_loop()
                    loop.call_later(one.delay, self._arrive, delivery)
                else:
                    self._arrive(delivery)

    def _deliver_later(self, message: _Message) -> None:
        """Deliver again after the visibility timeout, unless it is done by then."""
        if message.timer is None and not message.is_done:
            loop = asyncio.get_running_loop()
            wait = self.conditions.visibility_timeout
            message.timer = loop.call_later(wait, self._again, message)

    def _again(self, message: _Message) -> None:
        message.timer = None
        if message.works:
            # Whoever is at work gives signs of life.
            self._deliver_later(message)
        else:
            self._deliver(message)

    def _give_up(self, message: _Message) -> None:
        most = self.conditions.max_deliveries
        path = message.job.task.path
        error = EngineError(f"{path!r} was delivered {most} times, and none succeeded")
        told = failure_of(error, path)
        call_id = message.job.task.call_id
        self._note("given_up", message)
        message.answer(RemoteReply(call_id=call_id, status="failed", error=told))
        self._finish(message)

    async def _leave(self, message: _Message) -> None:
        """Cancel the work for a caller that was cancelled, and wait for its end."""
        message.is_left = True
        self._note("left", message)
        self._finish(message)
        message.reply.cancel()
        works = list(message.works)
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    def _finish(self, message: _Message) -> None:
        """Take a message out of the broker."""
        message.is_done = True
        if message.timer is not None:
            message.timer.cancel()
            message.timer = None
        if message in self._messages:
            self._messages.remove(message)
        self._news.set()

    # The workers.

    def _arrive(self, delivery: _Delivery) -> None:
        if not self._workers:  # It was closed meanwhile.
            return
        worker = self._workers[delivery.fate.worker % len(self._workers)]
        if delivery.fate.is_first:
            worker.queue.appendleft(delivery)
        else:
            worker.queue.append(delivery)
        self._pump(worker)

    def _pump(self, worker: _Worker) -> None:
        """Let a worker take what it can."""
        while (
            worker.is_alive
            and worker.queue
            and len(worker.works) < self.conditions.concurrency
        ):
            delivery = worker.queue.popleft()
            message = delivery.message
            if message.is_left:
                continue
            work = self._begin(self._work(worker, delivery), message.job.task.path)
            worker.works[work] = delivery
            message.works.add(work)
            work.add_done_callback(partial(self._ended, worker, delivery))

    def _ended(
        self, worker: _Worker, delivery: _Delivery, work: asyncio.Task[None]
    ) -> None:
        worker.works.pop(work, None)
        delivery.message.works.discard(work)
        self._pump(worker)

    async def _work(self, worker: _Worker, delivery: _Delivery) -> None:
        """Perform one delivery, as far as the worker lives."""
        message = delivery.message
        path = message.job.task.path
        crash = self._script.crash(path, self._now() - (self._began or 0.0))
        crash = message.crash(delivery.number) or crash
        turns = delivery.fate.turns if crash is None else 1
        crash = crash or delivery.fate.crash
        if crash == "before":
            self._crash(worker, delivery, crash)
            return
        try:
            reply = await self._perform(message, turns if crash == "inside" else None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a double's, for the test itself
            message.fail(error)
            self._finish(message)
            return
        if reply is None or crash in {"inside", "after"}:
            self._crash(worker, delivery, crash or "inside")
            return
        self._performed(delivery, worker)
        await self._answer(worker, delivery, reply, crash)

    async def _answer(
        self,
        worker: _Worker,
        delivery: _Delivery,
        reply: RemoteReply,
        crash: CrashMoment | None,
    ) -> None:
        message, fate = delivery.message, delivery.fate
        if fate.reply_delay:
            await asyncio.sleep(fate.reply_delay)
        if message.fault == "drop-answer":
            self._note("lost_reply", message, delivery.number, worker.number)
            self._finish(message)
            return
        if fate.loses_reply:
            self._note("lost_reply", message, delivery.number, worker.number)
            self._deliver_later(message)
            return
        if message.fault == "duplicate" and message.copies_at_work():
            return  # The answer that comes is the last one's: all have had an effect.
        if crash is None and not message.is_done:
            self._note("acknowledged", message, delivery.number, worker.number)
        message.answer(reply)
        if crash is None:
            self._finish(message)
        else:
            self._crash(worker, delivery, crash)

    async def _perform(
        self, message: _Message, turns: int | None
    ) -> RemoteReply | None:
        """Return the reply, None if the worker is to die while the step waits."""
        job = asyncio.ensure_future(message.job.perform())
        _tasks.add(job)
        try:
            if turns is None:
                return await job
            for _ in range(turns):
                await asyncio.sleep(0)
            return job.result() if job.done() else None
        finally:
            if not job.done():
                job.cancel()
                await asyncio.wait((job,))

    def _crash(self, worker: _Worker, delivery: _Delivery, moment: CrashMoment) -> None:
        """Let a worker die with everything that it has, and start again later."""
        message = delivery.message
        self._note(f"crashed_{moment}", message, delivery.number, worker.number)
        worker.is_alive = False
        for work, other in worker.works.items():
            if other is not delivery:
                work.cancel()
            self._deliver_later(other.message)
        for waiting in worker.queue:
            self._deliver_later(waiting.message)
        worker.queue.clear()
        loop = asyncio.get_running_loop()
        loop.call_later(self.conditions.restart_seconds, self._restart, worker)

    def _restart(self, worker: _Worker) -> None:
        worker.is_alive = True
        self._pump(worker)
