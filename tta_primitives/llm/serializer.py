"""What lets a cache in another process keep the responses of models."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tta_primitives.llm.messages import LLMResponse, ToolCall, Usage
from tta_primitives.llm.structured import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ResponseSerializer"]


class ResponseSerializer:
    """Writes responses as JSON, for a cache with `storage=`.

    Structured data is not written: it is parsed again from the text of the answer.

    Args:
        schema: The schema of the primitive that is cached, if it has one.
    """

    def __init__(self, schema: Mapping[str, Any] | type | None = None) -> None:
        self._structure = Structure.of(schema)

    def dumps(self, value: object, /) -> bytes:
        """Return a response as JSON.

        Raises:
            TypeError: It is no response, or has data and there is no schema for it.
        """
        if not isinstance(value, LLMResponse):
            msg = (
                f"a {type(value).__name__} is no LLMResponse, which is all that "
                "ResponseSerializer writes"
            )
            raise TypeError(msg)
        if value.data is not None and self._structure is None:
            msg = (
                "the response has data that would be lost: give "
                "ResponseSerializer(schema=...) the schema of the primitive"
            )
            raise TypeError(msg)
        written = {
            "content": value.content,
            "tool_calls": [asdict(call) for call in value.tool_calls],
            "finish_reason": value.finish_reason,
            "usage": None if value.usage is None else asdict(value.usage),
            "model": value.model,
            "has_data": value.data is not None,
        }
        return json.dumps(written, separators=(",", ":")).encode()

    def loads(self, data: bytes, /) -> LLMResponse:
        """Return the response that was written.

        Raises:
            ValueError: It is no JSON, or its text no longer fits the schema.
        """
        read = json.loads(data)
        usage, structure = read["usage"], self._structure
        has_data = read["has_data"] and structure is not None
        return LLMResponse(
            content=read["content"],
            tool_calls=tuple(ToolCall(**call) for call in read["tool_calls"]),
            finish_reason=read["finish_reason"],
            usage=None if usage is None else Usage(**usage),
            model=read["model"],
            data=structure.parse(read["content"]) if has_data and structure else None,
        )
