"""OpenAI's Chat Completions, which most other servers speak as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tta_primitives.llm.reading import (
    Reading,
    count_of,
    mapping_of,
    mappings_of,
    text_of,
    usage_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from tta_primitives.llm.messages import FinishReason, LLMRequest, Message, Tool
    from tta_primitives.llm.structured import Structure

__all__ = ["ChatCompletions"]

# The last five are words of other servers, and of the API before there were tools.
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
}
_TOKENS = ("prompt_tokens", "completion_tokens")


class ChatCompletions:
    """How the Chat Completions are asked and how they answer.

    Args:
        limit: The parameter for the most tokens of an answer: OpenAI itself has renamed
            it to `max_completion_tokens`, other servers know `max_tokens`.
    """

    name = "openai.chat"

    def __init__(self, limit: str) -> None:
        self._limit = limit

    def body(
        self, request: LLMRequest, structure: Structure | None, /, *, is_stream: bool
    ) -> dict[str, Any]:
        """Return the arguments of `chat.completions.create`."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_message(one) for one in request.messages],
        }
        if request.tools:
            body["tools"] = [_tool(one) for one in request.tools]
        if structure is not None:
            form: dict[str, Any] = {"name": structure.name, "schema": structure.sent}
            if structure.is_strict:
                form["strict"] = True
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            body[self._limit] = request.max_output_tokens
        if is_stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return body

    def call(self, client: Any, /, **body: Any) -> Awaitable[Any]:  # noqa: ANN401 - the SDK is not imported
        """Call `chat.completions.create`."""
        return client.chat.completions.create(**body)  # type: ignore[no-any-return]

    def read(self, answer: Mapping[str, Any], /) -> Reading:
        """Read a chat completion."""
        choices = answer.get("choices")
        first = mapping_of(next(iter(mappings_of(choices)), None))
        reading = Reading(
            usage=usage_of(answer.get("usage"), *_TOKENS),
            model=text_of(answer.get("model")) or None,
            error=answer.get("error") or first.get("error"),
            is_answer="choices" in answer,
        )
        message = mapping_of(first.get("message"))
        reading.content = text_of(message.get("content"))
        for call in mappings_of(message.get("tool_calls")):
            asked = mapping_of(call.get("function"))
            name, arguments = asked.get("name"), asked.get("arguments")
            reading.add_tool_call(name, arguments, call.get("id"))
        _finish(reading, first.get("finish_reason"), text_of(message.get("refusal")))
        return reading

    def collector(self) -> ChatCollector:
        """Return what reads a stream of chunks."""
        return ChatCollector()


class ChatCollector:
    """Reads the chunks of a chat completion."""

    def __init__(self) -> None:
        self.reading: Reading = Reading()
        self._refusal = ""
        self._calls: dict[object, dict[str, str]] = {}

    def feed(self, event: Mapping[str, Any], /) -> str:
        """Take a chunk in; return the text of its delta."""
        reading = self.reading
        reading.usage = usage_of(event.get("usage"), *_TOKENS) or reading.usage
        reading.model = text_of(event.get("model")) or reading.model
        reading.error = reading.error or event.get("error")
        added = ""
        for choice in mappings_of(event.get("choices")):
            # Of several choices the first is read, as without a stream.
            if count_of(choice.get("index")) == 0:
                added += self._choice(choice)
        reading.content += added
        return added

    def _choice(self, choice: Mapping[str, Any]) -> str:
        self.reading.error = self.reading.error or choice.get("error")
        delta = mapping_of(choice.get("delta"))
        for piece in mappings_of(delta.get("tool_calls")):
            self._add(piece)
        self._refusal += text_of(delta.get("refusal"))
        reason = choice.get("finish_reason")
        if reason is not None:
            _finish(self.reading, reason, "")
        return text_of(delta.get("content"))

    def _add(self, piece: Mapping[str, Any]) -> None:
        index = piece.get("index")
        key = index if index is not None else (piece.get("id") or len(self._calls) - 1)
        call = self._calls.setdefault(key, {"id": "", "name": "", "arguments": ""})
        asked = mapping_of(piece.get("function"))
        call["id"] = call["id"] or text_of(piece.get("id"))
        call["name"] = call["name"] or text_of(asked.get("name"))
        call["arguments"] += text_of(asked.get("arguments"))

    def end(self) -> None:
        """Put the tool calls together, and take a refusal for the answer."""
        reading = self.reading
        for call in self._calls.values():
            reading.add_tool_call(call["name"], call["arguments"], call["id"])
        if self._refusal:
            _finish(reading, reading.reason, self._refusal)


def _finish(reading: Reading, reason: object, refusal: str) -> None:
    reading.reason = None if reason is None else str(reason)
    reading.finish_reason = _REASONS.get(str(reason), "unknown")
    if refusal and reason is not None:
        reading.content = reading.content or refusal
        reading.finish_reason = "refusal"


def _message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["content"] = message.content or None
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": call.broken_arguments or json.dumps(call.arguments),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = dict(tool.parameters)
    return {"type": "function", "function": function}
