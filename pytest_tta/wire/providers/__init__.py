"""What each provider's API expects and answers, field by field and event by event."""

from __future__ import annotations

from pytest_tta.wire.providers.anthropic_messages import AnthropicMessages
from pytest_tta.wire.providers.openai_chat import OpenAIChat
from pytest_tta.wire.providers.openai_responses import OpenAIResponses

__all__ = ["AnthropicMessages", "OpenAIChat", "OpenAIResponses"]
