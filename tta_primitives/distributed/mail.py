"""The caller's side of engines whose replies come back another way than tasks go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from tta_primitives.distributed.engine import Engine
from tta_primitives.distributed.errors import (
    EngineClosedError,
    EngineError,
    RemoteDataError,
)
from tta_primitives.distributed.task import RemoteReply

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tta_primitives.distributed.task import RemoteTask

__all__ = ["MailEngine"]

logger: logging.Logger = logging.getLogger(__name__)

_MOMENT = 5.0


class MailEngine(Engine):
    """Sends tasks on their way, and gives each reply that comes to who waits for it.

    An engine of this kind says how it connects, sends, cancels and disconnects, and
    calls `_deliver` on the event loop for each reply.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Lock | None = None
        self._is_open = False
        self._is_closed = False

    async def _connect(self) -> None:
        """Connect, and begin to receive replies; raise EngineError where it fails."""
        raise NotImplementedError

    async def _send(self, task: RemoteTask) -> None:
        """Send a task; raise EngineError where it fails."""
        raise NotImplementedError

    def _revoke(self, call_id: str) -> Coroutine[Any, Any, None]:
        """Return what cancels a call, wherever it is; nobody waits for it."""
        raise NotImplementedError

    async def _disconnect(self) -> None:
        """End what runs in this process, and let connections go."""
        raise NotImplementedError

    async def open(self) -> None:
        """Connect to the broker, and begin to receive replies.

        Raises:
            EngineClosedError: It was closed before it was open.
            EngineError: The broker cannot be reached.
        """
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            self._is_closed = False
            if not self._is_open:
                await self._connect()
                self._is_open = True
                if self._is_closed:  # It was closed meanwhile.
                    await self.close()
                    raise self._closed()

    async def close(self) -> None:
        """Cancel the calls that wait, end what runs here, and disconnect."""
        self._is_closed = True
        if not self._is_open:
            return
        self._is_open = False
        self._opening = None
        for call_id, waiting in list(self._waiting.items()):
            waiting.fail(self._closed())
            self._cancel_call(call_id)
        await self._end_errands()
        await self._disconnect()

    async def call(self, task: RemoteTask, /) -> RemoteReply:
        """Let a worker perform a task.

        Raises:
            EngineClosedError: It was closed.
            EngineError: The broker cannot be reached.
        """
        if self._is_closed:
            raise self._closed()
        if not self._is_open:
            await self.open()
        call_id = task.call_id
        waiting = self._waiting.get(call_id)
        if waiting is None:
            waiting = self._waiting[call_id] = _Waiting()
        waiting.count += 1
        try:
            await self._send(task)
            return await asyncio.shield(waiting.reply)
        except asyncio.CancelledError:
            if waiting.count == 1 and self._is_open:
                self._cancel_call(call_id)
            raise
        finally:
            waiting.count -= 1
            if not waiting.count:
                waiting.reply.cancel()
                self._waiting.pop(call_id, None)

    def _deliver(self, text: str) -> None:
        """Hand a reply to its caller; one that nobody waits for is dropped."""
        try:
            reply = RemoteReply.from_json(text)
        except RemoteDataError as error:
            logger.warning("what came instead of a reply is dropped: %s", error)
            return
        waiting = self._waiting.get(reply.call_id)
        if waiting is not None:
            waiting.answer(reply)

    def _closed(self) -> EngineClosedError:
        msg = f"{self!r} was closed: open it again, or close it after its callers"
        return EngineClosedError(msg)

    def _cancel_call(self, call_id: str) -> None:
        """Cancel a call on the side: who is cancelled does not wait for that."""
        task = asyncio.ensure_future(_quietly(self._revoke(call_id)))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _end_errands(self) -> None:
        """Wait a moment for what is done on the side, and cancel what is left."""
        if self._errands:
            _, late = await asyncio.wait(self._errands, timeout=_MOMENT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


class _Waiting:
    """A call that waits for its reply, made once or more with the same id."""

    __slots__ = ("count", "reply")

    def __init__(self) -> None:
        self.count = 0
        self.reply: asyncio.Future[RemoteReply] = (
            asyncio.get_running_loop().create_future()
        )

    def answer(self, reply: RemoteReply) -> None:
        """Let those who wait have the reply."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: EngineError) -> None:
        """Let those who wait have an error."""
        if not self.reply.done():
            self.reply.set_exception(error)


async def _quietly(errand: Coroutine[Any, Any, None]) -> None:
    try:
        await errand
    except Exception as error:  # noqa: BLE001 - nobody waits for it
        logger.warning("a cancellation was not sent: %s", type(error).__name__)
