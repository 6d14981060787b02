"""Anthropic's Messages API."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from tta_primitives.llm.messages import FinishReason, LLMRequest, Message, Tool, Usage
from tta_primitives.llm.reading import (
    Reading,
    count_of,
    mapping_of,
    mappings_of,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping

    from tta_primitives.llm.structured import Structure

__all__ = ["DEFAULT_MAX_TOKENS", "Messages"]

DEFAULT_MAX_TOKENS = 4096
"""The most tokens of an answer if nobody has set a limit: the API asks for one."""

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class Messages:
    """How the Messages API is asked and how it answers."""

    name = "anthropic.messages"

    def body(
        self, request: LLMRequest, structure: Structure | None, /, *, is_stream: bool
    ) -> dict[str, Any]:
        """Return the arguments of `messages.create`."""
        system = [one.content for one in request.messages if one.role == "system"]
        spoken = (one for one in request.messages if one.role != "system")
        body: dict[str, Any] = {
            "model": request.model,
            "messages": _turns(spoken),
            "max_tokens": request.max_output_tokens or DEFAULT_MAX_TOKENS,
        }
        if system:
            body["system"] = "\n\n".join(system)
        if request.tools:
            body["tools"] = [_tool(one) for one in request.tools]
        if structure is not None:
            form = {"type": "json_schema", "schema": structure.sent}
            body["output_config"] = {"format": form}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if is_stream:
            body["stream"] = True
        return body

    def call(self, client: Any, /, **body: Any) -> Awaitable[Any]:  # noqa: ANN401 - the SDK is not imported
        """Call `messages.create`."""
        create = client.messages.create
        if "temperature" in body and "temperature" not in signature(create).parameters:
            # Later SDKs no longer know it: whether a model does is for the API to say.
            warmth = {"temperature": body.pop("temperature")}
            body["extra_body"] = {**warmth, **body.get("extra_body", {})}
        return create(**body)  # type: ignore[no-any-return]

    def read(self, answer: Mapping[str, Any], /) -> Reading:
        """Read a message."""
        reading = Reading(
            usage=_usage(mapping_of(answer.get("usage"))),
            model=text_of(answer.get("model")) or None,
            error=answer.get("error"),
            is_answer="content" in answer,
        )
        for block in mappings_of(answer.get("content")):
            if block.get("type") == "text":
                reading.content += text_of(block.get("text"))
            elif block.get("type") == "tool_use":
                name, arguments = block.get("name"), block.get("input")
                reading.add_tool_call(name, arguments, block.get("id"))
        _finish(reading, answer)
        return reading

    def collector(self) -> MessagesCollector:
        """Return what reads a stream of events."""
        return MessagesCollector()


class MessagesCollector:
    """Reads the events of a message."""

    def __init__(self) -> None:
        self.reading: Reading = Reading()
        self._usage: dict[str, Any] = {}
        self._calls: dict[object, dict[str, Any]] = {}

    def feed(self, event: Mapping[str, Any], /) -> str:
        """Take an event in; return the text of a delta."""
        kind = event.get("type")
        if kind == "message_start":
            message = mapping_of(event.get("message"))
            self.reading.model = text_of(message.get("model")) or None
            self._count(message.get("usage"))
        elif kind == "content_block_start":
            return self._begin(event)
        elif kind == "content_block_delta":
            return self._add(event)
        elif kind == "message_delta":
            self._count(event.get("usage"))
            _finish(self.reading, mapping_of(event.get("delta")))
        return ""

    def _count(self, value: object) -> None:
        # What is told at the end counts; it repeats what it does not mean to change.
        told = {k: v for k, v in mapping_of(value).items() if v is not None}
        self._usage.update(told)
        self.reading.usage = _usage(self._usage)

    def _begin(self, event: Mapping[str, Any]) -> str:
        block = mapping_of(event.get("content_block"))
        if block.get("type") == "tool_use":
            begun = block.get("input") or None
            self._calls[event.get("index")] = {**block, "input": begun, "json": ""}
        added = text_of(block.get("text")) if block.get("type") == "text" else ""
        self.reading.content += added
        return added

    def _add(self, event: Mapping[str, Any]) -> str:
        delta = mapping_of(event.get("delta"))
        call = self._calls.get(event.get("index"))
        if call is not None:
            call["json"] += text_of(delta.get("partial_json"))
        added = text_of(delta.get("text")) if delta.get("type") == "text_delta" else ""
        self.reading.content += added
        return added

    def end(self) -> None:
        """Put the tool calls together."""
        for call in self._calls.values():
            arguments = call["json"] or call["input"]
            self.reading.add_tool_call(call.get("name"), arguments, call.get("id"))


def _finish(reading: Reading, told: Mapping[str, Any]) -> None:
    reason = told.get("stop_reason")
    if reason is not None:
        reading.reason = str(reason)
        reading.finish_reason = _REASONS.get(reading.reason, "unknown")
        details = mapping_of(told.get("stop_details"))
        reading.detail = text_of(details.get("category"))


def _usage(told: Mapping[str, Any]) -> Usage | None:
    if not told:
        return None
    # Unlike OpenAI, the first number leaves out what the cache had to do with.
    cached = count_of(told.get("cache_read_input_tokens"))
    written = count_of(told.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count_of(told.get("input_tokens")) + cached + written,
        output_tokens=count_of(told.get("output_tokens")),
        cached_tokens=cached,
    )


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    follows_tool = False
    for message in messages:
        is_tool = message.role == "tool"
        if is_tool and follows_tool:
            # The results of one turn's calls must come in one message.
            turns[-1]["content"].append(_result(message))
        elif is_tool:
            turns.append({"role": "user", "content": [_result(message)]})
        else:
            turns.append({"role": message.role, "content": _content(message)})
        follows_tool = is_tool
    return turns


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.tool_calls:
        return message.content
    blocks: list[dict[str, Any]] = []
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    blocks += [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": dict(call.arguments),
        }
        for call in message.tool_calls
    ]
    return blocks


def _result(message: Message) -> dict[str, Any]:
    return {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id,
        "content": message.content,
    }


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    written["input_schema"] = dict(tool.parameters) or {"type": "object"}
    return written
