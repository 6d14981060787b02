"""OpenAI's Responses API: the real SDK reads what was said, and is understood."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import cache

import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers import OpenAIResponses
from tests.wire.provider_tools import (
    CLOCK,
    EXAMPLES,
    REASONS,
    RICH,
    WEATHER,
    Server,
    call_of,
    damaged,
    events_of,
    failing_loopback,
    fails,
    on_loopback,
    openai_client,
    responses,
    says,
)
from tta_primitives.llm import LLMRequest, LLMResponse, Message, Tool, ToolCall, Usage

API = OpenAIResponses()
ASKED = {"model": "gpt-5", "input": "Hello there"}
STREAMED = ASKED | {"stream": True}
EVENT = pydantic.TypeAdapter(ResponseStreamEvent)


class City(pydantic.BaseModel):
    """Where somebody is."""

    name: str
    people: int


def read(response):
    """Return a response of the SDK in no vendor's words."""
    parts = [
        p for item in response.output if item.type == "message" for p in item.content
    ]
    refusal = "".join(part.refusal for part in parts if part.type == "refusal")
    calls = tuple(
        call_of(item.name, item.arguments, item.call_id)
        for item in response.output
        if item.type == "function_call"
    )
    usage = response.usage
    return LLMResponse(
        response.output_text or refusal,
        calls,
        _reason(response, refusal, calls),
        Usage(
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
        ),
        response.model,
    )


def _reason(response, refusal, calls):
    if response.status == "incomplete":
        reason = response.incomplete_details.reason
        return "length" if reason == "max_output_tokens" else reason
    if response.status == "failed":
        return "unknown"
    if refusal:
        return "refusal"
    return "tool_calls" if calls else "stop"


def told(response):
    """Return a response as the API can tell it: calls are why it ended, or are not."""
    if response.finish_reason not in {"stop", "tool_calls"}:
        return response
    reason = "tool_calls" if response.tool_calls else "stop"
    return replace(response, finish_reason=reason)


def last(events):
    """Return the response that the last event brings."""
    return list(events)[-1].response


def joined(events):
    """Return text and arguments as their deltas tell them."""
    text, calls = "", {}
    for event in events:
        if event.type in {"response.output_text.delta", "response.refusal.delta"}:
            text += event.delta
        if event.type == "response.function_call_arguments.delta":
            calls[event.output_index] = calls.get(event.output_index, "") + event.delta
    return text, list(calls.values())


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/responses", True),
        ("GET", "/v1/responses/resp_1", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("POST", "/v1/chat/completions", False),
    ],
)
def test_requests_are_told_by_the_end_of_their_path(method, path, expected):
    """Whatever comes before, a POST to `/responses` is for this API."""
    assert API.serves(method, path) is expected


async def test_both_clients_read_the_same_from_a_real_socket():
    """Whole and streamed, sync and async: four ways to the same answer."""
    async with on_loopback(API, Said(response=RICH)) as server:
        options = {"api_key": "k", "base_url": server.url + "/v1", "max_retries": 0}

        def ask():
            with openai.OpenAI(**options) as client:
                create = client.responses.create
                return create(**ASKED), last(create(**STREAMED))

        found = list(await asyncio.to_thread(ask))
        async with openai.AsyncOpenAI(**options) as client:
            found.append(await client.responses.create(**ASKED))
            stream = await client.responses.create(**STREAMED)
            found.append([event async for event in stream][-1].response)
    assert [read(one) for one in found] == [RICH] * 4


@pytest.mark.parametrize("reason", REASONS)
def test_every_end_is_told_whole_and_streamed(reason):
    """Each reason to end has its own status or detail, which leads back to it."""
    response = replace(RICH, finish_reason=reason)
    client = openai_client(says(API, response))
    assert read(client.responses.create(**ASKED)) == told(response)
    assert read(last(client.responses.create(**STREAMED))) == told(response)


@pytest.mark.parametrize("reason", REASONS)
def test_answers_are_valid_by_the_types_of_the_sdk(reason):
    """Every field that the SDK insists on is there, in the response and each event."""
    body = ASKED | {"tools": [{"type": "function", "name": "f", "parameters": {}}]}
    body |= {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}
    said = Said(response=replace(RICH, finish_reason=reason))
    Response.model_validate_json(API.answer(said, body, 1).data, strict=True)
    for name, value in events_of(API.answer(said, body | {"stream": True}, 1)):
        event = EVENT.validate_python(value)
        assert (name, event.type) == (value["type"], value["type"])


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("stop", "completed"),
        ("length", "incomplete"),
        ("content_filter", "incomplete"),
        ("refusal", "completed"),
        ("unknown", "failed"),
    ],
)
def test_the_last_event_is_named_after_the_status(reason, status):
    """A stream ends with `completed`, `incomplete` or `failed`."""
    said = Said(response=LLMResponse("cut", finish_reason=reason))
    name, value = events_of(API.answer(said, STREAMED, 1))[-1]
    assert (name, value["response"]["status"]) == (f"response.{status}", status)
    assert (value["response"]["error"] is not None) is (status == "failed")


def test_a_stream_tells_every_step_with_its_number():
    """The events come in OpenAI's order and are numbered without a gap."""
    said = Said(response=LLMResponse("one two", (CLOCK,), "tool_calls"))
    answer = API.answer(said, STREAMED, 1)
    events = [value for _, value in events_of(answer)]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(14))
    begun, part = events[2]["item"], events[3]["part"]
    assert (begun["status"], begun["content"], part["text"]) == ("in_progress", [], "")
    assert (answer.tokens, answer.tail) == ((4, 5, 9, 10), 1)


def test_a_refusal_has_events_of_its_own():
    """Its part is no text, and without words the model says something."""
    said = Said(response=LLMResponse("No way", finish_reason="refusal"))
    types = [value["type"] for _, value in events_of(API.answer(said, STREAMED, 1))]
    assert types[3:8] == [
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
    ]
    client = openai_client(says(API, LLMResponse(finish_reason="refusal")))
    assert read(client.responses.create(**ASKED)).content.startswith("I'm sorry")


def test_times_come_from_the_timeline():
    """The response exists at once, its parts come with the text."""
    timeline = ((0.5, "a "), (2.0, "b"))
    said = Said(response=LLMResponse("a b", (CLOCK,)), timeline=timeline, delay=3)
    answer = API.answer(said, STREAMED, 1)
    times = [at for at, _ in answer.body]
    assert (answer.head_after, times[:6]) == (3, [0.0, 0.0, 0.5, 0.5, 0.5, 2.0])
    assert set(times[6:]) == {2.0}
    assert API.answer(said, ASKED, 1).head_after == 5


def test_equal_arguments_give_equal_bytes():
    """Nothing in an answer comes from the clock or from chance."""
    said = Said(response=replace(RICH, usage=None))
    one, other = (OpenAIResponses().answer(said, STREAMED, 7) for _ in range(2))
    assert one == other
    assert one != OpenAIResponses().answer(said, STREAMED, 8)


def test_a_response_tells_what_was_asked():
    """Settings of the request stand in the response, others have their defaults."""
    asked = ASKED | {
        "instructions": "Be brief.",
        "temperature": 0.25,
        "metadata": {"k": "v"},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "text": {"format": {"type": "json_object"}},
    }
    response = openai_client(says(API, RICH)).responses.create(**asked)
    assert (response.instructions, response.temperature) == ("Be brief.", 0.25)
    assert (response.metadata, response.top_p) == ({"k": "v"}, 1.0)
    assert (response.tools[0].name, response.tools[0].strict) == ("f", True)
    assert response.text.format.type == "json_object"


def test_ids_are_made_where_none_is_given():
    """They differ within an answer and from answer to answer."""
    calls = (ToolCall("a"), ToolCall("b"))
    client = openai_client(says(API, LLMResponse("", calls, "tool_calls")))
    answers = [client.responses.create(**ASKED) for _ in range(2)]
    assert len({item.call_id for one in answers for item in one.output}) == 4
    assert len({item.id for one in answers for item in one.output}) == 4
    assert len({one.id for one in answers}) == 2


def test_broken_arguments_come_as_the_model_wrote_them():
    """Whole and streamed, they are the text that is no JSON."""
    broken = ToolCall("f", {}, "c", broken_arguments='{"city": "Par')
    response = LLMResponse("", (broken,), "tool_calls", Usage(1, 2), "m")
    client = openai_client(says(API, response))
    assert read(client.responses.create(**ASKED)) == response
    assert joined(client.responses.create(**STREAMED)) == ("", ['{"city": "Par'])


def test_usage_is_estimated_when_the_test_tells_none():
    """A token for four characters of everything that is asked and said."""
    usage = (
        openai_client(says(API, LLMResponse("twelve chars")))
        .responses.create(**ASKED, instructions="1234")
        .usage
    )
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (4, 3, 7)


def test_structured_answers_are_parsed():
    """`parse` and the stream helper make a model of the JSON."""
    city = City(name="Paris", people=2)
    client = openai_client(says(API, LLMResponse(data=city)))
    assert client.responses.parse(**ASKED, text_format=City).output_parsed == city
    with client.responses.stream(**ASKED, text_format=City) as stream:
        assert stream.get_final_response().output_parsed == city


async def test_the_stream_helper_of_the_async_client_gives_what_was_said():
    """It checks that items keep their identity, too."""
    client = openai_client(says(API, RICH), openai.AsyncOpenAI)
    async with client.responses.stream(**ASKED) as stream:
        assert read(await stream.get_final_response()) == RICH


@EXAMPLES
@given(responses(), st.integers(1, 40))
def test_any_answer_comes_back_equal(response, piece):
    """Whatever is said, whole and in events, however bytes are cut."""
    client = openai_client(says(API, response, piece=piece))
    assert read(client.responses.create(**ASKED)) == told(response)
    events = list(client.responses.create(**STREAMED))
    assert read(last(events)) == told(response)
    text, arguments = joined(events)
    assert text == response.content
    assert list(map(json.loads, arguments)) == [
        call.arguments for call in response.tool_calls
    ]
    with client.responses.stream(**ASKED) as stream:
        *_, final = stream
    assert read(final.response) == told(response)


@pytest.mark.parametrize("body", [ASKED, STREAMED])
def test_an_empty_answer_has_no_output(body):
    """It is completed all the same."""
    client = openai_client(Server(API, API.empty))
    answer = client.responses.create(**body)
    response = last(answer) if "stream" in body else answer
    assert (response.status, response.output) == ("completed", [])


ERRORS = [
    ("bad_request", 400, openai.BadRequestError, None),
    ("context_length", 400, openai.BadRequestError, "context_length_exceeded"),
    ("content_filter", 400, openai.BadRequestError, "content_filter"),
    ("bad_tool_call", 400, openai.BadRequestError, "tool_use_failed"),
    ("auth", 401, openai.AuthenticationError, "invalid_api_key"),
    ("billing", 402, openai.APIStatusError, "billing_not_active"),
    (
        "permission",
        403,
        openai.PermissionDeniedError,
        "unsupported_country_region_territory",
    ),
    ("not_found", 404, openai.NotFoundError, "model_not_found"),
    ("timeout", 408, openai.APIStatusError, "request_timeout"),
    ("conflict", 409, openai.ConflictError, "conflict"),
    ("too_large", 413, openai.APIStatusError, None),
    ("unprocessable", 422, openai.UnprocessableEntityError, None),
    ("rate_limit", 429, openai.RateLimitError, "rate_limit_exceeded"),
    ("quota", 429, openai.RateLimitError, "insufficient_quota"),
    ("spend_limit", 429, openai.RateLimitError, "billing_hard_limit_reached"),
    ("server_error", 500, openai.InternalServerError, None),
    ("overloaded", 503, openai.InternalServerError, "server_is_overloaded"),
    ("gateway_timeout", 504, openai.InternalServerError, None),
]


@pytest.mark.parametrize(("kind", "status", "error", "code"), ERRORS)
async def test_errors_become_the_exceptions_of_the_sdk(kind, status, error, code):
    """In this process and on a real socket: class, status, code and message."""
    with pytest.raises(error, match="another text") as caught:
        openai_client(fails(API, kind, message="another text")).responses.create(
            **ASKED
        )
    assert (type(caught.value), caught.value.status_code) == (error, status)
    async with failing_loopback(API.error(kind)) as server:
        options = {"api_key": "k", "base_url": server.url + "/v1", "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            with pytest.raises(error, match=f"Error code: {status}") as caught:
                await client.responses.create(**STREAMED)
    assert (type(caught.value), caught.value.code) == (error, code)


def test_what_is_too_long_is_called_the_input():
    """The chat API calls it the messages."""
    with pytest.raises(openai.BadRequestError, match="maximum context") as caught:
        openai_client(fails(API, "context_length")).responses.create(**ASKED)
    assert caught.value.param == "input"


def test_an_error_in_a_stream_ends_it_with_an_api_error():
    """The SDK raises, as the error has a field of its own."""

    def answer(body, number):
        cut = API.answer(Said(response=LLMResponse("one two")), body, number)
        cut = cut.cut(5, "complete")
        return replace(cut, body=(*cut.body, (0.0, API.error_event("overloaded"))))

    events, client = [], openai_client(Server(API, answer))
    with pytest.raises(openai.APIError, match="currently overloaded") as caught:
        events.extend(iter(client.responses.create(**STREAMED)))
    assert type(caught.value) is openai.APIError
    assert (len(events), caught.value.code) == (5, "server_is_overloaded")


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


@cache
def rich_body():
    """Return the JSON that the SDK sends for a rich request."""
    server = says(API, RICH)
    openai_client(server).responses.create(
        model="gpt-5",
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Be kind."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {
                        "type": "input_image",
                        "detail": "auto",
                        "image_url": "data:image/png;base64,AAAA",
                    },
                    {"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"},
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Wait.", "annotations": []}
                ],
            },
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "look",
                "arguments": '{"at": [1, 2]}',
            },
            {
                "type": "custom_tool_call",
                "call_id": "call_2",
                "name": "shell",
                "input": "ls",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "a cat"},
            {
                "type": "custom_tool_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_text", "text": "files"}],
            },
            {"type": "item_reference", "id": "msg_9"},
            {"role": "user", "content": "Please"},
        ],
        tools=[
            {
                "type": "function",
                "name": "look",
                "description": "Looks.",
                "parameters": SCHEMA,
                "strict": True,
            },
            {"type": "web_search"},
        ],
        text={
            "format": {"type": "json_schema", "name": "City", "schema": SCHEMA},
            "verbosity": "low",
        },
        temperature=0.5,
        max_output_tokens=99,
        user="me",
    )
    return server.seen[0]


def test_a_rich_request_of_the_sdk_is_understood():
    """Items, parts, calls, outputs, tools and limits arrive as they were meant."""
    assert API.request(rich_body()) == LLMRequest(
        (
            Message("system", "Be brief."),
            Message("system", "Be kind."),
            Message(
                "user", "What is this?\n[input_image image/png]\n[input_file a.pdf]"
            ),
            Message(
                "assistant",
                "Wait.",
                (
                    ToolCall("look", {"at": [1, 2]}, "call_1"),
                    ToolCall("shell", {"input": "ls"}, "call_2"),
                ),
            ),
            Message("tool", "a cat", (), "call_1"),
            Message("tool", "files", (), "call_2"),
            Message("assistant", "[item_reference msg_9]"),
            Message("user", "Please"),
        ),
        "gpt-5",
        (Tool("look", "Looks.", SCHEMA),),
        SCHEMA,
        0.5,
        99,
        {
            "text": {"verbosity": "low"},
            "tools": [{"type": "web_search"}],
            "user": "me",
        },
    )


def test_an_answer_can_be_sent_back_as_the_next_request():
    """What the SDK has of the output is input that is understood."""
    server = says(API, RICH)
    client = openai_client(server)
    output = client.responses.create(**ASKED).output
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "done"}
        for item in output
        if item.type == "function_call"
    ]
    asked = [{"role": "user", "content": "Hi"}, *output, *results]
    client.responses.create(model="gpt-5", input=asked)
    again = API.request(server.seen[1]).messages[1]
    assert (again.content, again.tool_calls) == (RICH.content, (WEATHER, CLOCK))


def test_outputs_may_answer_calls_that_openai_has_kept():
    """With a previous response or a conversation the calls need not be sent again."""
    item = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    for kept in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        asked = API.request({"model": "m", "input": [item], **kept})
        assert asked.messages == (Message("tool", "ok", (), "call_1"),)
        assert asked.options == kept


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"input": "Hi"}, "Missing required parameter: 'model'"),
        ({"model": "m"}, "Missing required parameter: 'input'"),
        ({"model": "m", "input": []}, "Invalid 'input': empty array"),
        ({"model": "m", "input": 1}, "'input': expected an array of objects"),
        (
            {"model": "m", "input": [{"role": "robot", "content": "x"}]},
            r"'input\[0\].role': 'robot'. Supported: 'assistant', 'system'",
        ),
        ({"model": "m", "input": [{"role": "user"}]}, r"'input\[0\].content'"),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "text"}]}]},
            r"'input\[0\].content\[0\].type': 'text'",
        ),
        ({"model": "m", "input": [OUTPUT]}, "No tool call found .* call_1"),
        ({"model": "m", "input": [OUTPUT, CALL]}, "No tool call found .* call_1"),
        ({"model": "m", "input": [CALL]}, "No tool output found .* call_1"),
        ({"model": "m", "input": "Hi", "temperature": -1}, "value >= 0, but got -1"),
        ({"model": "m", "input": "Hi", "max_output_tokens": "9"}, "got a string"),
        ({"model": "m", "input": "Hi", "tools": [{"type": "function"}]}, "name'"),
        (
            {"model": "m", "input": "Hi", "text": {"format": {"type": "yaml"}}},
            "'text.format.type': 'yaml'",
        ),
    ],
)
def test_requests_that_openai_refuses_are_refused_with_the_reason(body, reason):
    """The reason names the field, so that it can stand in the error."""
    with pytest.raises(ValueError, match=reason):
        API.request(body)


@EXAMPLES
@given(st.data(), st.booleans())
def test_a_damaged_request_is_refused_or_answered(data, streamed):
    """Whatever stands in it, nothing but a ValueError comes out."""
    body = data.draw(damaged(rich_body() | {"stream": streamed}))
    try:
        API.request(body)
    except ValueError:
        return
    for answer in (API.answer(Said(response=RICH), body, 1), API.empty(body, 1)):
        assert answer.status == 200
