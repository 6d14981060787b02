"""How many tokens a call takes when the test does not say.

One token for every four characters, rounded up, of all texts together: the messages,
the calls in them, and the tools that are offered; of the answer, its text and the names
and arguments of its calls. Providers count otherwise, but of the same order, and here
equal calls count the same in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.wire.providers.encoding import json_text
from pytest_tta.wire.providers.speech import arguments_text
from tta_primitives.llm import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tta_primitives.llm import LLMRequest, LLMResponse, ToolCall

__all__ = ["estimated", "usage_of"]

_CHARACTERS = 4


def estimated(texts: Iterable[str]) -> int:
    """Return how many tokens texts have together, by the estimate of this module."""
    return -(-sum(map(len, texts)) // _CHARACTERS)


def usage_of(request: LLMRequest, response: LLMResponse, text: str) -> Usage:
    """Return the usage that the response tells, or else an estimate.

    Args:
        request: What was asked.
        response: What is answered.
        text: The text of the answer.
    """
    if response.usage is not None:
        return response.usage
    said = [text, *_texts_of_calls(response.tool_calls)]
    return Usage(estimated(_texts_of_request(request)), estimated(said))


def _texts_of_request(request: LLMRequest) -> list[str]:
    texts = [message.content for message in request.messages]
    for message in request.messages:
        texts += _texts_of_calls(message.tool_calls)
    for tool in request.tools:
        texts += [tool.name, tool.description, json_text(dict(tool.parameters))]
    return texts


def _texts_of_calls(calls: Iterable[ToolCall]) -> list[str]:
    return [text for call in calls for text in (call.name, arguments_text(call))]
