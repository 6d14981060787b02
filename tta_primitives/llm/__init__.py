"""Neutral requests and responses of language models, for every provider."""

from __future__ import annotations

from tta_primitives.llm.messages import (
    FinishReason,
    LLMInput,
    LLMRequest,
    LLMResponse,
    Message,
    Role,
    Tool,
    ToolCall,
    Usage,
)

__all__ = [
    "FinishReason",
    "LLMInput",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "Role",
    "Tool",
    "ToolCall",
    "Usage",
]
