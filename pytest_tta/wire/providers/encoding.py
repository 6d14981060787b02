"""JSON and server-sent events as the providers write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tta.wire.exchange import Part

__all__ = ["Events", "event", "json_bytes", "json_text"]


class Events:
    """The events of a stream in the order in which they are written.

    Attributes:
        parts: Of each the seconds after the head, and its bytes.
        tokens: Which of them carry content of the answer, by index.
    """

    __slots__ = ("parts", "tokens")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.tokens: list[int] = []

    def add(self, at: float, data: bytes, *, token: bool = False) -> None:
        """Write one event.

        Args:
            at: Seconds after the head.
            data: The event, the blank line at its end included.
            token: Whether it carries content of the answer.
        """
        if token:
            self.tokens.append(len(self.parts))
        self.parts.append((at, data))


def json_text(value: object) -> str:
    """Return compact JSON, with letters of any language as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_bytes(value: object) -> bytes:
    """Return compact JSON in UTF-8."""
    try:
        return json_text(value).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8; an escape can carry it.
        return json.dumps(value, separators=(",", ":")).encode()


def event(value: object, name: str = "") -> bytes:
    """Return one server-sent event.

    Args:
        value: What its JSON stands for.
        name: The name on its `event:` line; without one it has no such line.
    """
    head = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (head, json_bytes(value))
