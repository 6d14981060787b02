"""Whether every tool call of a conversation was answered, as providers insist."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tta_primitives.llm import Message

__all__ = ["check_answered"]


def check_answered(
    messages: Iterable[Message],
    unanswered: Callable[[int, str], str],
    unasked: Callable[[int, str], str],
) -> None:
    """Refuse calls that are not answered at once, and answers to no call.

    Args:
        messages: The conversation.
        unanswered: What to say of calls without an answer, by the index of the message
            that should have been one, and their ids.
        unasked: What to say of an answer to no call, by its index and the id.

    Raises:
        ValueError: There is one of these.
    """
    waiting: dict[str, None] = {}
    index = -1
    for index, message in enumerate(messages):
        if message.role == "tool":
            call_id = message.tool_call_id or ""
            if call_id not in waiting:
                raise ValueError(unasked(index, call_id))
            del waiting[call_id]
            continue
        if waiting:
            raise ValueError(unanswered(index, ", ".join(waiting)))
        waiting = dict.fromkeys(call.id for call in message.tool_calls)
    if waiting:
        raise ValueError(unanswered(index + 1, ", ".join(waiting)))
