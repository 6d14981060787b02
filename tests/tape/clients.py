"""The vendors' SDKs, asked in each of their ways, in a form that can be compared."""

from __future__ import annotations

import asyncio

import anthropic
import openai

KEY = "sk-planted-0123456789abcdef"
QUESTION = [{"role": "user", "content": "How many?"}]


def _options(more):
    return {"api_key": KEY, "max_retries": 0, **more}


def openai_options(url, **more):
    """Return the arguments of a client of OpenAI's."""
    return {**_options(more), "base_url": f"{url}/v1"}


def anthropic_options(url, **more):
    """Return the arguments of a client of Anthropic's."""
    return {**_options(more), "base_url": url}


async def chat(url, messages=QUESTION, **more):
    """Ask for a chat completion."""
    async with openai.AsyncOpenAI(**openai_options(url, **more)) as client:
        answer = await client.chat.completions.create(model="gpt-5", messages=messages)
        return answer.model_dump()


async def chat_stream(url, messages=QUESTION, **more):
    """Ask for a streamed chat completion; return its chunks."""
    async with openai.AsyncOpenAI(**openai_options(url, **more)) as client:
        stream = await client.chat.completions.create(
            model="gpt-5", messages=messages, stream=True
        )
        return [chunk.model_dump() async for chunk in stream]


async def responses(url, **more):
    """Ask for a response."""
    async with openai.AsyncOpenAI(**openai_options(url, **more)) as client:
        answer = await client.responses.create(model="gpt-5", input="How many?")
        return answer.model_dump()


async def responses_stream(url, **more):
    """Ask for a streamed response; return its events."""
    async with openai.AsyncOpenAI(**openai_options(url, **more)) as client:
        stream = await client.responses.create(
            model="gpt-5", input="How many?", stream=True
        )
        return [event.model_dump() async for event in stream]


async def messages(url, **more):
    """Ask for a message."""
    async with anthropic.AsyncAnthropic(**anthropic_options(url, **more)) as client:
        answer = await client.messages.create(
            model="claude-opus", max_tokens=99, messages=QUESTION
        )
        return answer.model_dump()


async def messages_stream(url, **more):
    """Ask for a streamed message; return its events."""
    async with anthropic.AsyncAnthropic(**anthropic_options(url, **more)) as client:
        stream = await client.messages.create(
            model="claude-opus", max_tokens=99, messages=QUESTION, stream=True
        )
        return [event.model_dump() async for event in stream]


async def blocking_chat(url, **more):
    """Ask with a client that blocks the loop."""
    with openai.OpenAI(**openai_options(url, **more)) as client:
        answer = client.chat.completions.create(model="gpt-5", messages=QUESTION)
        return answer.model_dump()


async def blocking_stream(url, **more):
    """Ask with a client that blocks the loop, for a stream."""
    with openai.OpenAI(**openai_options(url, **more)) as client:
        stream = client.chat.completions.create(
            model="gpt-5", messages=QUESTION, stream=True
        )
        return [chunk.model_dump() for chunk in stream]


async def in_a_thread(url, **more):
    """Ask with a client that blocks a thread."""
    with anthropic.Anthropic(**anthropic_options(url, **more)) as client:
        answer = await asyncio.to_thread(
            client.messages.create,
            model="claude-opus",
            max_tokens=99,
            messages=QUESTION,
        )
        return answer.model_dump()


WAYS = {
    function.__name__: function
    for function in (
        chat,
        chat_stream,
        responses,
        responses_stream,
        messages,
        messages_stream,
        blocking_chat,
        blocking_stream,
        in_a_thread,
    )
}
