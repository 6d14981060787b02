"""A raw server on the loopback that plays wire answers: the truth to compare with."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from pytest_tta.wire.framing import chunk, head_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pytest_tta.wire.exchange import WireAnswer


class Seen:
    """One request that arrived.

    Attributes:
        head: The request line and the headers, as they came.
        body: What followed.
    """

    def __init__(self, head: str, body: bytes) -> None:
        self.head = head
        self.body = body

    def header(self, name: str) -> str | None:
        """Return a header by its name in lower case."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name:
                return value.strip()
        return None


class Loopback:
    """Answers one request for each connection, as it is told.

    Args:
        answer: What is answered to the request of a number, from 1.
        speed: Real seconds for one second of an answer.
    """

    def __init__(
        self, answer: Callable[[int, Seen], WireAnswer], *, speed: float = 0.0
    ) -> None:
        self._answer = answer
        self._speed = speed
        self.seen: list[Seen] = []
        self.url = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Play an answer on one connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            seen = Seen(head[:-4], b"")
            length = int(seen.header("content-length") or 0)
            seen.body = await reader.readexactly(length)
            self.seen.append(seen)
            await self._play(self._answer(len(self.seen), seen), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _play(self, answer: WireAnswer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(answer.head_after * self._speed)
        at = 0.0
        if answer.has_head:
            writer.write(head_of(answer.with_headers(("connection", "close"))))
            await writer.drain()
            for when, part in answer.body:
                await asyncio.sleep((when - at) * self._speed)
                at = when
                writer.write(part if answer.length is not None else chunk(part))
                await writer.drain()
            if answer.ending == "complete" and answer.length is None:
                writer.write(b"0\r\n\r\n")
        await writer.drain()
        if answer.ending == "silent":
            await asyncio.get_running_loop().create_future()
        if answer.ending == "reset":
            # Whoever waits must have read what was sent, or the RST overtakes it.
            await asyncio.sleep(0.05)
            linger = struct.pack("ii", 1, 0)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


@asynccontextmanager
async def loopback(
    answer: Callable[[int, Seen], WireAnswer], *, speed: float = 0.0
) -> AsyncIterator[Loopback]:
    """Serve on a free port of the loopback, and end every connection at the end."""
    served = Loopback(answer, speed=speed)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await served.serve(reader, writer)
        except asyncio.CancelledError:
            # The end of the server; Python 3.11 would report it as an error of ours.
            task.uncancel()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    served.url = f"http://127.0.0.1:{port}"
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an address that refuses connections: a port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@contextmanager
def deaf(*, accepts: bool) -> Iterator[str]:
    """Yield an address where nobody reads.

    Args:
        accepts: Whether the system takes connections on behalf of whoever will read
            them some day; otherwise its queue is full already.
    """
    with socket.socket() as sock, socket.socket() as first:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind(("127.0.0.1", 0))
        sock.listen(128 if accepts else 0)
        if not accepts:
            first.connect(sock.getsockname())
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
