"""Which events of a recorded stream are the answer's words, and which tell its end.

With that a recording is to a fault what the answer of a fake provider is: it can be cut
after so many tokens, and told in other words.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers import AnthropicMessages, OpenAIChat, OpenAIResponses
from tta_primitives.llm.anthropic_messages import Messages
from tta_primitives.llm.openai_chat import ChatCompletions
from tta_primitives.llm.openai_responses import Responses
from tta_primitives.llm.reading import mapping_of, mappings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Unpack

    from pytest_tta.wire.api import Api, ErrorKind, ErrorTold
    from pytest_tta.wire.exchange import WireAnswer
    from tta_primitives.llm import LLMRequest, LLMResponse
    from tta_primitives.llm.dialect import Dialect

__all__ = ["TapedApi", "api_for", "marked", "said_of"]

_APIS: tuple[Api, ...] = (OpenAIChat(), OpenAIResponses(), AnthropicMessages())
_DIALECTS: dict[str, Callable[[], Dialect]] = {
    "openai.chat": lambda: ChatCompletions("max_completion_tokens"),
    "openai.responses": Responses,
    "anthropic.messages": Messages,
}
_DONE = "[DONE]"
_RESPONSES_END = frozenset(
    {"response.completed", "response.failed", "response.incomplete"}
)


def api_for(method: str, url: str) -> Api | None:
    """Return the API that a request is for; None if it is none of those we know."""
    path = urlsplit(url).path
    return next((api for api in _APIS if api.serves(method, path)), None)


def marked(api: Api, answer: WireAnswer) -> WireAnswer:
    """Return an answer in which is told which parts are tokens, and which its end."""
    if not (answer.header("content-type") or "").startswith("text/event-stream"):
        return answer
    carries, ends = _TELLERS[api.name]
    values = [_data_of(part) for _, part in answer.body]
    tokens = tuple(index for index, one in enumerate(values) if carries(one))
    tail = 0
    for one in reversed(values[tokens[-1] + 1 if tokens else 0 :]):
        if not (one == _DONE or ends(mapping_of(one))):
            break
        tail += 1
    return replace(answer, tokens=tokens, tail=tail)


def said_of(api: Api, answer: WireAnswer) -> Said:
    """Return what a model said in a recorded answer, in no vendor's words."""
    dialect = _DIALECTS[api.name]()
    if not (answer.header("content-type") or "").startswith("text/event-stream"):
        reading = dialect.read(mapping_of(_json_of(answer.data)))
        response = _response(reading.response())
        return Said(response=response, delay=answer.head_after)
    collector, timeline = dialect.collector(), []
    for at, part in answer.body:
        event = _data_of(part)
        added = collector.feed(event) if isinstance(event, dict) else ""
        if added:
            timeline.append((at, added))
    collector.end()
    response = _response(collector.reading.response())
    return Said(
        response=response, timeline=tuple(timeline) or None, delay=answer.head_after
    )


def _response(response: LLMResponse) -> LLMResponse:
    # No provider says so; it is what an answer is that was never whole.
    unknown = response.finish_reason == "unknown"
    return replace(response, finish_reason="stop") if unknown else response


def _data_of(part: bytes) -> object:
    """Return the data of an event: what its JSON says, or its text."""
    lines = re.split(r"\r\n|\n|\r", part.decode("utf-8", "replace"))
    data = [line[5:].strip() for line in lines if line.startswith("data:")]
    if not data:
        return None
    return data[0] if data[0] == _DONE else _json_of("\n".join(data).encode())


def _json_of(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _chat_carries(event: object) -> bool:
    deltas = [
        mapping_of(choice.get("delta"))
        for choice in mappings_of(mapping_of(event).get("choices"))
    ]
    said = ("content", "refusal", "tool_calls")
    return any(delta.get(name) for delta in deltas for name in said)


def _chat_ends(event: Mapping[str, Any]) -> bool:
    choices = mappings_of(event.get("choices"))
    is_usage = not choices and event.get("usage") is not None
    return is_usage or any(one.get("finish_reason") is not None for one in choices)


def _responses_carries(event: object) -> bool:
    told = mapping_of(event)
    kind = str(told.get("type"))
    if kind == "response.output_item.added":
        return mapping_of(told.get("item")).get("type") == "function_call"
    words = ("output_text", "refusal", "function_call_arguments")
    is_delta = kind in {f"response.{word}.delta" for word in words}
    return is_delta and bool(told.get("delta"))


def _responses_ends(event: Mapping[str, Any]) -> bool:
    return event.get("type") in _RESPONSES_END


def _messages_carries(event: object) -> bool:
    told = mapping_of(event)
    if told.get("type") == "content_block_start":
        return mapping_of(told.get("content_block")).get("type") == "tool_use"
    delta = mapping_of(told.get("delta"))
    is_delta = told.get("type") == "content_block_delta"
    return is_delta and bool(delta.get("text") or delta.get("partial_json"))


def _messages_ends(event: Mapping[str, Any]) -> bool:
    return event.get("type") in {"message_delta", "message_stop"}


_TELLERS: dict[
    str, tuple[Callable[[object], bool], Callable[[Mapping[str, Any]], bool]]
] = {
    "openai.chat": (_chat_carries, _chat_ends),
    "openai.responses": (_responses_carries, _responses_ends),
    "anthropic.messages": (_messages_carries, _messages_ends),
}


class TapedApi:
    """An API that answers one request as it was recorded, and all else as it would.

    Args:
        api: The API.
        said: What was said in the recording.
        body: The JSON of the request.
        answer: The recording.
    """

    def __init__(
        self, api: Api, said: Said, body: Mapping[str, Any], answer: WireAnswer
    ) -> None:
        self.name: str = api.name
        self._api = api
        self._said = said
        self._body = body
        self._answer = answer

    def serves(self, method: str, path: str, /) -> bool:
        """Tell whether a request is for this API."""
        return self._api.serves(method, path)

    def request(self, body: Mapping[str, Any], /) -> LLMRequest:
        """Return what is asked, in no vendor's words."""
        return self._api.request(body)

    def streams(self, body: Mapping[str, Any], /) -> bool:
        """Tell whether a request asks for a stream."""
        return self._api.streams(body)

    def answer(self, said: Said, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return the recording, or what is said instead as the provider writes it."""
        if said is self._said and body is self._body:
            return self._answer
        return self._api.answer(said, body, number)

    def empty(self, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return an answer without any choice or content."""
        return self._api.empty(body, number)

    def error(self, kind: ErrorKind, /, **told: Unpack[ErrorTold]) -> WireAnswer:
        """Return an error as the provider writes it."""
        return self._api.error(kind, **told)

    def error_event(self, kind: ErrorKind, message: str | None = None, /) -> bytes:
        """Return an error as it comes in the middle of a stream."""
        return self._api.error_event(kind, message)
