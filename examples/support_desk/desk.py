"""The desk: a model that may look up orders, until it has an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["AnswerCutError", "answer", "client", "speak"]

# As in many programs: made once, at import, from OPENAI_API_KEY.
client = openai.AsyncOpenAI(timeout=20, max_retries=2)

_MODEL = "gpt-5-mini"
_MOST_TURNS = 4
_ORDERS = {"7": "on its way, expected on Friday", "8": "delivered"}
_TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "order_status",
            "description": "Tells where an order is.",
            "parameters": {
                "type": "object",
                "properties": {"order": {"type": "string"}},
                "required": ["order"],
            },
        },
    }
]


class AnswerCutError(Exception):
    """The model ran out of tokens before its answer was complete."""


async def answer(question: str) -> str:
    """Answer one question, looking up what is asked about.

    Raises:
        AnswerCutError: Only a part of an answer came.
        openai.APIError: The provider could not be asked.
    """
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(_MOST_TURNS):
        reply = await client.chat.completions.create(
            model=_MODEL, messages=messages, tools=_TOOLS
        )
        choice = reply.choices[0]
        # With status 200, and the SDK says nothing.
        if choice.finish_reason == "length":
            raise AnswerCutError(choice.message.content)
        if not choice.message.tool_calls:
            return choice.message.content or ""
        messages.append(choice.message)
        messages += [_looked_up(call) for call in choice.message.tool_calls]
    return "I could not find out. A colleague will write to you."


async def speak(question: str) -> AsyncIterator[str]:
    """Answer word by word, without looking anything up.

    Raises:
        AnswerCutError: The words ended before the answer did.
        openai.APIError: The provider could not be asked, or the connection was lost.
    """
    reason = None
    async with await client.chat.completions.create(
        model=_MODEL, messages=[{"role": "user", "content": question}], stream=True
    ) as chunks:
        async for chunk in chunks:
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                if choice.delta.content:
                    yield choice.delta.content
    if reason != "stop":
        raise AnswerCutError(reason)


def _looked_up(call: Any) -> Mapping[str, str]:  # noqa: ANN401 - one of several kinds
    order = json.loads(call.function.arguments)["order"]
    found = _ORDERS.get(order, "there is no such order")
    return {"role": "tool", "tool_call_id": call.id, "content": found}
