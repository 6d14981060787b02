"""OpenAI's chat API: the real SDK reads what was said, and sends what is understood."""

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
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from pytest_tta.wire.api import Said
from pytest_tta.wire.providers import OpenAIChat
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
from tta_primitives.llm import (
    LLMRequest,
    LLMResponse,
    Message,
    Tool,
    ToolCall,
    Usage,
)

API = OpenAIChat()
ASKED = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello there"}]}
STREAMED = ASKED | {"stream": True}
ENDS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "other": "unknown",
}


class City(pydantic.BaseModel):
    """Where somebody is."""

    name: str
    people: int


def read(completion):
    """Return a completion of the SDK in no vendor's words."""
    choice, usage = completion.choices[0], completion.usage
    message = choice.message
    return LLMResponse(
        message.refusal or message.content or "",
        tuple(
            call_of(call.function.name, call.function.arguments, call.id)
            for call in message.tool_calls or ()
        ),
        "refusal" if message.refusal else ENDS[choice.finish_reason],
        usage
        and Usage(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens_details.cached_tokens,
        ),
        completion.model,
    )


def joined(chunks):
    """Return what raw chunks say together, as a careful client of its own reads it."""
    text, refusal, calls, reason, usage, model = "", "", {}, None, None, None
    for chunk in chunks:
        model, usage = chunk.model, chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            refusal += choice.delta.refusal or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, ["", "", ""])
                call[0] += part.id or ""
                call[1] += part.function.name or ""
                call[2] += part.function.arguments or ""
    return LLMResponse(
        refusal or text,
        tuple(call_of(name, args, key) for key, name, args in calls.values()),
        "refusal" if refusal else ENDS[reason],
        usage
        and Usage(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens_details.cached_tokens,
        ),
        model,
    )


USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/chat/completions", True),
        ("POST", "/openai/deployments/x/chat/completions", True),
        ("GET", "/v1/chat/completions", False),
        ("POST", "/v1/completions", False),
        ("POST", "/v1/chat/completions/chatcmpl-1", False),
    ],
)
def test_requests_are_told_by_the_end_of_their_path(method, path, expected):
    """Whatever comes before, a POST to `/chat/completions` is for this API."""
    assert API.serves(method, path) is expected


def test_the_azure_client_finds_the_api_at_its_own_path():
    """Azure puts the deployment into the path, and the API answers there too."""
    server = says(API, RICH)
    client = openai_client(
        server,
        openai.AzureOpenAI,
        base_url="http://test/openai/deployments/mine",
        api_version="2025-01-01",
    )
    assert read(client.chat.completions.create(**ASKED)) == RICH
    assert server.paths == ["/openai/deployments/mine/chat/completions"]


def test_an_answer_is_read_as_it_was_said():
    """Text, calls, end, usage and model come through the SDK unchanged."""
    client = openai_client(says(API, RICH))
    assert read(client.chat.completions.create(**ASKED)) == RICH


async def test_an_answer_is_read_as_it_was_said_by_the_async_client():
    """As with the sync one."""
    client = openai_client(says(API, RICH), openai.AsyncOpenAI)
    assert read(await client.chat.completions.create(**ASKED)) == RICH


async def test_both_clients_read_the_same_from_a_real_socket():
    """Whole and streamed, sync and async: four ways to the same answer."""
    async with on_loopback(API, Said(response=RICH)) as server:
        options = {"api_key": "k", "base_url": server.url + "/v1", "max_retries": 0}

        def ask():
            with openai.OpenAI(**options) as client:
                create = client.chat.completions.create
                return create(**ASKED), list(create(**ASKED, **USAGE))

        whole, chunks = await asyncio.to_thread(ask)
        async with openai.AsyncOpenAI(**options) as client:
            other = await client.chat.completions.create(**ASKED)
            stream = await client.chat.completions.create(**ASKED, **USAGE)
            other_chunks = [chunk async for chunk in stream]
    assert [read(whole), joined(chunks)] == [RICH, RICH]
    assert [read(other), joined(other_chunks)] == [RICH, RICH]


@pytest.mark.parametrize("reason", [one for one in REASONS if one != "unknown"])
def test_whole_answers_are_valid_by_the_types_of_the_sdk(reason):
    """Every field that the SDK insists on is there, of the type that it expects."""
    said = Said(response=replace(RICH, finish_reason=reason))
    value = API.answer(said, ASKED, 1).data
    told = json.loads(value)
    ChatCompletion.model_validate_json(value, strict=True)
    assert set(told) >= {"service_tier", "system_fingerprint", "usage", "created"}


@pytest.mark.parametrize("reason", [one for one in REASONS if one != "unknown"])
def test_chunks_are_valid_by_the_types_of_the_sdk(reason):
    """As the whole answer, every chunk."""
    said = Said(response=replace(RICH, finish_reason=reason))
    chunks = events_of(API.answer(said, ASKED | USAGE, 1))
    assert chunks.pop() == (None, None)
    for name, chunk in chunks:
        assert name is None
        ChatCompletionChunk.model_validate(chunk, strict=True)


@pytest.mark.parametrize("reason", REASONS)
def test_every_end_is_told_whole_and_streamed(reason):
    """Each reason to end has its own mark, which leads back to it."""
    response = replace(RICH, finish_reason=reason)
    client = openai_client(says(API, response))
    assert read(client.chat.completions.create(**ASKED)) == response
    chunks = client.chat.completions.create(**ASKED, **USAGE)
    assert joined(chunks) == response


def test_a_stream_is_a_role_pieces_an_end_and_done():
    """The chunks come in OpenAI's order, without usage as none was asked for."""
    said = Said(response=LLMResponse("one two"))
    events = [value for _, value in events_of(API.answer(said, STREAMED, 1))]
    assert events.pop() is None
    assert [event["choices"] for event in events] == [
        [_choice({"role": "assistant", "content": "", "refusal": None})],
        [_choice({"content": "one "})],
        [_choice({"content": "two"})],
        [_choice({}, "stop")],
    ]
    assert not any("usage" in event for event in events)


def _choice(delta, reason=None):
    head = {"index": 0, "delta": delta, "logprobs": None}
    return head | {"finish_reason": reason}


def test_calls_stream_in_fragments_after_their_names():
    """The first delta of a call names it, the others bring its arguments alone."""
    said = Said(response=LLMResponse("", (CLOCK, WEATHER), "tool_calls"))
    events = [value for _, value in events_of(API.answer(said, STREAMED, 1))][:-1]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None}
    assert [delta["tool_calls"][0] for delta in deltas[1:4]] == [
        {
            "index": 0,
            "id": "call_time",
            "type": "function",
            "function": {"name": "get_time", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": "{}"}},
        {
            "index": 1,
            "id": "call_weather",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
    ]
    assert len(deltas) > 7


def test_usage_comes_in_a_chunk_of_its_own_if_asked_for():
    """It has no choices, and all chunks before it say that usage is null."""
    answer = API.answer(Said(response=RICH), ASKED | USAGE, 1)
    events = [value for _, value in events_of(answer)]
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["total_tokens"] == 154
    assert {event["usage"] is None for event in events[:-2]} == {True}
    assert answer.tail == 3


def test_tokens_and_tail_tell_what_each_part_is():
    """Content is marked; the end and `[DONE]` are the tail, the role is neither."""
    answer = API.answer(Said(response=LLMResponse("one two")), STREAMED, 1)
    assert (answer.tokens, answer.tail, len(answer.body)) == ((1, 2), 2, 5)


def test_times_come_from_the_timeline():
    """Each piece has its moment, and what follows the text comes with the last."""
    timeline = ((0.5, "a "), (0.75, ""), (2.0, "b"))
    said = Said(response=LLMResponse("a b"), timeline=timeline, delay=3)
    answer = API.answer(said, STREAMED, 1)
    assert answer.head_after == 3
    assert [at for at, _ in answer.body] == [0.5, 0.5, 0.75, 2.0, 2.0, 2.0]
    assert answer.tokens == (1, 3)


def test_what_is_not_streamed_comes_with_the_last_piece():
    """The whole answer is there when its last word is."""
    timeline = ((0.5, "a "), (2.0, "b"))
    answer = API.answer(
        Said(response=LLMResponse(), timeline=timeline, delay=3), ASKED, 1
    )
    assert answer.head_after == 5
    assert json.loads(answer.data)["choices"][0]["message"]["content"] == "a b"


def test_equal_arguments_give_equal_bytes():
    """Nothing in an answer comes from the clock or from chance."""
    said = Said(response=replace(RICH, usage=None))
    one, other = (OpenAIChat().answer(said, STREAMED, 7) for _ in range(2))
    assert one == other
    assert one != OpenAIChat().answer(said, STREAMED, 8)


def test_ids_of_calls_are_made_where_none_is_given():
    """They differ within an answer and from answer to answer."""
    calls = (ToolCall("a"), ToolCall("b"))
    client = openai_client(says(API, LLMResponse("", calls, "tool_calls")))
    answers = [client.chat.completions.create(**ASKED) for _ in range(2)]
    ids = [c.id for a in answers for c in a.choices[0].message.tool_calls]
    assert len(set(ids)) == 4
    assert all(one.startswith("call_") for one in ids)
    assert len({a.id for a in answers}) == 2
    assert len({a._request_id for a in answers}) == 2


def test_broken_arguments_come_as_the_model_wrote_them():
    """Whole and streamed, they are the text that is no JSON."""
    broken = ToolCall("f", {}, "c", broken_arguments='{"city": "Par')
    response = LLMResponse("", (broken,), "tool_calls", Usage(1, 2), "m")
    client = openai_client(says(API, response))
    assert read(client.chat.completions.create(**ASKED)) == response
    assert joined(client.chat.completions.create(**ASKED, **USAGE)) == response


def test_a_refusal_without_words_is_still_a_refusal():
    """Clients take an empty text for none, so the model says something."""
    client = openai_client(says(API, LLMResponse(finish_reason="refusal")))
    message = client.chat.completions.create(**ASKED).choices[0].message
    assert message.content is None
    assert message.refusal == "I'm sorry, but I can't help with that."


def test_usage_is_estimated_when_the_test_tells_none():
    """A token for four characters of everything that is asked and said."""
    client = openai_client(says(API, LLMResponse("twelve chars")))
    usage = client.chat.completions.create(**ASKED).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 3)
    tools = [{"type": "function", "function": {"name": "twelve_chars"}}]
    longer = client.chat.completions.create(**ASKED, tools=tools).usage
    assert longer.prompt_tokens == 7


def test_what_is_stored_with_a_request_stands_in_its_answer():
    """Metadata come back, and the answer is of the day on which test clocks begin."""
    client = openai_client(says(API, RICH))
    answer = client.chat.completions.create(**ASKED, metadata={"k": "v"}, store=True)
    assert answer.metadata == {"k": "v"}
    assert answer.created == 946684800


def test_several_choices_are_alike():
    """`n=2` gives two, whole and streamed."""
    client = openai_client(says(API, RICH))
    whole = client.chat.completions.create(**ASKED, n=2)
    assert [choice.index for choice in whole.choices] == [0, 1]
    with client.chat.completions.stream(**ASKED, n=2) as stream:
        texts = [c.message.content for c in stream.get_final_completion().choices]
    assert texts == [RICH.content, RICH.content]


def test_structured_answers_are_parsed():
    """The content is JSON, given as text or as data; `parse` makes a model of it."""
    city = City(name="Paris", people=2)
    for response in (
        LLMResponse('{"name": "Paris", "people": 2}'),
        LLMResponse(data=city),
        LLMResponse(data={"name": "Paris", "people": 2}),
    ):
        client = openai_client(says(API, response))
        parsed = client.chat.completions.parse(**ASKED, response_format=City)
        assert parsed.choices[0].message.parsed == city
        with client.chat.completions.stream(**ASKED, response_format=City) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == city


async def test_the_stream_helper_of_the_async_client_gives_what_was_said():
    """With usage, and its parsed arguments."""
    client = openai_client(says(API, RICH), openai.AsyncOpenAI)
    options = {"include_usage": True}
    async with client.chat.completions.stream(
        **ASKED, stream_options=options
    ) as stream:
        final = await stream.get_final_completion()
    assert read(final) == RICH


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("length", openai.LengthFinishReasonError),
        ("content_filter", openai.ContentFilterFinishReasonError),
    ],
)
def test_parse_raises_what_the_sdk_has_for_answers_that_are_not_whole(reason, error):
    """The SDK knows them by the finish reason."""
    client = openai_client(says(API, LLMResponse("{", finish_reason=reason)))
    with pytest.raises(error, match="Could not parse response content"):
        client.chat.completions.parse(**ASKED, response_format=City)


@EXAMPLES
@given(responses(), st.integers(1, 40))
def test_any_answer_comes_back_equal(response, piece):
    """Whatever is said, whole, in chunks and by the helper, however bytes are cut."""
    client = openai_client(says(API, response, piece=piece))
    assert read(client.chat.completions.create(**ASKED)) == response
    assert joined(client.chat.completions.create(**ASKED, **USAGE)) == response
    options = {"include_usage": True}
    with client.chat.completions.stream(**ASKED, stream_options=options) as stream:
        # The final completion would be refused if it was cut off or filtered.
        assert read(stream.until_done().current_completion_snapshot) == response


def test_half_of_a_surrogate_pair_is_sent_as_an_escape():
    """UTF-8 cannot hold it, JSON can."""
    client = openai_client(says(API, LLMResponse("a\ud83d")))
    whole = client.chat.completions.create(**ASKED)
    assert whole.choices[0].message.content == "a\ud83d"


@pytest.mark.parametrize("body", [ASKED, STREAMED])
def test_an_empty_answer_has_no_choice(body):
    """The SDK does not mind, so the client's own code must."""
    server = Server(API, API.empty)
    client = openai_client(server)
    if "stream" not in body:
        assert client.chat.completions.create(**body).choices == []
        return
    (chunk,) = client.chat.completions.create(**body)
    assert chunk.choices == []
    *_, last = client.chat.completions.create(**ASKED, **USAGE)
    assert (last.choices, last.usage.completion_tokens) == ([], 0)


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
every_error = pytest.mark.parametrize(("kind", "status", "error", "code"), ERRORS)


@every_error
def test_errors_become_the_exceptions_of_the_sdk(kind, status, error, code):
    """Class, status, code and message are those that OpenAI's users know."""
    client = openai_client(fails(API, kind))
    with pytest.raises(error, match=f"Error code: {status}") as caught:
        client.chat.completions.create(**ASKED)
    assert type(caught.value) is error
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id == "req_" + "0" * 24
    with pytest.raises(error, match="another text"):
        openai_client(fails(API, kind, message="another text")).chat.completions.create(
            **ASKED
        )


@every_error
async def test_errors_become_the_same_exceptions_on_a_real_socket(
    kind, status, error, code
):
    """The bytes are those of HTTP."""
    async with failing_loopback(API.error(kind)) as server:
        options = {"api_key": "k", "base_url": server.url + "/v1", "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            with pytest.raises(error, match=f"Error code: {status}") as caught:
                await client.chat.completions.create(**STREAMED)
    assert caught.value.code == code


def test_the_policy_block_of_azure_tells_what_was_found():
    """Its inner error names the policy."""
    with pytest.raises(openai.BadRequestError, match="content management") as caught:
        openai_client(fails(API, "content_filter")).chat.completions.create(**ASKED)
    inner = caught.value.body["innererror"]
    assert inner["code"] == "ResponsibleAIPolicyViolation"


def test_a_status_may_be_another_one():
    """What is said stays, and the SDK takes its class from the status."""
    server = fails(API, "overloaded", status=429)
    with pytest.raises(openai.RateLimitError, match="overloaded"):
        openai_client(server).chat.completions.create(**ASKED)


def test_a_rate_limit_tells_in_its_headers_when_to_come_back():
    """In durations as OpenAI writes them, which agree with what was given."""
    resets = {
        "x": "1s",
        "0.12": "120ms",
        "1.5": "1.5s",
        "30": "30s",
        "360": "6m0s",
        "3600": "1h0m0s",
    }
    for after, reset in resets.items():
        answer = API.error("rate_limit", headers=[("Retry-After", after)])
        assert answer.header("retry-after") == after
        assert answer.header("x-ratelimit-remaining-requests") == "0"
        assert answer.header("x-ratelimit-reset-requests") == reset
    answer = API.error("rate_limit", headers=[("retry-after-ms", "1500")])
    assert answer.header("x-ratelimit-reset-requests") == "1.5s"


def test_headers_about_retries_come_only_when_given():
    """Without them a client decides by the status alone."""
    plain = {name for name, _ in API.error("rate_limit").headers}
    assert plain.isdisjoint({"retry-after", "retry-after-ms", "x-should-retry"})
    given = API.error(
        "auth", headers=[("x-should-retry", "true"), ("X-Request-Id", "r")]
    )
    assert given.header("x-should-retry") == "true"
    assert [value for name, value in given.headers if name == "x-request-id"] == ["r"]


def test_the_head_of_an_answer_is_openais():
    """Version, time and limits stand there, and the SDK finds the request's id."""
    client = openai_client(says(API, RICH))
    raw = client.chat.completions.with_raw_response.create(**ASKED)
    assert raw.headers["openai-version"] == "2020-10-01"
    assert raw.headers["x-ratelimit-reset-requests"] == "6ms"
    assert raw.headers["openai-processing-ms"] == "0"
    assert raw.parse()._request_id == "req_" + "0" * 17 + "1" + "0" * 6


def test_an_error_in_a_stream_ends_it_with_an_api_error():
    """The SDK raises where the event stands, after what was said before."""

    def answer(body, number):
        whole = API.answer(Said(response=LLMResponse("one two three")), body, number)
        cut = whole.cut(3, "complete")
        return replace(cut, body=(*cut.body, (0.0, API.error_event("overloaded"))))

    chunks, client = [], openai_client(Server(API, answer))
    with pytest.raises(openai.APIError, match="currently overloaded") as caught:
        chunks.extend(iter(client.chat.completions.create(**STREAMED)))
    assert type(caught.value) is openai.APIError
    assert (len(chunks), caught.value.code) == (3, "server_is_overloaded")


def test_errors_may_have_the_status_as_their_code():
    """As those of OpenRouter: a number, and what the provider behind it said."""
    api = OpenAIChat("openrouter.chat", status_as_code=True)
    with pytest.raises(openai.RateLimitError, match="slow") as caught:
        openai_client(fails(api, "rate_limit", message="slow")).chat.completions.create(
            **ASKED
        )
    assert (caught.value.code, caught.value.type) == ("429", None)
    assert caught.value.body["metadata"]["raw"] == "slow"
    event = json.loads(api.error_event("overloaded").removeprefix(b"data: "))
    assert event["error"]["code"] == 503


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
    openai_client(server).chat.completions.create(
        model="gpt-5",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image_url",
                        "image_url": {"url": "data:image/png;base64,AAAA"},
                    },
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {
                        "type": "input_audio",
                        "input_audio": {"data": "AAAA", "format": "wav"},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at": [1, 2]}'},
                    },
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at'},
                    },
                    {
                        "id": "call_3",
                        "type": "custom",
                        "custom": {"name": "shell", "input": "ls"},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "call_2", "content": "broken"},
            {
                "role": "tool",
                "tool_call_id": "call_1",
                "content": [{"type": "text", "text": "a cat"}],
            },
            {"role": "tool", "tool_call_id": "call_3", "content": ""},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "content": "Please"},
        ],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": SCHEMA,
                    "strict": True,
                },
            },
            {"type": "custom", "custom": {"name": "shell"}},
        ],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "City", "schema": SCHEMA, "strict": True},
        },
        temperature=0.5,
        max_completion_tokens=99,
        seed=7,
        stop=["END"],
        user="me",
    )
    return server.seen[0]


def test_a_rich_request_of_the_sdk_is_understood():
    """Roles, parts, calls, results, tools and limits arrive as they were meant."""
    assert API.request(rich_body()) == LLMRequest(
        (
            Message("system", "Be brief."),
            Message("system", "Be kind."),
            Message(
                "user",
                "What is this?\n[image_url image/png]\n[image_url https://x/y.png]\n"
                "[input_audio wav]\n[file file-1]",
            ),
            Message(
                "assistant",
                "",
                (
                    ToolCall("look", {"at": [1, 2]}, "call_1"),
                    ToolCall("look", {}, "call_2", broken_arguments='{"at'),
                    ToolCall("shell", {"input": "ls"}, "call_3"),
                ),
            ),
            Message("tool", "broken", (), "call_2"),
            Message("tool", "a cat", (), "call_1"),
            Message("tool", "", (), "call_3"),
            Message("assistant", "No."),
            Message("user", "Please"),
        ),
        "gpt-5",
        (Tool("look", "Looks.", SCHEMA),),
        SCHEMA,
        0.5,
        99,
        {
            "tools": [{"type": "custom", "custom": {"name": "shell"}}],
            "seed": 7,
            "stop": ["END"],
            "user": "me",
        },
    )


def test_what_parse_sends_is_read_as_the_schema_of_the_model():
    """The SDK makes a strict schema of a model; that is what is asked for."""
    server = says(API, LLMResponse(data={"name": "Paris", "people": 2}))
    openai_client(server).chat.completions.parse(**ASKED, response_format=City)
    schema = API.request(server.seen[0]).schema
    assert (schema["title"], list(schema["properties"])) == ("City", ["name", "people"])


def test_an_answer_can_be_sent_back_as_the_next_request():
    """What the SDK dumps of a message is a message that is understood."""
    server = says(API, RICH)
    client = openai_client(server)
    message = client.chat.completions.create(**ASKED).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "done"}
        for call in message.tool_calls
    ]
    client.chat.completions.create(
        model="gpt-5", messages=[*ASKED["messages"], message, *results]
    )
    again = API.request(server.seen[1]).messages[1]
    assert (again.content, again.tool_calls) == (RICH.content, RICH.tool_calls)


def test_functions_of_old_are_read_as_tools():
    """The messages that came before tools still have their place."""
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "ok"},
        ],
        "response_format": {"type": "json_object"},
        "max_tokens": 5,
    }
    asked = API.request(body)
    assert asked.messages[1].tool_calls == (ToolCall("f", {}, "f"),)
    assert asked.messages[2] == Message("tool", "ok", (), "f")
    assert asked.max_output_tokens == 5
    assert asked.options == {"response_format": {"type": "json_object"}}


CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": "{}"},
}
USER = {"role": "user", "content": "Hi"}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "ok"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": [USER]}, "Missing required parameter: 'model'"),
        ({"model": "m"}, "Missing required parameter: 'messages'"),
        ({"model": "m", "messages": []}, "Invalid 'messages': empty array"),
        (
            {"model": 1, "messages": [USER]},
            "'model': expected a string, but got an int",
        ),
        ({"model": "m", "messages": "Hi"}, "'messages': expected an array of objects"),
        ({"model": "m", "messages": ["Hi"]}, r"'messages\[0\]': expected an object"),
        ({"messages": [{"content": "x"}], "model": "m"}, r"'messages\[0\].role'"),
        (
            {"messages": [{"role": "robot", "content": "x"}], "model": "m"},
            "'robot'. Supported: 'system', 'developer'",
        ),
        ({"messages": [{"role": "user"}], "model": "m"}, r"'messages\[0\].content'"),
        ({"messages": [{"role": "assistant"}], "model": "m"}, "content'"),
        (
            {"messages": [{"role": "user", "content": 1}], "model": "m"},
            r"'messages\[0\].content': expected an array",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}], "model": "m"},
            r"content\[0\].type': 'x'",
        ),
        ({"messages": [USER, RESULT], "model": "m"}, r"messages\[1\] answers 'call_1'"),
        ({"messages": [USER, CALLS], "model": "m"}, "response messages: call_1"),
        ({"messages": [USER, CALLS, USER, RESULT], "model": "m"}, "messages: call_1"),
        (
            {"messages": [USER, CALLS, RESULT, RESULT], "model": "m"},
            r"messages\[3\] answers",
        ),
        ({"model": "m", "messages": [USER], "temperature": 3}, "value <= 2, but got 3"),
        ({"model": "m", "messages": [USER], "temperature": True}, "got a boolean"),
        ({"model": "m", "messages": [USER], "max_tokens": 0}, "value >= 1, but got 0"),
        ({"model": "m", "messages": [USER], "max_tokens": 1.5}, "expected an integer"),
        (
            {"model": "m", "messages": [USER], "tools": [{"type": "function"}]},
            r"'tools\[0\].function'",
        ),
        (
            {
                "model": "m",
                "messages": [USER],
                "tools": [{"type": "function", "function": {"name": ""}}],
            },
            r"'tools\[0\].function.name'",
        ),
        (
            {"model": "m", "messages": [USER], "response_format": {"type": "yaml"}},
            "'response_format.type': 'yaml'",
        ),
        ({**ASKED, "stream_options": {}}, "only allowed when 'stream' is enabled"),
        ({**STREAMED, "stream_options": []}, "'stream_options': expected an object"),
        (
            {
                "model": "m",
                "messages": [USER],
                "response_format": {"type": "json_schema"},
            },
            "'response_format.json_schema'",
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
