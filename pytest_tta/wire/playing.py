"""One answer played to one client, within the limits that the client has set.

What would happen on a socket is told as waits: a generator yields the seconds until
something comes, None for ever, and whoever drives it sleeps, in a task or in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from pytest_tta.wire.framing import Head, Reader, frames_of

if TYPE_CHECKING:
    from pytest_tta.wire.exchange import WireAnswer

__all__ = ["Playing", "Raise", "Waits"]

T = TypeVar("T")

Waits: TypeAlias = "Generator[float | None, None, Any]"
Raise: TypeAlias = Callable[[str, str], Exception]
"""Makes the client's own exception, of a name and with a message."""


class _Words(NamedTuple):
    """What the operating system says through a client of one kind."""

    refused: str
    timed_out: str
    reset: str


# As httpcore has them over anyio, and over plain sockets.
_IN_TASKS = _Words("All connection attempts failed", "", "")
_IN_THREADS = _Words(
    "[Errno 111] Connection refused",
    "timed out",
    "[Errno 104] Connection reset by peer",
)
_UNRESOLVED = "[Errno -2] Name or service not known"
_DISCONNECTED = "Server disconnected without sending a response."

_CONNECT_ERROR = "ConnectError"
_READ_ERROR = "ReadError"
_PROTOCOL_ERROR = "RemoteProtocolError"


class Playing:
    """Plays one answer.

    Args:
        answer: What the server does.
        reader: Reads its bytes.
        limits: The client's, in seconds: `connect`, `read` and `write`; None for none.
        now: Returns the time in seconds.
        error: Makes the client's exceptions.
        in_task: Whether the client runs in an event loop.
        began: When the request was sent, if that was before; in seconds.
    """

    def __init__(
        self,
        answer: WireAnswer,
        reader: Reader,
        limits: Mapping[str, float | None],
        now: Callable[[], float],
        error: Raise,
        *,
        in_task: bool,
        began: float | None = None,
    ) -> None:
        self._answer = answer
        self._reader = reader
        self._limits = limits
        self._now = now
        self._error = error
        self._words = _IN_TASKS if in_task else _IN_THREADS
        self._frames = list(frames_of(answer))
        self._sent_at = began
        self._began = 0.0

    def head(self) -> Generator[float | None, None, Head]:
        """Connect, send the request, and return the head.

        Raises:
            Exception: The client's own, for what goes wrong before.
        """
        yield from self._connected()
        if not self._answer.reads_request:
            yield from self._until(None, "write", "WriteTimeout")
        self._began = self._now() if self._sent_at is None else self._sent_at
        while True:
            head = self._read(self._reader.head)
            if head is not None:
                return head
            yield from self._received()

    def parts(self) -> Generator[float | bytes | None, None, None]:
        """Yield the body: waits, and bytes as they come.

        Raises:
            Exception: The client's own, if the body is not whole.
        """
        while True:
            yield from self._read(lambda: list(self._reader.data()))
            if self._reader.is_over:
                return
            yield from self._received()

    def _connected(self) -> Waits:
        kind = self._answer.connect
        if kind == "refused":
            raise self._error(_CONNECT_ERROR, self._words.refused)
        if kind == "unresolved":
            raise self._error(_CONNECT_ERROR, _UNRESOLVED)
        if kind == "silent":
            yield from self._until(None, "connect", "ConnectTimeout")

    def _received(self) -> Waits:
        """Wait for the next bytes, and hand them to the reader."""
        if not self._frames:
            if self._answer.ending == "reset":
                raise self._error(_READ_ERROR, self._words.reset)
            yield from self._until(None, "read", "ReadTimeout")
        at, data = self._frames.pop(0)
        yield from self._until(self._began + at, "read", "ReadTimeout")
        if not data and not self._reader.has_begun:
            raise self._error(_PROTOCOL_ERROR, _DISCONNECTED)
        self._read(lambda: self._reader.feed(data))

    def _until(self, due: float | None, limit: str, error: str) -> Waits:
        """Wait until something happens, or as long as the client has patience."""
        wait = math.inf if due is None else max(0.0, due - self._now())
        most = self._limits.get(limit)
        if most is not None and wait > most:
            yield most
            raise self._error(error, self._words.timed_out)
        if wait:
            yield None if wait == math.inf else wait

    def _read(self, what: Callable[[], T]) -> T:
        import h11

        try:
            return what()
        except h11.RemoteProtocolError as error:
            raise self._error(_PROTOCOL_ERROR, str(error)) from error
