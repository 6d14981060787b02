"""OpenAI's Responses API: what it takes, and the objects and events it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.encoding import json_bytes
from pytest_tta.wire.providers.identity import CREATED, made_id
from pytest_tta.wire.providers.json_api import JSONApi
from pytest_tta.wire.providers.openai_errors import (
    NO_WORDS,
    OpenAIComplaints,
    Refused,
    answer_headers,
    error_answer,
    error_fields,
    refusal,
)
from pytest_tta.wire.providers.openai_events import ResponseEvents, error_event
from pytest_tta.wire.providers.openai_items import conversation
from pytest_tta.wire.providers.reading import Fields, rest_of
from pytest_tta.wire.providers.speech import Speech, arguments_text
from pytest_tta.wire.providers.tokens import usage_of
from tta_primitives.llm import LLMRequest, LLMResponse, Message, Tool, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from pytest_tta.wire.api import ErrorKind, ErrorTold, Said
    from tta_primitives.llm import FinishReason

__all__ = ["OpenAIResponses"]

_TAKEN = {"input", "instructions", "max_output_tokens", "model", "temperature"}
_HOTTEST = 2
_CUT: Mapping[FinishReason, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
_FAILURE = {
    "code": "server_error",
    "message": "The response ended for a reason that is not known.",
}

# What a response tells of its request, and what it tells unless that says otherwise.
_ECHOED: Mapping[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class OpenAIResponses(JSONApi):
    """`POST /responses` of OpenAI and of servers that take the same requests.

    Args:
        name: The provider and the API.
    """

    def __init__(self, name: str = "openai.responses") -> None:
        super().__init__(name)

    def serves(self, method: str, path: str, /) -> bool:
        """Tell whether a request is for this API; see `Api.serves`."""
        return method == "POST" and path.endswith("/responses")

    def request(self, body: Mapping[str, Any], /) -> LLMRequest:
        """Return what is asked; see `Api.request`.

        `instructions` are the first system message. Calls that follow a message of the
        assistant belong to it. Reasoning is left out, as nobody may read it.

        Raises:
            ValueError: OpenAI would refuse it.
        """
        fields = Fields(body, OpenAIComplaints())
        model = fields.text("model")
        asked = _instructions(fields) + conversation(fields)
        if not asked:
            msg = "Invalid 'input': empty array. Expected at least one item."
            raise ValueError(msg)
        schema, settings = _schema(fields)
        tools, built_in = _tools(fields)
        options = rest_of(body, _TAKEN, text=settings, tools=built_in)
        return LLMRequest(
            tuple(asked),
            model,
            tools,
            schema,
            fields.number("temperature", 0, _HOTTEST),
            fields.count("max_output_tokens"),
            options,
        )

    def answer(self, said: Said, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return the answer as OpenAI writes it; see `Api.answer`.

        A response whose end is `unknown` has failed; one that was cut off or filtered
        is incomplete. Of a stream, what tells its end is the last event. Without usage
        it is estimated, as `providers.tokens` tells.
        """
        response = said.response
        refuses = response.finish_reason == "refusal"
        speech = Speech.of(said, NO_WORDS if refuses else "")
        output = _output(response, speech.text, number)
        usage = usage_of(self.request(body), response, speech.text)
        whole = _ended(response, body, number) | {
            "output": output,
            "usage": _usage(usage),
        }
        if not self.streams(body):
            return _whole(whole, number, said.delay + speech.ends)
        events = _opened(response, body, number)
        for index, item in enumerate(output):
            if item["type"] == "message":
                events.message(index, item, speech.pieces)
            else:
                events.call(index, item, speech.ends)
        return _streamed(events, whole, speech.ends, number, said.delay)

    def empty(self, body: Mapping[str, Any], number: int, /) -> WireAnswer:
        """Return an answer that is completed and has no output."""
        response = LLMResponse()
        usage = usage_of(self.request(body), response, "")
        whole = _ended(response, body, number) | {"output": [], "usage": _usage(usage)}
        if not self.streams(body):
            return _whole(whole, number, 0.0)
        events = _opened(response, body, number)
        return _streamed(events, whole, 0.0, number, 0.0)

    def error(self, kind: ErrorKind, /, **told: Unpack[ErrorTold]) -> WireAnswer:
        """Return an error as OpenAI writes it; see `Api.error`."""
        refused = _refusal(kind, told.get("message"))
        status = told.get("status") or refused.status
        return error_answer(
            refused, error_fields(refused), status, told.get("headers", ())
        )

    def error_event(self, kind: ErrorKind, message: str | None = None, /) -> bytes:
        """Return an error as it comes in the middle of a stream.

        Its sequence number is 0, as it does not know how many events came before.
        """
        return error_event(error_fields(_refusal(kind, message)))


def _refusal(kind: ErrorKind, message: str | None) -> Refused:
    """Return what OpenAI says; what was too long is called the input here."""
    refused = refusal(kind, message)
    return refused._replace(param="input") if refused.param == "messages" else refused


def _instructions(fields: Fields) -> list[Message]:
    text = fields.text("instructions", "")
    return [Message("system", text)] if text else []


def _schema(fields: Fields) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """Return the schema of a structured answer, and the other settings of its text."""
    if not fields.has("text"):
        return None, {}
    text = fields.fields("text")
    settings = dict(text.values)
    if text.has("format"):
        wanted = text.fields("format")
        kinds = ("text", "json_object", "json_schema")
        if wanted.word("type", kinds) == "json_schema":
            del settings["format"]
            return wanted.fields("schema").values, settings
    return None, settings


def _tools(fields: Fields) -> tuple[tuple[Tool, ...], list[Mapping[str, Any]]]:
    """Return the functions among the tools, and the tools that OpenAI runs itself."""
    functions, others = [], []
    for one in fields.items("tools", required=False):
        if one.text("type") == "function":
            functions.append(one.tool("parameters"))
        else:
            others.append(one.values)
    return tuple(functions), others


def _response(
    response: LLMResponse, body: Mapping[str, Any], number: int
) -> dict[str, Any]:
    """Return a response at its beginning, with what it tells of its request."""
    asked = {name: body.get(name) for name in _ECHOED}
    text = {"format": {"type": "text"}, "verbosity": "medium"}
    return {
        "id": made_id("resp_", number),
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": response.model or body["model"],
        "output": [],
        "text": text | dict(body.get("text") or {}),
        "tools": list(map(_echoed_tool, body.get("tools") or ())),
        "usage": None,
        **{
            name: usual if asked[name] is None else asked[name]
            for name, usual in _ECHOED.items()
        },
    }


def _echoed_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    usual = {"description": None, "parameters": None, "strict": True}
    return (usual if tool.get("type") == "function" else {}) | dict(tool)


def _ended(
    response: LLMResponse, body: Mapping[str, Any], number: int
) -> dict[str, Any]:
    """Return a response at its end, its output and usage still to come."""
    value = _response(response, body, number)
    reason = response.finish_reason
    if reason == "unknown":
        return value | {"status": "failed", "error": _FAILURE}
    if reason in _CUT:
        details = {"reason": _CUT[reason]}
        return value | {"status": "incomplete", "incomplete_details": details}
    return value | {"status": "completed", "completed_at": CREATED}


def _output(response: LLMResponse, text: str, number: int) -> list[dict[str, Any]]:
    """Return the items of a whole answer: a message unless it only calls, and calls."""
    reason = response.finish_reason
    status = "incomplete" if reason in {"length", "content_filter", "unknown"} else ""
    items: list[dict[str, Any]] = []
    if text or not response.tool_calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
        if reason == "refusal":
            part = {"type": "refusal", "refusal": text}
        message = {"id": made_id("msg_", number), "type": "message"}
        items.append(message | {"role": "assistant", "content": [part]})
    items += [
        {
            "id": made_id("fc_", number, place),
            "type": "function_call",
            "arguments": arguments_text(call),
            "call_id": call.id or made_id("call_", number, place),
            "name": call.name,
        }
        for place, call in enumerate(response.tool_calls)
    ]
    return [item | {"status": status or "completed"} for item in items]


def _usage(usage: Usage) -> dict[str, Any]:
    cached = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": cached,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def _whole(value: Mapping[str, Any], number: int, after: float) -> WireAnswer:
    return WireAnswer.of_bytes(
        json_bytes(value),
        "application/json",
        headers=answer_headers(number, after),
        after=after,
    )


def _opened(
    response: LLMResponse, body: Mapping[str, Any], number: int
) -> ResponseEvents:
    """Return a stream that has told that the response was created and is at work."""
    events = ResponseEvents()
    begun = _response(response, body, number)
    events.add(0.0, "response.created", {"response": begun})
    events.add(0.0, "response.in_progress", {"response": begun})
    return events


def _streamed(
    events: ResponseEvents,
    whole: Mapping[str, Any],
    ends: float,
    number: int,
    delay: float,
) -> WireAnswer:
    events.add(ends, f"response.{whole['status']}", {"response": whole})
    return WireAnswer.of_events(
        events.parts,
        headers=answer_headers(number, delay),
        tokens=events.tokens,
        tail=1,
        after=delay,
    )
