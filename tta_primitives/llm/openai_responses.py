"""OpenAI's Responses API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tta_primitives.llm.reading import (
    Reading,
    mapping_of,
    mappings_of,
    text_of,
    usage_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from tta_primitives.llm.messages import FinishReason, LLMRequest, Message, Tool
    from tta_primitives.llm.structured import Structure

__all__ = ["Responses"]

_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_INCOMPLETE: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}


class Responses:
    """How the Responses API is asked and how it answers."""

    name = "openai.responses"

    def body(
        self, request: LLMRequest, structure: Structure | None, /, *, is_stream: bool
    ) -> dict[str, Any]:
        """Return the arguments of `responses.create`."""
        body: dict[str, Any] = {
            "model": request.model,
            "input": [item for one in request.messages for item in _items(one)],
        }
        if request.tools:
            body["tools"] = [_tool(one) for one in request.tools]
        if structure is not None:
            form = {"type": "json_schema", "name": structure.name}
            body["text"] = {
                "format": {
                    **form,
                    "schema": structure.sent,
                    "strict": structure.is_strict,
                }
            }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            body["max_output_tokens"] = request.max_output_tokens
        if is_stream:
            body["stream"] = True
        return body

    def call(self, client: Any, /, **body: Any) -> Awaitable[Any]:  # noqa: ANN401 - the SDK is not imported
        """Call `responses.create`."""
        return client.responses.create(**body)  # type: ignore[no-any-return]

    def read(self, answer: Mapping[str, Any], /) -> Reading:
        """Read a response."""
        reading = Reading(
            usage=usage_of(answer.get("usage"), "input_tokens", "output_tokens"),
            model=text_of(answer.get("model")) or None,
            error=answer.get("error"),
            is_answer="output" in answer,
        )
        refusal = ""
        for item in mappings_of(answer.get("output")):
            if item.get("type") == "function_call":
                name, arguments = item.get("name"), item.get("arguments")
                reading.add_tool_call(name, arguments, item.get("call_id"))
            elif item.get("type") == "message":
                for part in mappings_of(item.get("content")):
                    reading.content += text_of(part.get("text"))
                    refusal += text_of(part.get("refusal"))
        _finish(reading, answer, refusal)
        return reading

    def collector(self) -> ResponsesCollector:
        """Return what reads a stream of events."""
        return ResponsesCollector(self)


class ResponsesCollector:
    """Reads the events of a response, the last of which has all of it."""

    def __init__(self, api: Responses) -> None:
        self._api = api
        self.reading: Reading = Reading()

    def feed(self, event: Mapping[str, Any], /) -> str:
        """Take an event in; return the text of a delta."""
        kind = event.get("type")
        if kind == "response.output_text.delta":
            added = text_of(event.get("delta"))
            self.reading.content += added
            return added
        if kind in _ENDS:
            said = self.reading.content
            self.reading = self._api.read(mapping_of(event.get("response")))
            self.reading.content = self.reading.content or said
        elif kind == "error":
            self.reading.error = mapping_of(event.get("error")) or {
                key: event.get(key) for key in ("code", "message")
            }
        elif not self.reading.model:
            response = mapping_of(event.get("response"))
            self.reading.model = text_of(response.get("model")) or None
        return ""

    def end(self) -> None:
        """Do nothing: the last event had it all."""


def _finish(reading: Reading, answer: Mapping[str, Any], refusal: str) -> None:
    status = answer.get("status")
    details = mapping_of(answer.get("incomplete_details"))
    reading.reason = text_of(details.get("reason")) or text_of(status) or None
    if status == "failed" and reading.error is None:
        reading.error = {"message": "it tells no more"}
    elif status == "incomplete":
        reading.finish_reason = _INCOMPLETE.get(str(reading.reason), "unknown")
    elif refusal:
        reading.content = reading.content or refusal
        reading.finish_reason = "refusal"
    elif status == "completed" or (status is None and reading.is_answer):
        # Some compatible servers leave the status out.
        reading.finish_reason = "tool_calls" if reading.tool_calls else "stop"


def _items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        answered = {"call_id": message.tool_call_id, "output": message.content}
        return [{"type": "function_call_output", **answered}]
    items: list[dict[str, Any]] = []
    if message.content or not message.tool_calls:
        items.append({"role": message.role, "content": message.content})
    items += [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.broken_arguments or json.dumps(call.arguments),
        }
        for call in message.tool_calls
    ]
    return items


def _tool(tool: Tool) -> dict[str, Any]:
    # Here, unlike in the older API, a schema is strict unless that is denied.
    written: dict[str, Any] = {"type": "function", "name": tool.name, "strict": False}
    if tool.description:
        written["description"] = tool.description
    written["parameters"] = dict(tool.parameters) or {"type": "object"}
    return written
