"""The messages of a request to the chat API, read as a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.wire.providers.conversation import check_answered
from pytest_tta.wire.providers.reading import call_of, described
from tta_primitives.llm import Message, ToolCall

if TYPE_CHECKING:
    from pytest_tta.wire.providers.reading import Fields

__all__ = ["conversation"]

_ROLES = ("system", "developer", "assistant", "user", "function", "tool")
_PARTS = ("text", "image_url", "input_audio", "refusal", "file")


def conversation(fields: Fields) -> list[Message]:
    """Return the messages of a request.

    Args:
        fields: The request.

    Raises:
        ValueError: OpenAI would refuse it.
    """
    asked = fields.items("messages")
    if not asked:
        msg = "Invalid 'messages': empty array. Expected at least one message."
        raise ValueError(msg)
    messages = [_message(one) for one in asked]
    check_answered(messages, _unanswered, _unasked)
    return messages


def _message(fields: Fields) -> Message:
    role = fields.word("role", _ROLES)
    if role in {"system", "developer"}:
        return Message("system", fields.content("content", _part))
    if role == "user":
        return Message("user", fields.content("content", _part))
    if role == "tool":
        content = fields.content("content", _part)
        return Message("tool", content, (), fields.text("tool_call_id"))
    if role == "function":
        content = fields.text("content", "")
        return Message("tool", content, (), fields.text("name"))
    return _said_before(fields)


def _said_before(fields: Fields) -> Message:
    """Return a message of the assistant; it needs content unless it calls tools."""
    calls = [_call(one) for one in fields.items("tool_calls", required=False)]
    if fields.has("function_call"):
        function = fields.fields("function_call")
        calls.append(call_of(function, function.text("name")))
    content = fields.text("refusal", "")
    if not content:
        content = fields.content("content", _part, required=not calls)
    return Message("assistant", content, tuple(calls))


def _call(fields: Fields) -> ToolCall:
    call_id, kind = fields.text("id"), fields.word("type", ("function", "custom"))
    if kind == "function":
        return call_of(fields.fields("function"), call_id)
    custom = fields.fields("custom")
    return ToolCall(custom.text("name"), {"input": custom.text("input")}, call_id)


def _part(fields: Fields) -> str:
    kind = fields.word("type", _PARTS)
    if kind in {"text", "refusal"}:
        return fields.text(kind)
    return described(fields.values)


def _unanswered(_: int, ids: str) -> str:
    return (
        "An assistant message with 'tool_calls' must be followed by tool messages "
        "responding to each 'tool_call_id'. The following tool_call_ids did not have "
        f"response messages: {ids}"
    )


def _unasked(index: int, call_id: str) -> str:
    return (
        "Invalid parameter: messages with role 'tool' must be a response to a "
        "preceding message with 'tool_calls'; "
        f"messages[{index}] answers '{call_id}'."
    )
