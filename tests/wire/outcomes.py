"""What a vendor's SDK makes of an answer: one function for whatever answers it.

The SDKs retry once, and their pauses are written down instead of being waited for.
"""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import anthropic
import anthropic._base_client
import openai
import openai._base_client

__all__ = ["APIS", "Outcome", "outcome", "without_pauses"]

APIS = ("openai.chat", "openai.responses", "anthropic.messages")
_BASES = (openai._base_client.BaseClient, anthropic._base_client.BaseClient)
_QUESTION = "What is the weather in Paris?"
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_TOOL = {"name": "get_weather", "description": "Tell the weather."}
# What stands below the HTTP client, and is another thing where there is no socket.
_BELOW = ("httpcore", "h11")
# The pause that an SDK chooses by itself before its first retry, with its jitter.
_OWN_PAUSE = (0.375, 0.5)

_ENDS = {"response.completed", "response.failed", "response.incomplete"}

_pauses: contextvars.ContextVar[list[object]] = contextvars.ContextVar("pauses")


@dataclass(frozen=True)
class Outcome:
    """What a caller of an SDK gets to see.

    Attributes:
        errors: The classes of the error and of its causes, by name.
        status: What the error tells.
        message: The texts of the error and of its causes, in one line.
        pauses: Before each retry the seconds that the SDK wanted to wait; "own" for a
            pause of its own choice.
        kind: The class of what was returned, or of what came in a stream.
        text: What was said, as far as it came.
        ending: Why it ended, as the SDK has it.
        more: Tool calls, refusals, errors inside an answer.
    """

    errors: tuple[str, ...] = ()
    status: int | None = None
    message: str = ""
    pauses: tuple[object, ...] = ()
    kind: str = ""
    text: str = ""
    ending: str | None = None
    more: tuple[str, ...] = ()


@dataclass
class Heard:
    """What has come of an answer so far."""

    kind: str = ""
    text: str = ""
    ending: str | None = None
    more: list[str] = field(default_factory=list)

    def note(self, what: str, value: object) -> None:
        """Keep what is there."""
        if value:
            self.more.append(f"{what} {value}")


@contextmanager
def without_pauses():
    """Let the SDKs go on at once when they retry."""
    first, second = _BASES
    with (
        mock.patch.object(first, "_calculate_retry_timeout", _noting(first)),
        mock.patch.object(second, "_calculate_retry_timeout", _noting(second)),
    ):
        yield


def _noting(base):
    asked = base._calculate_retry_timeout

    def calculate(self, *args, **kwargs):
        pause = asked(self, *args, **kwargs)
        is_own = _OWN_PAUSE[0] <= pause <= _OWN_PAUSE[1]
        _pauses.get().append("own" if is_own else round(pause, 3))
        return 0.0

    return calculate


async def outcome(client, api, *, stream, headers=None, question=_QUESTION) -> Outcome:
    """Ask once, and return what came of it.

    Args:
        client: Of the SDK, with `max_retries=1`.
        api: One of `APIS`.
        stream: Whether the answer is to be streamed.
        headers: Further headers of the request.
        question: What is asked.
    """
    pauses: list[object] = []
    _pauses.set(pauses)
    heard = Heard()
    call, listen, hear = _WAYS[api]
    try:
        reply = await call(client, question, stream=stream, extra_headers=headers or {})
        if stream and hasattr(reply, "__aiter__"):
            heard.kind = "stream"
            async with reply:
                async for event in reply:
                    listen(event, heard)
        else:
            heard.kind = type(reply).__name__
            hear(reply, heard)
    except Exception as error:
        return _failed(error, pauses, heard)
    return Outcome(
        pauses=tuple(pauses),
        kind=heard.kind,
        text=heard.text,
        ending=heard.ending,
        more=tuple(heard.more),
    )


def _failed(error, pauses, heard) -> Outcome:
    chain = list(_chain(error))
    return Outcome(
        errors=tuple(type(one).__name__ for one in chain),
        status=getattr(error, "status_code", None),
        message=" from ".join(" ".join(str(one).split()) for one in chain),
        pauses=tuple(pauses),
        kind=heard.kind,
        text=heard.text,
        ending=heard.ending,
        more=tuple(heard.more),
    )


def _chain(error):
    """Yield an error and its causes, as far as HTTP's client."""
    while error is not None and not type(error).__module__.startswith(_BELOW):
        yield error
        error = error.__cause__


def _ask_chat(client, question, **options):
    tool = {"type": "function", "function": {**_TOOL, "parameters": _SCHEMA}}
    return client.chat.completions.create(
        model="gpt-5",
        messages=[{"role": "user", "content": question}],
        tools=[tool],
        **options,
    )


def _ask_responses(client, question, **options):
    tool = {"type": "function", **_TOOL, "parameters": _SCHEMA, "strict": False}
    return client.responses.create(
        model="gpt-5", input=question, tools=[tool], **options
    )


def _ask_messages(client, question, **options):
    return client.messages.create(
        model="claude-sonnet-5",
        max_tokens=100,
        messages=[{"role": "user", "content": question}],
        tools=[{**_TOOL, "input_schema": _SCHEMA}],
        **options,
    )


def _hear_chat(reply, heard) -> None:
    if not isinstance(reply, openai.types.chat.ChatCompletion):
        heard.text = reply if isinstance(reply, str) else ""
        return
    if not reply.choices:
        heard.note("choices", str(reply.choices))
        return
    choice = reply.choices[0]
    heard.text, heard.ending = choice.message.content or "", choice.finish_reason
    heard.note("refusal", choice.message.refusal)
    for call in choice.message.tool_calls or ():
        heard.note("calls", f"{call.function.name} {call.function.arguments}")


def _listen_chat(chunk, heard) -> None:
    if not chunk.choices:
        return
    choice = chunk.choices[0]
    heard.text += choice.delta.content or ""
    heard.ending = choice.finish_reason or heard.ending
    _joined(heard, "refusal ", choice.delta.refusal)
    for call in choice.delta.tool_calls or ():
        heard.note("calls", call.function.name)
        _joined(heard, "calls ", call.function.arguments, " ")


def _joined(heard, start, piece, blank="") -> None:
    """Add a piece to what was noted last, if that is of the same kind."""
    if not piece:
        return
    if heard.more and heard.more[-1].startswith(start):
        last = heard.more.pop()
        is_first = blank and last.count(" ") == 1
        heard.more.append(last + (blank if is_first else "") + piece)
    else:
        heard.more.append(start + piece)


def _hear_response(reply, heard) -> None:
    if not isinstance(reply, openai.types.responses.Response):
        heard.text = reply if isinstance(reply, str) else ""
        return
    heard.ending = reply.status
    _note_end(reply, heard)
    for item in reply.output or ():
        if item.type == "function_call":
            heard.note("calls", f"{item.name} {item.arguments}")
        for part in getattr(item, "content", None) or ():
            if part.type == "refusal":
                heard.note("refusal", part.refusal)
            else:
                heard.text += part.text


def _note_end(reply, heard) -> None:
    if reply.incomplete_details:
        heard.note("incomplete:", reply.incomplete_details.reason)
    if reply.error:
        heard.note("error", getattr(reply.error, "code", reply.error))
    if not reply.output:
        heard.note("output", str(reply.output))


def _listen_response(event, heard) -> None:
    if event.type == "response.output_text.delta":
        heard.text += event.delta
    elif event.type == "response.refusal.delta":
        _joined(heard, "refusal ", event.delta)
    elif event.type == "response.output_item.done":
        if event.item.type == "function_call":
            heard.note("calls", f"{event.item.name} {event.item.arguments}")
    elif event.type == "error":
        heard.note("error", event.code)
    elif event.type in _ENDS:
        heard.ending = event.response.status
        _note_end(event.response, heard)


def _hear_message(reply, heard) -> None:
    if not isinstance(reply, anthropic.types.Message):
        heard.text = reply if isinstance(reply, str) else ""
        return
    heard.ending = reply.stop_reason
    if not reply.content:
        heard.note("content", str(reply.content))
    for block in reply.content or ():
        if block.type == "text":
            heard.text += block.text
        elif block.type == "tool_use":
            heard.note("calls", f"{block.name} {block.input}")
    _note_category(reply, heard)


def _note_category(reply, heard) -> None:
    details = getattr(reply, "stop_details", None)
    if details is not None:
        heard.note("category", getattr(details, "category", None))


def _listen_message(event, heard) -> None:
    if event.type == "content_block_start" and event.content_block.type == "tool_use":
        heard.note("calls", event.content_block.name)
    elif event.type == "content_block_delta":
        if event.delta.type == "text_delta":
            heard.text += event.delta.text
        elif event.delta.type == "input_json_delta":
            _joined(heard, "calls ", event.delta.partial_json, " ")
    elif event.type == "message_delta":
        heard.ending = event.delta.stop_reason
        _note_category(event.delta, heard)


_WAYS = {
    "openai.chat": (_ask_chat, _listen_chat, _hear_chat),
    "openai.responses": (_ask_responses, _listen_response, _hear_response),
    "anthropic.messages": (_ask_messages, _listen_message, _hear_message),
}
