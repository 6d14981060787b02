"""Anthropic's Messages API: the real SDK reads what was said, and is understood."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import cache

import anthropic
import pydantic
import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from anthropic.types.shared import EnforcedSpendLimitReachedError
from hypothesis import given
from hypothesis import strategies as st

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers import AnthropicMessages
from tests.wire.provider_tools import (
    CLOCK,
    EXAMPLES,
    REASONS,
    RICH,
    WEATHER,
    Server,
    anthropic_client,
    call_of,
    damaged,
    events_of,
    failing_loopback,
    fails,
    on_loopback,
    responses,
    says,
)
from tta_primitives.llm import LLMRequest, LLMResponse, Message, Tool, ToolCall, Usage

API = AnthropicMessages()
USER = {"role": "user", "content": "Hello there"}
ASKED = {"model": "claude", "max_tokens": 99, "messages": [USER]}
STREAMED = ASKED | {"stream": True}
EVENT = pydantic.TypeAdapter(RawMessageStreamEvent)
ENDS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "unknown",
}


class City(pydantic.BaseModel):
    """Where somebody is."""

    name: str
    people: int


def read(message):
    """Return a message of the SDK in no vendor's words."""
    reason = ENDS[message.stop_reason]
    if message.stop_details is not None and message.stop_details.category:
        reason = "content_filter"
    cached = message.usage.cache_read_input_tokens
    return LLMResponse(
        "".join(block.text for block in message.content if block.type == "text"),
        tuple(
            ToolCall(block.name, block.input, block.id)
            for block in message.content
            if block.type == "tool_use"
        ),
        reason,
        Usage(message.usage.input_tokens + cached, message.usage.output_tokens, cached),
        message.model,
    )


def joined(events):
    """Return what raw events say together, as a careful client of its own reads it."""
    message, blocks, end = None, {}, None
    for event in events:
        if event.type == "message_start":
            message = event.message
        elif event.type == "content_block_start":
            blocks[event.index] = [event.content_block, ""]
        elif event.type == "content_block_delta":
            delta = event.delta
            text = delta.text if delta.type == "text_delta" else delta.partial_json
            blocks[event.index][1] += text
        elif event.type == "message_delta":
            end = event
    calls = [(b, text) for b, text in blocks.values() if b.type == "tool_use"]
    details, cached = end.delta.stop_details, end.usage.cache_read_input_tokens
    is_filtered = details is not None and details.category is not None
    return LLMResponse(
        "".join(text for block, text in blocks.values() if block.type == "text"),
        tuple(call_of(block.name, text, block.id) for block, text in calls),
        "content_filter" if is_filtered else ENDS[end.delta.stop_reason],
        Usage(end.usage.input_tokens + cached, end.usage.output_tokens, cached),
        message.model,
    )


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/messages", True),
        ("POST", "/anthropic/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/messages/count_tokens", False),
        ("POST", "/v1/messages/batches", False),
        ("POST", "/v1/threads/thread_1/messages", False),
    ],
)
def test_requests_are_told_by_the_end_of_their_path(method, path, expected):
    """Whatever comes before, a POST to `/v1/messages` is for this API."""
    assert API.serves(method, path) is expected


async def test_both_clients_read_the_same_from_a_real_socket():
    """Whole and streamed, sync and async: four ways to the same answer."""
    async with on_loopback(API, Said(response=RICH)) as server:
        options = {"api_key": "k", "base_url": server.url, "max_retries": 0}

        def ask():
            with anthropic.Anthropic(**options) as client:
                create = client.messages.create
                return read(create(**ASKED)), joined(create(**STREAMED))

        found = list(await asyncio.to_thread(ask))
        async with anthropic.AsyncAnthropic(**options) as client:
            found.append(read(await client.messages.create(**ASKED)))
            stream = await client.messages.create(**STREAMED)
            found.append(joined([event async for event in stream]))
    assert found == [RICH] * 4


@pytest.mark.parametrize("reason", REASONS)
def test_every_end_is_told_whole_and_streamed(reason):
    """A filtered answer is a refusal whose details name a category."""
    response = replace(RICH, finish_reason=reason)
    client = anthropic_client(says(API, response))
    assert read(client.messages.create(**ASKED)) == response
    assert joined(client.messages.create(**STREAMED)) == response


@pytest.mark.parametrize("reason", REASONS)
def test_answers_are_valid_by_the_types_of_the_sdk(reason):
    """Every field that the SDK knows is there, in the message and each event."""
    said = Said(response=replace(RICH, finish_reason=reason))
    data = API.answer(said, ASKED, 1).data
    AnthropicMessage.model_validate_json(data, strict=True)
    assert set(json.loads(data)) == set(AnthropicMessage.model_fields)
    usage = AnthropicMessage.model_fields["usage"].annotation
    assert set(json.loads(data)["usage"]) == set(usage.model_fields)
    for name, value in events_of(API.answer(said, STREAMED, 1)):
        assert name == value["type"]
        if name != "ping":
            assert EVENT.validate_python(value).type == name


def test_a_stream_tells_of_every_block():
    """The events come in Anthropic's order, and the input begins with nothing."""
    said = Said(response=LLMResponse("one two", (CLOCK,), "tool_calls"))
    answer = API.answer(said, STREAMED, 1)
    events = [value for _, value in events_of(answer)]
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event.get("index") for event in events[5:10]] == [0, 1, 1, 1, 1]
    assert [event["delta"]["partial_json"] for event in events[7:9]] == ["", "{}"]
    assert (answer.tokens, answer.tail) == ((3, 4, 6, 8), 2)
    assert events[0]["message"]["usage"]["output_tokens"] == 0


def test_times_come_from_the_timeline():
    """The message begins at once, its blocks with the text."""
    timeline = ((0.5, "a "), (2.0, "b"))
    said = Said(response=LLMResponse("a b", (CLOCK,)), timeline=timeline, delay=3)
    answer = API.answer(said, STREAMED, 1)
    times = [at for at, _ in answer.body]
    assert (answer.head_after, times[:5]) == (3, [0.0, 0.5, 0.5, 0.5, 2.0])
    assert set(times[5:]) == {2.0}
    assert API.answer(said, ASKED, 1).head_after == 5


def test_equal_arguments_give_equal_bytes():
    """Nothing in an answer comes from the clock or from chance."""
    said = Said(response=replace(RICH, usage=None))
    one, other = (AnthropicMessages().answer(said, STREAMED, 7) for _ in range(2))
    assert one == other
    assert one != AnthropicMessages().answer(said, STREAMED, 8)


def test_ids_are_made_where_none_is_given():
    """They differ within an answer and from answer to answer."""
    calls = (ToolCall("a"), ToolCall("b"))
    client = anthropic_client(says(API, LLMResponse("", calls, "tool_calls")))
    answers = [client.messages.create(**ASKED) for _ in range(2)]
    ids = [block.id for one in answers for block in one.content]
    assert len(set(ids)) == 4
    assert all(one.startswith("toolu_") for one in ids)
    assert len({one._request_id for one in answers}) == 2


def test_broken_arguments_stream_as_the_model_wrote_them():
    """The events carry the text; the helper of the SDK stumbles over it."""
    broken = ToolCall("f", {}, "c", broken_arguments='{"city": Par}')
    response = LLMResponse("", (broken,), "tool_calls", Usage(1, 2), "m")
    client = anthropic_client(says(API, response))
    assert joined(client.messages.create(**STREAMED)) == response
    with (
        pytest.raises(ValueError, match="Unable to parse tool parameter JSON"),
        client.messages.stream(**ASKED) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize(
    ("broken", "given"), [('{"city": "Par', '{"city": "Par'), ("[1]", [1]), ("", "")]
)
def test_broken_arguments_are_an_input_that_is_no_object(broken, given):
    """Anthropic parses them; what cannot be parsed is handed over as a text."""
    call = ToolCall("f", {}, "c", broken_arguments=broken)
    client = anthropic_client(says(API, LLMResponse("", (call,), "tool_calls")))
    assert client.messages.create(**ASKED).content[0].input == given


def test_a_message_without_words_has_no_block():
    """A text block is never empty."""
    client = anthropic_client(says(API, LLMResponse()))
    assert client.messages.create(**ASKED).content == []
    with client.messages.stream(**ASKED) as stream:
        assert stream.get_final_message().content == []


def test_cached_tokens_are_counted_apart():
    """Anthropic's `input_tokens` are those that did not come from its cache."""
    client = anthropic_client(says(API, RICH))
    usage = client.messages.create(**ASKED).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (100, 20)


def test_usage_is_estimated_when_the_test_tells_none():
    """A token for four characters of everything that is asked and said."""
    client = anthropic_client(says(API, LLMResponse("twelve chars")))
    usage = client.messages.create(**ASKED, system="1234").usage
    assert (usage.input_tokens, usage.output_tokens) == (4, 3)


def test_structured_answers_are_parsed():
    """`parse` and the stream helper make a model of the JSON."""
    city = City(name="Paris", people=2)
    server = says(API, LLMResponse(data=city))
    client = anthropic_client(server)
    assert client.messages.parse(**ASKED, output_format=City).parsed_output == city
    with client.messages.stream(**ASKED, output_format=City) as stream:
        assert stream.get_final_message().parsed_output == city
    asked = API.request(server.seen[0])
    assert list(asked.schema["properties"]) == ["name", "people"]
    assert asked.options == {}


async def test_the_stream_helper_of_the_async_client_gives_what_was_said():
    """With the usage of the end, and every input parsed."""
    client = anthropic_client(says(API, RICH), anthropic.AsyncAnthropic)
    async with client.messages.stream(**ASKED) as stream:
        text = [piece async for piece in stream.text_stream]
        assert read(await stream.get_final_message()) == RICH
    assert text == ["It ", "is ", "näher ", "than ", "you ", "think. ", "🚀"]


@EXAMPLES
@given(responses(), st.integers(1, 40))
def test_any_answer_comes_back_equal(response, piece):
    """Whatever is said, whole, in events and by the helper, however bytes are cut."""
    client = anthropic_client(says(API, response, piece=piece))
    assert read(client.messages.create(**ASKED)) == response
    assert joined(client.messages.create(**STREAMED)) == response
    with client.messages.stream(**ASKED) as stream:
        assert read(stream.get_final_message()) == response


@pytest.mark.parametrize("body", [ASKED, STREAMED])
def test_an_empty_answer_has_no_content(body):
    """It has ended all the same."""
    client = anthropic_client(Server(API, API.empty))
    if "stream" in body:
        assert joined(client.messages.create(**body)).content == ""
        return
    message = client.messages.create(**body)
    assert (message.content, message.stop_reason) == ([], "end_turn")


ERRORS = [
    ("bad_request", 400, anthropic.BadRequestError, "invalid_request_error"),
    ("context_length", 400, anthropic.BadRequestError, "invalid_request_error"),
    ("content_filter", 400, anthropic.BadRequestError, "invalid_request_error"),
    ("bad_tool_call", 400, anthropic.BadRequestError, "invalid_request_error"),
    ("auth", 401, anthropic.AuthenticationError, "authentication_error"),
    ("billing", 402, anthropic.PaymentRequiredError, "billing_error"),
    ("permission", 403, anthropic.PermissionDeniedError, "permission_error"),
    ("not_found", 404, anthropic.NotFoundError, "not_found_error"),
    ("timeout", 408, anthropic.RequestTimeoutError, "timeout_error"),
    ("conflict", 409, anthropic.ConflictError, "conflict_error"),
    ("too_large", 413, anthropic.ContentTooLargeError, "request_too_large"),
    ("unprocessable", 422, anthropic.UnprocessableEntityError, "invalid_request_error"),
    ("rate_limit", 429, anthropic.RateLimitError, "rate_limit_error"),
    ("quota", 429, anthropic.RateLimitError, "rate_limit_error"),
    ("spend_limit", 429, EnforcedSpendLimitReachedError, "rate_limit_error"),
    ("server_error", 500, anthropic.InternalServerError, "api_error"),
    ("overloaded", 529, anthropic.OverloadedError, "overloaded_error"),
    ("gateway_timeout", 504, anthropic.GatewayTimeoutError, "timeout_error"),
]


@pytest.mark.parametrize(("kind", "status", "error", "type_"), ERRORS)
async def test_errors_become_the_exceptions_of_the_sdk(kind, status, error, type_):
    """In this process and on a real socket: class, status, type and message."""
    client = anthropic_client(fails(API, kind, message="another text"))
    with pytest.raises(error, match="another text") as caught:
        client.messages.create(**ASKED)
    assert (type(caught.value), caught.value.status_code) == (error, status)
    assert caught.value.api_message == "another text"
    async with failing_loopback(API.error(kind)) as server:
        options = {"api_key": "k", "base_url": server.url, "max_retries": 0}
        async with anthropic.AsyncAnthropic(**options) as client:
            with pytest.raises(error, match=f"Error code: {status}") as caught:
                await client.messages.create(**STREAMED)
    assert (type(caught.value), caught.value.type) == (error, type_)
    assert caught.value.request_id == caught.value.body["request_id"]


def test_a_status_may_be_another_one():
    """What is said stays, and the SDK takes its class from the status."""
    server = fails(API, "overloaded", status=503)
    with pytest.raises(anthropic.ServiceUnavailableError, match="Overloaded") as caught:
        anthropic_client(server).messages.create(**ASKED)
    assert caught.value.type == "overloaded_error"


def test_a_spend_limit_tells_its_code():
    """The code in the details is what the SDK takes the class from."""
    with pytest.raises(EnforcedSpendLimitReachedError, match="spend limit") as caught:
        anthropic_client(fails(API, "spend_limit")).messages.create(**ASKED)
    assert caught.value.error_code == "enforced_spend_limit_reached"


def test_a_rate_limit_tells_in_its_headers_when_to_come_back():
    """In moments as Anthropic writes them, which agree with what was given."""
    answer = API.error("rate_limit", headers=[("Retry-After", "90")])
    assert answer.header("retry-after") == "90"
    assert answer.header("anthropic-ratelimit-requests-remaining") == "0"
    reset = answer.header("anthropic-ratelimit-requests-reset")
    assert reset == "2000-01-01T00:01:30Z"
    for odd in ("-1", "nan", "soon", "1e300"):
        told = API.error("rate_limit", headers=[("retry-after", odd)])
        assert told.header("anthropic-ratelimit-requests-reset").startswith("200")


def test_headers_about_retries_come_only_when_given():
    """Without them a client decides by the status alone."""
    plain = {name for name, _ in API.error("overloaded").headers}
    assert plain.isdisjoint({"retry-after", "retry-after-ms", "x-should-retry"})
    given = API.error("auth", headers=[("x-should-retry", "true")])
    assert given.header("x-should-retry") == "true"


def test_an_error_in_a_stream_is_raised_with_the_status_of_the_stream():
    """The SDK takes its class from 200, so only the type tells what happened."""

    def answer(body, number):
        cut = API.answer(Said(response=LLMResponse("one two")), body, number)
        cut = cut.cut(4, "complete")
        return replace(cut, body=(*cut.body, (0.0, API.error_event("overloaded"))))

    client = anthropic_client(Server(API, answer))
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as caught:
        list(client.messages.create(**STREAMED))
    assert type(caught.value) is anthropic.APIStatusError
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


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
    anthropic_client(server).messages.create(
        model="claude",
        max_tokens=99,
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image",
                        "source": {
                            "type": "base64",
                            "media_type": "image/png",
                            "data": "AAAA",
                        },
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
                    {
                        "type": "document",
                        "title": "A paper",
                        "source": {
                            "type": "text",
                            "media_type": "text/plain",
                            "data": "Words",
                        },
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "Wait."},
                    {
                        "type": "tool_use",
                        "id": "toolu_1",
                        "name": "look",
                        "input": {"at": [1, 2]},
                    },
                    {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": "a cat",
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "too dark"}],
                    },
                    {"type": "text", "text": "Please"},
                ],
            },
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "It is"},
        ],
        tools=[
            {"name": "look", "description": "Looks.", "input_schema": SCHEMA},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        output_config={
            "effort": "low",
            "format": {"type": "json_schema", "schema": SCHEMA},
        },
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
    )
    return server.seen[0]


def test_a_rich_request_of_the_sdk_is_understood():
    """Blocks, calls, results, tools and limits arrive as they were meant."""
    assert API.request(rich_body()) == LLMRequest(
        (
            Message("system", "Be brief."),
            Message(
                "user",
                "What is this?\n[image image/png]\n[image https://x/y]\n"
                "[document A paper]",
            ),
            Message(
                "assistant",
                "Wait.",
                (
                    ToolCall("look", {"at": [1, 2]}, "toolu_1"),
                    ToolCall("look", {}, "toolu_2"),
                ),
            ),
            Message("tool", "a cat", (), "toolu_1"),
            Message("tool", "too dark", (), "toolu_2"),
            Message("user", "Please"),
            Message("system", "Be kind."),
            Message("assistant", "It is"),
        ),
        "claude",
        (Tool("look", "Looks.", SCHEMA),),
        SCHEMA,
        0.5,
        99,
        {
            "stop_sequences": ["END"],
            "output_config": {"effort": "low"},
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        },
    )


def test_an_answer_can_be_sent_back_as_the_next_request():
    """What the SDK has of the content is content that is understood."""
    server = says(API, RICH)
    client = anthropic_client(server)
    content = client.messages.create(**ASKED).content
    results = [
        {"type": "tool_result", "tool_use_id": block.id}
        for block in content
        if block.type == "tool_use"
    ]
    turns = [
        USER,
        {"role": "assistant", "content": content},
        {"role": "user", "content": results},
    ]
    client.messages.create(**ASKED | {"messages": turns})
    again = API.request(server.seen[1]).messages
    assert (again[1].content, again[1].tool_calls) == (RICH.content, (WEATHER, CLOCK))
    assert [one.tool_call_id for one in again[2:]] == ["call_weather", "call_time"]


def turns(*contents):
    """Return a request whose turns alternate, the user first."""
    roles = ("user", "assistant")
    messages = [
        {"role": roles[place % 2], "content": content}
        for place, content in enumerate(contents)
    ]
    return {"model": "m", "max_tokens": 1, "messages": messages}


CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
TEXT = {"type": "text", "text": "so"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"max_tokens": 1, "messages": [USER]}, "model: Field required"),
        ({"model": "m", "messages": [USER]}, "max_tokens: Field required"),
        ({"model": "m", "max_tokens": 1}, "messages: Field required"),
        (turns(), "messages: at least one message is required"),
        ({**ASKED, "max_tokens": 0}, "max_tokens: Input should be greater than or equ"),
        ({**ASKED, "max_tokens": "9"}, "max_tokens: Input should be a valid number"),
        (
            {**ASKED, "temperature": 2},
            "temperature: Input should be less than or equal",
        ),
        ({**ASKED, "messages": "Hi"}, "messages: Input should be a valid list"),
        ({**ASKED, "messages": ["Hi"]}, "messages.0: Input should be a valid dict"),
        (
            {**ASKED, "messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role: Input should be 'user' or 'assistant'",
        ),
        (
            {**ASKED, "messages": [{"role": "assistant", "content": "x"}]},
            'first message must use the "user" role',
        ),
        (turns(""), "messages.0: all messages must have non-empty content"),
        (turns("Hi", [], "x"), "messages.1: all messages must have non-empty content"),
        (
            turns([{"type": "text", "text": ""}]),
            "text content blocks must be non-empty",
        ),
        (turns([{"text": "x"}]), "messages.0.content.0.type: Field required"),
        (turns([RESULT]), "unexpected `tool_use_id` found .* toolu_1"),
        (
            turns("Hi", [CALL]),
            "without `tool_result` blocks immediately after: toolu_1",
        ),
        (turns("Hi", [CALL], "x"), "immediately after: toolu_1"),
        (turns("Hi", [CALL], [TEXT, RESULT]), "immediately after: toolu_1"),
        (turns("Hi", [CALL], [RESULT, RESULT]), "unexpected `tool_use_id`"),
        (turns("Hi", [{**CALL, "input": "x"}]), "input: Input should be a valid dict"),
        (turns("Hi", [{**CALL, "name": ""}]), "content.0.name: Field required"),
        ({**ASKED, "tools": [{"name": "f"}]}, "tools.0.input_schema: Field required"),
        (
            {**ASKED, "output_config": {"format": {"type": "text"}}},
            "output_config.format.type: Input should be 'json_schema'",
        ),
    ],
)
def test_requests_that_anthropic_refuses_are_refused_with_the_reason(body, reason):
    """The reason names the field, so that it can stand in the error."""
    with pytest.raises(ValueError, match=reason):
        API.request(body)


def test_the_last_turn_of_the_assistant_may_be_empty():
    """It is the beginning of what the model is to say."""
    assert API.request(turns("Hi", "")).messages[-1] == Message("assistant", "")


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
