"""What brings a call to a worker and its reply back."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tta_primitives.door import emit

if TYPE_CHECKING:
    from typing import Self

    from tta_primitives.context import WorkflowContext
    from tta_primitives.distributed.task import RemoteReply, RemoteTask

__all__ = ["Engine", "sending", "tell_caller"]

sending: ContextVar[WorkflowContext | None] = ContextVar("tta_sending", default=None)
"""The context of the remote primitive whose task an engine is sending."""


def tell_caller(name: str, **detail: Any) -> None:  # noqa: ANN401 - whatever it is about
    """Tell observers what becomes of the call that is being sent; for engines.

    Args:
        name: For instance `fleet.dropped`.
        detail: What belongs to it, durations in seconds.
    """
    context = sending.get()
    if context is not None:
        emit(context, name, **detail)


@runtime_checkable
class Engine(Protocol):
    """Sends tasks to workers: inside this process, or to a fleet.

    `call` delivers a task at least once, or raises. It opens the engine if nobody has.
    When its caller is cancelled, the work is cancelled as well. Subclass it, and an
    engine is a context manager: `async with engine:`.

    What every engine must do is checked by `ENGINE_CHECKS` of
    `tta_primitives.distributed.conformance`.
    """

    async def open(self) -> None:
        """Connect, so that what is wrong shows when the service starts.

        Opening an open engine does nothing; a closed one may be opened again.
        """

    async def close(self) -> None:
        """End what it has begun, and let connections go; closing twice is no error.

        Calls that are still waiting fail with `EngineClosedError`.
        """

    async def call(self, task: RemoteTask, /) -> RemoteReply:
        """Let a worker perform a task.

        Returns:
            The worker's reply, also if the step failed.

        Raises:
            EngineClosedError: It was closed.
            EngineError: The task could not be sent, or its reply was lost.
        """
        ...

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Close it."""
        await self.close()
