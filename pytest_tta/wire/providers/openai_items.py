"""The items of a request to the Responses API, read as a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.wire.providers.reading import call_of, described
from tta_primitives.llm import Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_tta.wire.providers.reading import Fields
    from tta_primitives.llm import Role

__all__ = ["conversation"]

_SPEAKERS: Mapping[str, Role] = {
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "user": "user",
}
_PARTS = ("input_text", "input_image", "input_file", "output_text", "refusal")
_CALLS = {"function_call", "custom_tool_call"}
_OUTPUTS = {"function_call_output", "custom_tool_call_output"}
_HIDDEN = {"reasoning", "compaction"}


def conversation(fields: Fields) -> list[Message]:
    """Return the messages of a request, its instructions left out.

    Args:
        fields: The request.

    Raises:
        ValueError: OpenAI would refuse it.
    """
    if isinstance(fields.values.get("input"), str):
        return [Message("user", fields.text("input"))]
    messages: list[Message] = []
    items = fields.items("input", required=not fields.has("prompt"))
    for item in items:
        _add(messages, item)
    # What came before is kept by OpenAI, and may hold the calls.
    kept = fields.has("previous_response_id") or fields.has("conversation")
    _check_answered(messages, kept=kept)
    return messages


def _add(messages: list[Message], item: Fields) -> None:
    kind = item.text("type", "message")
    if kind in _HIDDEN:
        return
    if kind in _CALLS:
        _add_call(messages, _call(kind, item))
    elif kind in _OUTPUTS:
        output = item.content("output", _part)
        messages.append(Message("tool", output, (), item.text("call_id")))
    elif kind == "message":
        role = item.word("role", tuple(_SPEAKERS))
        content = item.content("content", _part)
        messages.append(Message(_SPEAKERS[role], content))
    else:
        messages.append(Message("assistant", described(item.values)))


def _add_call(messages: list[Message], call: ToolCall) -> None:
    """Give a call to the message of the assistant right before it, if there is one."""
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(Message("assistant", last.content, (*last.tool_calls, call)))
    else:
        messages.append(Message("assistant", "", (call,)))


def _call(kind: str, item: Fields) -> ToolCall:
    call_id = item.text("call_id")
    if kind == "function_call":
        return call_of(item, call_id)
    return ToolCall(item.text("name"), {"input": item.text("input")}, call_id)


def _part(fields: Fields) -> str:
    kind = fields.word("type", _PARTS)
    if kind == "refusal":
        return fields.text("refusal")
    return fields.text("text") if "text" in kind else described(fields.values)


def _check_answered(messages: list[Message], *, kept: bool) -> None:
    """Refuse outputs before their calls, and calls without outputs."""
    open_calls: dict[str, None] = {}
    for message in messages:
        open_calls |= dict.fromkeys(call.id for call in message.tool_calls)
        if message.role != "tool":
            continue
        call_id = message.tool_call_id or ""
        if call_id not in open_calls and not kept:
            msg = f"No tool call found for function call output with call_id {call_id}."
            raise ValueError(msg)
        open_calls.pop(call_id, None)
    if open_calls:
        msg = f"No tool output found for function call {next(iter(open_calls))}."
        raise ValueError(msg)
