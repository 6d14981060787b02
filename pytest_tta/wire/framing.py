"""An answer as the bytes of HTTP/1.1, and those bytes read as a client reads them.

The reader is h11, which httpx and httpx2 read with, too: so what is wrong with bytes is
said in the words that their users know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.wire.exchange import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_tta.wire.exchange import Part, WireAnswer

__all__ = ["Head", "Reader", "chunk", "frames_of", "head_of"]

Head: TypeAlias = tuple[int, bytes, list[tuple[bytes, bytes]]]
"""Status, reason and raw headers."""


def head_of(answer: WireAnswer) -> bytes:
    """Return status line and headers."""
    if answer.raw_head is not None:
        return answer.raw_head
    lines = [f"HTTP/1.1 {answer.status} {reason_of(answer.status)}".rstrip()]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.length is None:
        lines.append("transfer-encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(part: bytes) -> bytes:
    """Return bytes as one chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def frames_of(answer: WireAnswer) -> tuple[Part, ...]:
    """Return all that is sent, each with its seconds after the request.

    An empty last frame is the end of the connection. Without it, nothing more comes.
    """
    frames: list[Part] = []
    at = answer.head_after
    if answer.has_head:
        frames.append((at, head_of(answer)))
        for when, part in answer.body:
            at = answer.head_after + when
            if part:
                frames.append((at, part if answer.length is not None else chunk(part)))
        if answer.ending == "complete" and answer.length is None:
            frames.append((at, b"0\r\n\r\n"))
    if answer.ending in {"complete", "closed"}:
        frames.append((at, b""))
    return tuple(frames)


class Reader:
    """Reads one answer from bytes.

    Args:
        method: The request's: to `HEAD` there is no body.
        target: What was asked for.
        headers: The request's, by name.
    """

    def __init__(
        self, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        import h11

        self._h11 = h11
        self._state = h11.Connection(our_role=h11.CLIENT)
        # That a body was sent is all that matters, and that it is over.
        kept = [one for one in headers if one[0].lower() not in _BODY_HEADERS]
        self._state.send(h11.Request(method=method, target=target, headers=kept))
        self._state.send(h11.EndOfMessage())

    @property
    def has_begun(self) -> bool:
        """Whether the head has come."""
        return bool(self._state.their_state != self._h11.SEND_RESPONSE)

    def feed(self, data: bytes) -> None:
        """Take bytes, or the end of the connection if there are none.

        Raises:
            h11.RemoteProtocolError: They are no HTTP.
        """
        self._state.receive_data(data)

    def head(self) -> Head | None:
        """Return the head, None as long as it has not come.

        Raises:
            h11.RemoteProtocolError: It is none.
        """
        event: Any = self._state.next_event()
        if not isinstance(event, self._h11.Response):
            return None
        return event.status_code, event.reason, event.headers.raw_items()

    def data(self) -> Iterator[bytes]:
        """Yield what has come of the body.

        Raises:
            h11.RemoteProtocolError: It is cut short.
        """
        while isinstance(event := self._state.next_event(), self._h11.Data):
            yield bytes(event.data)

    @property
    def is_over(self) -> bool:
        """Whether the body has come to its end."""
        return bool(self._state.their_state in {self._h11.DONE, self._h11.MUST_CLOSE})


_BODY_HEADERS = {b"content-length", b"transfer-encoding", b"expect"}
