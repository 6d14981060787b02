"""The worker's side of a call: perform a task, whatever engine has brought it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from tta_primitives.arguments import check_count
from tta_primitives.cancellation import is_cancellation
from tta_primitives.deadline import within
from tta_primitives.distributed.carried import arrive, changes, outcomes
from tta_primitives.distributed.errors import EngineClosedError, RemoteCancelledError
from tta_primitives.distributed.failures import failure_of
from tta_primitives.distributed.task import RemoteReply
from tta_primitives.distributed.values import check_json
from tta_primitives.door import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tta_primitives.context import WorkflowContext
    from tta_primitives.distributed.registry import Registry, Served
    from tta_primitives.distributed.task import RemoteTask

__all__ = ["Worker", "perform", "reply_of"]


async def perform(task: RemoteTask, registry: Registry) -> RemoteReply:
    """Execute what a task asks for; return the reply, also if the step fails.

    It runs under a context made from the task, for at most the seconds that remain to
    the task's deadline. No `Exception` is raised.

    Args:
        task: What arrived.
        registry: What this worker has.

    Raises:
        asyncio.CancelledError: The task that executes this was cancelled.
    """
    try:
        served = registry.find(task.workflow, task.path)
        context = arrive(task.context, served.position, registry.deps)
    except Exception as error:  # noqa: BLE001 - told to the caller
        return _failed(task, error)
    return await reply_of(task, context, partial(_execute, task, served, context))


async def reply_of(
    task: RemoteTask, context: WorkflowContext, execute: Callable[[], Awaitable[Any]]
) -> RemoteReply:
    """Execute something for a task; return the reply, also if it fails.

    Args:
        task: What is answered.
        context: What it is executed under.
        execute: Executes it, and returns the output as JSON.

    Raises:
        asyncio.CancelledError: The task that executes this was cancelled.
    """
    token = current.set(context)
    try:
        value = await execute()
        check_json(value, f"the output of {task.path!r}")
        return _reply(task, context, status="ok", value=value)
    except asyncio.CancelledError:
        if _is_told_to_end():
            raise
        # An error to the caller: one that nobody asked for would be lost in a group.
        gone = RemoteCancelledError(f"{task.path!r} was cancelled on the worker")
        told = failure_of(gone, task.path)
        return RemoteReply(call_id=task.call_id, status="cancelled", error=told)
    except Exception as error:
        if is_cancellation(error):
            raise asyncio.CancelledError from error
        return _failed(task, error, context)
    finally:
        current.reset(token)


async def _execute(task: RemoteTask, served: Served, context: WorkflowContext) -> Any:  # noqa: ANN401 - JSON
    """Return the step's output as JSON."""
    primitive, codec = served.position.primitive, served.codec
    value = task.value if codec is None else codec.decode_input(task.value)
    running = primitive.execute(value, context)
    remaining = context.remaining()
    if remaining is None:
        output = await running
    else:
        output = await within(running, remaining, primitive, context)
    return output if codec is None else codec.encode_output(output)


def _reply(task: RemoteTask, context: WorkflowContext, **told: Any) -> RemoteReply:  # noqa: ANN401 - fields of a reply
    state = changes(task.context.get("state") or {}, context)
    return RemoteReply(
        call_id=task.call_id,
        state=state or None,
        outcomes=outcomes(context),
        **told,
    )


def _failed(
    task: RemoteTask, error: Exception, context: WorkflowContext | None = None
) -> RemoteReply:
    told = failure_of(error, task.path)
    if context is not None:
        try:
            return _reply(task, context, status="failed", error=told)
        except TypeError:  # Its state is no JSON: the error counts more.
            pass
    return RemoteReply(call_id=task.call_id, status="failed", error=told)


def _is_told_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Worker:
    """Performs tasks of one process: each once, however often it is delivered.

    Engines deliver at least once. A task that is delivered again while it runs waits
    for the same execution; one that has run is answered with the same reply, as long
    as this remembers it. What another process has begun it does not know: effects need
    the idempotency key of their context.

    Args:
        registry: What it can be asked for.
        remembered: How many replies and cancellations are kept for duplicates.
    """

    def __init__(self, registry: Registry, *, remembered: int = 100) -> None:
        self.registry = registry
        self._remembered = check_count("remembered", remembered)
        self._running: dict[str, _Execution] = {}
        # None for a call that was cancelled before it came.
        self._known: OrderedDict[str, RemoteReply | None] = OrderedDict()

    @property
    def running(self) -> int:
        """How many tasks are being performed."""
        return len(self._running)

    async def perform(self, task: RemoteTask) -> RemoteReply:
        """Perform a task, or join the execution of the same call.

        Raises:
            asyncio.CancelledError: The task that executes this was cancelled; the work
                is cancelled and awaited unless another delivery waits for it.
            EngineClosedError: The worker was closed meanwhile; the task is to be
                delivered again, to another.
        """
        call_id = task.call_id
        if call_id in self._known:
            reply = self._known[call_id]
            return _revoked(task) if reply is None else reply
        execution = self._running.get(call_id)
        if execution is None:
            execution = self._running[call_id] = _Execution(task, self.registry)
            execution.work.add_done_callback(lambda work: self._ended(call_id, work))
        reply = await execution.outcome()
        if reply is not None:
            return reply
        if execution.is_given_up:
            msg = f"the worker was closed while it performed {task.path!r}"
            raise EngineClosedError(msg)
        return _revoked(task)

    def cancel(self, call_id: str) -> bool:
        """Cancel a call, also one that has not come yet; tell whether it was running.

        Its deliveries are answered with a reply of status `cancelled`.
        """
        execution = self._running.get(call_id)
        if execution is not None:
            execution.work.cancel()
            return True
        if call_id not in self._known:
            self._remember(call_id, None)
        return False

    async def close(self) -> None:
        """Cancel what is running, and wait until it has ended.

        Whoever waits for it gets an `EngineClosedError`. A task that comes later is
        performed again: a closed worker is an idle one.
        """
        executions = list(self._running.values())
        for execution in executions:
            execution.is_given_up = True
            execution.work.cancel()
        if executions:
            await asyncio.wait([execution.work for execution in executions])

    def _ended(self, call_id: str, work: asyncio.Task[RemoteReply]) -> None:
        execution = self._running.pop(call_id)
        if work.cancelled():
            if not execution.is_given_up:
                self._remember(call_id, None)
        elif work.exception() is None:
            self._remember(call_id, work.result())

    def _remember(self, call_id: str, reply: RemoteReply | None) -> None:
        self._known[call_id] = reply
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)


class _Execution:
    """A task that is being performed, for one delivery or several of the same call."""

    __slots__ = ("_waiting", "is_given_up", "work")

    def __init__(self, task: RemoteTask, registry: Registry) -> None:
        self._waiting = 0
        self.is_given_up = False
        running = perform(task, registry)
        self.work = asyncio.create_task(running, name=f"remote {task.path}")

    async def outcome(self) -> RemoteReply | None:
        """Wait for the reply, None if it was cancelled.

        The last who leaves early cancels the work.
        """
        self._waiting += 1
        try:
            await asyncio.wait((self.work,))
        finally:
            self._waiting -= 1
            if not (self._waiting or self.work.done()):
                self.work.cancel()
                await asyncio.wait((self.work,))
        return None if self.work.cancelled() else self.work.result()


def _revoked(task: RemoteTask) -> RemoteReply:
    told = failure_of(RemoteCancelledError(f"{task.path!r} was cancelled"), task.path)
    return RemoteReply(call_id=task.call_id, status="cancelled", error=told)
