"""Answers as the providers write them, and primitives that get them over a socket."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

from pytest_tta.wire.exchange import WireAnswer
from tests.wire.loopback import loopback
from tta_primitives.llm import AnthropicPrimitive, OpenAIPrimitive

KEY = "sk-planted-4f9a1c7e"
MODELS = {"chat": "gpt-5", "responses": "gpt-5", "anthropic": "claude-opus-5"}
APIS = tuple(MODELS)


def primitive(api, url, **options):
    """Return a primitive for an API, whose provider is at this URL."""
    options = {"model": MODELS[api], "api_key": KEY, **options}
    if api == "anthropic":
        return AnthropicPrimitive(base_url=url, **options).named("llm")
    return OpenAIPrimitive(base_url=f"{url}/v1", api=api, **options).named("llm")


@asynccontextmanager
async def served(api, *answers, **options):
    """Serve these answers, the last for ever, to a primitive that is closed in the end.

    Gives the primitive and the list of the requests that came.
    """

    def answer(number, seen):
        return answers[min(number, len(answers)) - 1]

    async with (
        loopback(answer) as server,
        primitive(api, server.url, **options) as llm,
    ):
        yield llm, server.seen


def sent(seen, number=0):
    """Return the JSON of a request."""
    return json.loads(seen[number].body)


# -- whole answers ---------------------------------------------------------------------


def chat(content="Hello.", finish="stop", *, tool_calls=None, refusal=None, **more):
    """Return a chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    if tool_calls is not None:
        message["tool_calls"] = [
            {
                "id": identifier,
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for identifier, name, arguments in tool_calls
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "gpt-5-2026-01-01",
        "choices": [choice],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        **more,
    }


def responses(content="Hello.", status="completed", *, tool_calls=(), **more):
    """Return a response of the Responses API."""
    output = []
    if content is not None:
        part = {"type": "output_text", "text": content, "annotations": []}
        output.append(
            {
                "type": "message",
                "id": "msg_1",
                "status": status,
                "role": "assistant",
                "content": [part],
            }
        )
    output += [
        {
            "type": "function_call",
            "id": f"fc_{identifier}",
            "call_id": identifier,
            "name": name,
            "arguments": arguments,
            "status": "completed",
        }
        for identifier, name, arguments in tool_calls
    ]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1767225600,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-5-2026-01-01",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
        **more,
    }


def anthropic(content="Hello.", stop="end_turn", *, tool_calls=(), **more):
    """Return a message of Anthropic's."""
    blocks = [] if content is None else [{"type": "text", "text": content}]
    blocks += [
        {"type": "tool_use", "id": identifier, "name": name, "input": given}
        for identifier, name, given in tool_calls
    ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 2,
            "output_tokens": 3,
        },
        **more,
    }


BODIES = {"chat": chat, "responses": responses, "anthropic": anthropic}


def whole(api, *arguments, **more):
    """Return a whole answer of an API as it goes over the wire."""
    return WireAnswer.of_json(BODIES[api](*arguments, **more))


# -- streams ---------------------------------------------------------------------------


def event(data, name=None):
    """Return a server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


def chat_events(*words, finish="stop", done=True, tool_pieces=(), usage=True):
    """Return the events of a streamed chat completion."""
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "gpt-5-2026-01-01",
    }

    def chunk(delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**head, "choices": [choice]})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": word}) for word in words]
    events += [chunk({"tool_calls": [piece]}) for piece in tool_pieces]
    if finish is not None:
        events.append(chunk({}, finish))
        if usage:
            told = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
            events.append(event({**head, "choices": [], "usage": told}))
    if done:
        events.append(event("[DONE]"))
    return events


def responses_events(*words, end="response.completed", tool_calls=(), **more):
    """Return the events of a streamed response."""
    begun = {**responses(None, "in_progress"), "usage": None}
    events = [{"type": "response.created", "response": begun}]
    events += [
        {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": word,
            "logprobs": [],
        }
        for word in words
    ]
    if end is not None:
        status = end.partition(".")[2]
        text = "".join(words) if words else None
        last = responses(text, status, tool_calls=tool_calls, **more)
        events.append({"type": end, "response": last})
    numbered = [{**one, "sequence_number": i} for i, one in enumerate(events)]
    return [event(one, one["type"]) for one in numbered]


def anthropic_events(*words, stop="end_turn", over=True, tools=(), details=None):
    """Return the events of a streamed message; tools have their pieces of JSON."""
    begun = {**anthropic(None), "stop_reason": None}
    begun["usage"] = {"input_tokens": 9, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": begun},
        {"type": "ping"},
        _block_start(0, {"type": "text", "text": ""}),
    ]
    events += [_block_delta(0, {"type": "text_delta", "text": word}) for word in words]
    events.append({"type": "content_block_stop", "index": 0})
    for index, (identifier, name, pieces) in enumerate(tools, start=1):
        block = {"type": "tool_use", "id": identifier, "name": name, "input": {}}
        events.append(_block_start(index, block))
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            events.append(_block_delta(index, delta))
        events.append({"type": "content_block_stop", "index": index})
    if stop is not None:
        delta = {"stop_reason": stop, "stop_sequence": None}
        if details is not None:
            delta["stop_details"] = details
        usage = {"output_tokens": 3}
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
        if over:
            events.append({"type": "message_stop"})
    return [event(one, one["type"]) for one in events]


def _block_start(index, block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def _block_delta(index, delta):
    return {"type": "content_block_delta", "index": index, "delta": delta}


EVENTS = {
    "chat": chat_events,
    "responses": responses_events,
    "anthropic": anthropic_events,
}


def streamed(api, *words, **more):
    """Return a streamed answer of an API as it goes over the wire."""
    return of_events(*EVENTS[api](*words, **more))


def of_events(*events):
    """Return an answer with these events, all at once."""
    return WireAnswer.of_events([(0.0, one) for one in events])


async def texts(llm, question="Hi", context=None):
    """Return the texts of a stream."""
    from tta_primitives import WorkflowContext

    context = context or WorkflowContext()
    return [text async for text in llm.stream(question, context)]
