"""Language models: requests and responses for every provider, and their primitives."""

from __future__ import annotations

from tta_primitives.llm.anthropic import AnthropicPrimitive
from tta_primitives.llm.errors import (
    BrokenToolCallError,
    EmptyResponseError,
    IncompleteResponseError,
    InvalidStructuredOutputError,
    LLMConfigurationError,
    MalformedResponseError,
    ResponseFailedError,
    ResponseFilteredError,
    ResponseRefusedError,
    ResponseTruncatedError,
    StreamEndedError,
)
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
from tta_primitives.llm.openai import OpenAIPrimitive
from tta_primitives.llm.primitive import LLMPrimitive, LLMStats
from tta_primitives.llm.serializer import ResponseSerializer

__all__ = [
    "AnthropicPrimitive",
    "BrokenToolCallError",
    "EmptyResponseError",
    "FinishReason",
    "IncompleteResponseError",
    "InvalidStructuredOutputError",
    "LLMConfigurationError",
    "LLMInput",
    "LLMPrimitive",
    "LLMRequest",
    "LLMResponse",
    "LLMStats",
    "MalformedResponseError",
    "Message",
    "OpenAIPrimitive",
    "ResponseFailedError",
    "ResponseFilteredError",
    "ResponseRefusedError",
    "ResponseSerializer",
    "ResponseTruncatedError",
    "Role",
    "StreamEndedError",
    "Tool",
    "ToolCall",
    "Usage",
]
