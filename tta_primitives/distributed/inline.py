"""The engine without a fleet: the same process, and yet only JSON crosses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives.distributed.engine import Engine
from tta_primitives.distributed.errors import EngineClosedError
from tta_primitives.distributed.registry import Registry
from tta_primitives.distributed.task import RemoteReply, RemoteTask
from tta_primitives.distributed.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["InlineEngine"]


class InlineEngine(Engine):
    """Performs calls in this process, on this event loop: for one machine, for tests.

    What is sent is written as JSON and read again in both directions, so that what
    could not reach a worker fails here as well.

    Args:
        workflows: A `Registry`, or what to put into one.
    """

    def __init__(
        self, *workflows: Registry | WorkflowPrimitive[Any, Any] | Callable[..., Any]
    ) -> None:
        if len(workflows) == 1 and isinstance(workflows[0], Registry):
            self.registry: Registry = workflows[0]
        else:
            self.registry = Registry(*workflows)  # type: ignore[arg-type]
        self._worker = Worker(self.registry)
        self._is_closed = False

    async def open(self) -> None:
        """Be ready for calls."""
        self._is_closed = False

    async def close(self) -> None:
        """Cancel the calls that are running, and wait until they have ended."""
        self._is_closed = True
        await self._worker.close()

    async def call(self, task: RemoteTask, /) -> RemoteReply:
        """Perform a task in this process.

        Raises:
            EngineClosedError: It was closed.
        """
        self._check_open()
        reply = await self._worker.perform(RemoteTask.from_json(task.to_json()))
        return RemoteReply.from_json(reply.to_json())

    def _check_open(self) -> None:
        if self._is_closed:
            msg = f"{self!r} was closed: open it again, or close it after its callers"
            raise EngineClosedError(msg)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.registry.names)}>"
