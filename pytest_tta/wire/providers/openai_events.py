"""The events in which the Responses API tells of an item that comes to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.wire.providers.encoding import Events, event
from pytest_tta.wire.providers.speech import fragments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.wire.exchange import Part

__all__ = ["ResponseEvents", "error_event"]


class ResponseEvents:
    """Events as they are written, each with its number in the stream."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events = Events()

    @property
    def parts(self) -> list[Part]:
        """Of each event the seconds after the head, and its bytes."""
        return self._events.parts

    @property
    def tokens(self) -> list[int]:
        """Which of them carry content of the answer, by index."""
        return self._events.tokens

    def add(
        self, at: float, name: str, fields: Mapping[str, Any], *, token: bool = False
    ) -> None:
        """Write one event.

        Args:
            at: Seconds after the head.
            name: Its type.
            fields: What it tells beside type and number.
            token: Whether it carries content of the answer.
        """
        number = len(self._events.parts)
        value = {"type": name, "sequence_number": number, **fields}
        self._events.add(at, event(value, name), token=token)

    def message(
        self, index: int, item: Mapping[str, Any], pieces: tuple[tuple[float, str], ...]
    ) -> None:
        """Write how a message of one part is said.

        Args:
            index: Which item of the output it is.
            item: The message as it is in the end.
            pieces: Its text in pieces, each with its seconds after the head.
        """
        part = item["content"][0]
        field = "refusal" if part["type"] == "refusal" else "text"
        kind = "refusal" if field == "refusal" else "output_text"
        begins, ends = (pieces[0][0], pieces[-1][0]) if pieces else (0.0, 0.0)
        begun = {**item, "status": "in_progress", "content": []}
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        odds: dict[str, Any] = {} if field == "refusal" else {"logprobs": []}
        self._added(begins, index, begun)
        opening = {**place, "part": {**part, field: ""}}
        self.add(begins, "response.content_part.added", opening)
        for at, piece in pieces:
            delta = {**place, "delta": piece, **odds}
            self.add(at, f"response.{kind}.delta", delta, token=bool(piece))
        done = {**place, field: part[field], **odds}
        self.add(ends, f"response.{kind}.done", done)
        self.add(ends, "response.content_part.done", {**place, "part": part})
        self._done(ends, index, item)

    def call(self, index: int, item: Mapping[str, Any], at: float) -> None:
        """Write how a function call is said.

        Args:
            index: Which item of the output it is.
            item: The call as it is in the end.
            at: Seconds after the head.
        """
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        self._added(at, index, begun, token=True)
        name = "response.function_call_arguments"
        for text in fragments(item["arguments"]):
            self.add(at, f"{name}.delta", {**place, "delta": text}, token=True)
        told = {"name": item["name"], "arguments": item["arguments"]}
        self.add(at, f"{name}.done", {**place, **told})
        self._done(at, index, item)

    def _added(
        self, at: float, index: int, item: Mapping[str, Any], *, token: bool = False
    ) -> None:
        told = {"output_index": index, "item": item}
        self.add(at, "response.output_item.added", told, token=token)

    def _done(self, at: float, index: int, item: Mapping[str, Any]) -> None:
        told = {"output_index": index, "item": item}
        self.add(at, "response.output_item.done", told)


def error_event(error: Mapping[str, Any]) -> bytes:
    """Return the event that tells of an error, as the first of its stream.

    The error stands in a field of its own, as OpenAI sends it. Its documentation, and
    the type in its SDK, have code and message beside the type instead.

    Args:
        error: The error as the body of a refusal has it.
    """
    return event({"type": "error", "sequence_number": 0, "error": error}, "error")
