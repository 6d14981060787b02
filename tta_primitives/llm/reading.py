"""What was read of a provider's answer, before anybody has judged it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tta_primitives.llm.messages import FinishReason, LLMResponse, ToolCall, Usage

__all__ = ["Reading", "count_of", "mapping_of", "mappings_of", "text_of", "usage_of"]

_NAMELESS = "(nameless)"


@dataclass(slots=True)
class Reading:
    """What was read of an answer; a stream fills it bit by bit.

    Attributes:
        content: The text so far.
        tool_calls: The tools that the model wants to be called.
        finish_reason: Why it ended, in no vendor's words.
        reason: The same as the provider wrote it, None if it has not.
        detail: What else it says of that.
        usage: The tokens, None if the provider did not tell.
        model: The model that answered.
        error: What the provider reports instead of an answer.
        is_answer: Whether it has the form of an answer at all.
    """

    content: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishReason = "unknown"
    reason: str | None = None
    detail: str = ""
    usage: Usage | None = None
    model: str | None = None
    error: object = None
    is_answer: bool = True

    def add_tool_call(
        self, name: object, arguments: object, identifier: object
    ) -> None:
        """Add a tool call, marked as broken if its arguments are no JSON object.

        Args:
            name: As the provider wrote it.
            arguments: An object, or its JSON as text; no text stands for none.
            identifier: What ties the result to it.
        """
        self.tool_calls.append(_tool_call(name, arguments, identifier))

    def response(self, data: Any = None) -> LLMResponse:  # noqa: ANN401 - by the user's schema
        """Return it as a response.

        Args:
            data: The structured answer.
        """
        return LLMResponse(
            content=self.content,
            tool_calls=tuple(self.tool_calls),
            finish_reason=self.finish_reason,
            usage=self.usage,
            model=self.model,
            data=data,
        )


def _tool_call(name: object, arguments: object, identifier: object) -> ToolCall:
    parsed: object = arguments
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        parsed = {}
    elif isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = None
    is_whole = isinstance(parsed, Mapping) and isinstance(name, str) and bool(name)
    raw = (
        arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
    )
    return ToolCall(
        name=text_of(name) or _NAMELESS,
        arguments=dict(parsed) if is_whole and isinstance(parsed, Mapping) else {},
        id=text_of(identifier),
        broken_arguments=None if is_whole else raw,
    )


def usage_of(value: object, asked: str, answered: str) -> Usage | None:
    """Return the tokens of an answer of OpenAI's, None if it does not tell.

    Args:
        value: What its `usage` is.
        asked: The name that it has for the tokens of the request.
        answered: The same for those of the response.
    """
    told = mapping_of(value)
    if not told:
        return None
    details = mapping_of(told.get(f"{asked}_details"))
    return Usage(
        input_tokens=count_of(told.get(asked)),
        output_tokens=count_of(told.get(answered)),
        cached_tokens=count_of(details.get("cached_tokens")),
    )


def text_of(value: object) -> str:
    """Return a text, "" for what is none; the texts of a list of parts, joined."""
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) for part in mappings_of(value))
    return value if isinstance(value, str) else ""


def count_of(value: object) -> int:
    """Return a whole number of at least 0, 0 for what is none."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_count and isinstance(value, int) else 0


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a mapping, an empty one for what is none."""
    return value if isinstance(value, Mapping) else {}


def mappings_of(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a list, none for what is no list."""
    parts = value if isinstance(value, list) else []
    return [part for part in parts if isinstance(part, Mapping)]
