"""The turns of a request to the Messages API, read as a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.wire.providers.conversation import check_answered
from pytest_tta.wire.providers.reading import described
from tta_primitives.llm import Message, ToolCall

if TYPE_CHECKING:
    from pytest_tta.wire.providers.reading import Fields

__all__ = ["conversation"]

_ROLES = ("user", "assistant", "system")
_HIDDEN = {"thinking", "redacted_thinking"}


def conversation(fields: Fields) -> list[Message]:
    """Return the messages of a request, its system prompt first.

    Args:
        fields: The request.

    Raises:
        ValueError: Anthropic would refuse it.
    """
    turns = fields.items("messages")
    if not turns:
        msg = "messages: at least one message is required"
        raise ValueError(msg)
    roles = [turn.word("role", _ROLES) for turn in turns]
    first = next((role for role in roles if role != "system"), "")
    if first != "user":
        msg = 'messages: first message must use the "user" role'
        raise ValueError(msg)
    spoken: list[Message] = []
    for index, (role, turn) in enumerate(zip(roles, turns, strict=True)):
        spoken += _turn(role, turn, is_last=index == len(turns) - 1)
    check_answered(spoken, _unanswered, _unasked)
    system = fields.content("system", _text, required=False)
    return [Message("system", system), *spoken] if system else spoken


def _turn(role: str, turn: Fields, *, is_last: bool) -> list[Message]:
    if isinstance(turn.values.get("content"), str):
        text, blocks = turn.text("content"), []
    else:
        text, blocks = "", turn.items("content")
    is_prefill = is_last and role == "assistant"
    if not (text or blocks or is_prefill):
        msg = (
            f"{'.'.join(map(str, turn.path))}: all messages must have non-empty "
            "content except for the optional final assistant message"
        )
        raise ValueError(msg)
    if role == "assistant":
        calls = tuple(_call(one) for one in blocks if _kind(one) == "tool_use")
        return [Message("assistant", text or _joined(blocks), calls)]
    if role == "system":
        return [Message("system", text or _joined(blocks))]
    are_results = [_kind(one) == "tool_result" for one in blocks]
    results = [_result(one) for one in blocks if _kind(one) == "tool_result"]
    if not all(are_results[: len(results)]):
        raise ValueError(_unanswered(0, results[0].tool_call_id or ""))
    words = text or _joined(blocks)
    return [*results, Message("user", words)] if words or not results else results


def _kind(block: Fields) -> str:
    return block.text("type")


def _joined(blocks: list[Fields]) -> str:
    texts = (_text(block) for block in blocks)
    return "\n".join(text for text in texts if text)


def _text(block: Fields) -> str:
    """Return what a block says; calls and results are read elsewhere."""
    kind = _kind(block)
    if kind == "text":
        text = block.text("text")
        if not text:
            msg = "messages: text content blocks must be non-empty"
            raise ValueError(msg)
        return text
    if kind in _HIDDEN or kind in {"tool_use", "tool_result"}:
        return ""
    return described(block.values)


def _call(block: Fields) -> ToolCall:
    arguments = block.fields("input").values
    return ToolCall(block.filled("name"), arguments, block.text("id"))


def _result(block: Fields) -> Message:
    content = block.content("content", _text, required=False)
    return Message("tool", content, (), block.text("tool_use_id"))


def _unanswered(_: int, ids: str) -> str:
    return (
        f"messages: `tool_use` ids were found without `tool_result` blocks immediately "
        f"after: {ids}. Each `tool_use` block must have a corresponding `tool_result` "
        "block in the next message."
    )


def _unasked(_: int, call_id: str) -> str:
    return (
        "messages: unexpected `tool_use_id` found in `tool_result` blocks: "
        f"{call_id}. Each `tool_result` block must have a corresponding `tool_use` "
        "block in the previous message."
    )
