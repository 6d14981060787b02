"""Whole answers of all APIs, through the real SDKs over a socket."""

from __future__ import annotations

import json

import pytest

from pytest_tta.wire.exchange import WireAnswer
from tests.llm.bodies import APIS, KEY, of_events, sent, served, streamed, texts, whole
from tta_primitives import WorkflowContext
from tta_primitives.door import Observer, listening
from tta_primitives.llm import (
    LLMRequest,
    LLMResponse,
    LLMStats,
    Message,
    Tool,
    ToolCall,
    Usage,
)
from tta_primitives.recovery import RetryPrimitive

WEATHER = Tool(
    "get_weather",
    "Tells the weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}},
)
PARIS = ToolCall("get_weather", {"city": "Paris"}, "call_1")
TALK = [
    Message("system", "Be brief."),
    Message("user", "How is the weather in Paris and Rome?"),
    Message("assistant", "I look.", tool_calls=(PARIS, ToolCall("get_time", {}, "c2"))),
    Message("tool", "21 °C", tool_call_id="call_1"),
    Message("tool", "noon", tool_call_id="c2"),
]


class Ear(Observer):
    """Notes the events of calls."""

    def __init__(self):
        self.heard = []

    def event(self, call, name, detail):
        self.heard.append((call.path, name, detail))


def calls(api):
    """Return a tool call as the API has it."""
    given = {"city": "Paris"}
    return [
        ("call_1", "get_weather", given if api == "anthropic" else '{"city":"Paris"}')
    ]


FINISH = {"chat": "tool_calls", "responses": "completed", "anthropic": "tool_use"}


@pytest.mark.parametrize("api", APIS)
async def test_answer_is_read(api) -> None:
    """Text, why it ended, tokens and model are in no vendor's words."""
    async with served(api, whole(api)) as (llm, _):
        response = await llm.execute("Hi", WorkflowContext())
    assert response == LLMResponse(
        "Hello.",
        usage=Usage(9, 3, 4),
        model="claude-opus-5" if api == "anthropic" else "gpt-5-2026-01-01",
    )
    assert str(response) == "Hello."


@pytest.mark.parametrize("api", APIS)
async def test_pipeline_of_functions_around_a_retry(api) -> None:
    """`validate >> RetryPrimitive(llm) >> format_answer` takes text to text."""
    async with served(api, whole(api, " Hello. ")) as (llm, seen):
        workflow = str.strip >> RetryPrimitive(llm) >> str >> str.strip
        assert await workflow.execute("  Hi ", WorkflowContext()) == "Hello."
    assert "  Hi" not in seen[0].body.decode()


@pytest.mark.parametrize("api", APIS)
async def test_tool_calls_are_read(api) -> None:
    """A tool's name, its arguments as a mapping, and its id."""
    answer = whole(api, None, FINISH[api], tool_calls=calls(api))
    async with served(api, answer, tools=[WEATHER]) as (llm, seen):
        response = await llm.execute("Paris?", WorkflowContext())
    assert response.tool_calls == (PARIS,)
    assert response.finish_reason == "tool_calls"
    assert "get_weather" in json.dumps(sent(seen)["tools"])


async def test_chat_is_asked_in_its_words() -> None:
    """Messages, tools, temperature and limit as the Chat Completions have them."""
    options = {"tools": [WEATHER], "temperature": 0.5, "max_output_tokens": 50}
    async with served("chat", whole("chat"), **options) as (llm, seen):
        await llm.execute(TALK, WorkflowContext())
    call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    other = {"name": "get_time", "arguments": "{}"}
    assert sent(seen) == {
        "model": "gpt-5",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is the weather in Paris and Rome?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": call},
                    {"id": "c2", "type": "function", "function": other},
                ],
            },
            {"role": "tool", "content": "21 °C", "tool_call_id": "call_1"},
            {"role": "tool", "content": "noon", "tool_call_id": "c2"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Tells the weather of a city.",
                    "parameters": WEATHER.parameters,
                },
            }
        ],
        "temperature": 0.5,
        "max_tokens": 50,
    }
    assert seen[0].head.startswith("POST /v1/chat/completions ")
    assert seen[0].header("authorization") == f"Bearer {KEY}"


async def test_responses_are_asked_in_their_words() -> None:
    """Items of input, flat tools, and the limit as the Responses API has them."""
    options = {"tools": [WEATHER], "max_output_tokens": 50}
    async with served("responses", whole("responses"), **options) as (llm, seen):
        await llm.execute(TALK, WorkflowContext())
    call = {"call_id": "call_1", "name": "get_weather"}
    assert sent(seen) == {
        "model": "gpt-5",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is the weather in Paris and Rome?"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", **call, "arguments": '{"city": "Paris"}'},
            {
                "type": "function_call",
                "call_id": "c2",
                "name": "get_time",
                "arguments": "{}",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "21 °C"},
            {"type": "function_call_output", "call_id": "c2", "output": "noon"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "Tells the weather of a city.",
                "strict": False,
                "parameters": WEATHER.parameters,
            }
        ],
        "max_output_tokens": 50,
    }


async def test_anthropic_is_asked_in_its_words() -> None:
    """One system prompt, results of tools in one message, and a limit in any case."""
    async with served("anthropic", whole("anthropic"), tools=[WEATHER]) as (llm, seen):
        await llm.execute(TALK, WorkflowContext())
    paris = {"id": "call_1", "name": "get_weather", "input": {"city": "Paris"}}
    assert sent(seen) == {
        "model": "claude-opus-5",
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "How is the weather in Paris and Rome?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", **paris},
                    {"type": "tool_use", "id": "c2", "name": "get_time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": "21 °C",
                    },
                    {"type": "tool_result", "tool_use_id": "c2", "content": "noon"},
                ],
            },
        ],
        "tools": [
            {
                "name": "get_weather",
                "description": "Tells the weather of a city.",
                "input_schema": WEATHER.parameters,
            }
        ],
    }
    assert KEY in seen[0].head


async def test_what_a_request_says_outweighs_the_primitive() -> None:
    """Model, temperature, limit and options of the request come first."""
    options = {"temperature": 0.1, "options": {"seed": 1, "user": "a"}}
    request = LLMRequest(
        (Message("user", "Hi"),), model="gpt-6", temperature=0, options={"seed": 2}
    )
    async with served("chat", whole("chat"), **options) as (llm, seen):
        await llm.execute(request, WorkflowContext())
    body = sent(seen)
    assert (body["model"], body["temperature"], body["seed"]) == ("gpt-6", 0, 2)
    assert body["user"] == "a"


@pytest.mark.parametrize("api", APIS)
async def test_temperature_is_sent(api) -> None:
    """Zero is one too."""
    async with served(api, whole(api), temperature=0) as (llm, seen):
        await llm.execute("Hi", WorkflowContext())
    assert sent(seen)["temperature"] == 0


async def test_text_in_parts_is_put_together() -> None:
    """Some compatible servers write the content as a list."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    async with served("chat", whole("chat", parts)) as (llm, _):
        assert str(await llm.execute("Hi", WorkflowContext())) == "Hello"


async def test_none_as_an_option_takes_an_argument_back() -> None:
    """A server that does not know `stream_options` is not sent them."""
    options = {"stream_options": None}
    answer = streamed("chat", "Hi")
    async with served("chat", answer, options=options) as (llm, seen):
        assert await texts(llm) == ["Hi"]
    assert "stream_options" not in sent(seen)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (None, "max_completion_tokens"),
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("http://localhost:11434/v1", "max_tokens"),
    ],
)
def test_limit_is_called_as_the_server_knows_it(url, name, monkeypatch) -> None:
    """OpenAI has renamed it; other servers would ignore the new name."""
    from tta_primitives.llm import OpenAIPrimitive

    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    llm = OpenAIPrimitive("k", model="m", base_url=url, max_output_tokens=7)
    body = llm._body(llm._request("Hi"), None, is_stream=False)
    assert body[name] == 7


@pytest.mark.parametrize("api", APIS)
async def test_calls_and_tokens_are_counted(api) -> None:
    """Stats have calls, answers and tokens, those of incomplete answers too."""
    stop = {"chat": "length", "anthropic": "max_tokens", "responses": "incomplete"}[api]
    more = {}
    if api == "responses":
        more = {"incomplete_details": {"reason": "max_output_tokens"}}
    cut = whole(api, "Hel", stop, **more)
    answers = (whole(api), cut)
    async with served(api, *answers, on_incomplete="return") as (llm, _):
        await llm.execute("Hi", WorkflowContext())
        assert llm.stats == LLMStats(1, 1, 0, 9, 3, 4)
        await llm.named("other").execute("Hi", WorkflowContext())
        assert llm.stats == LLMStats(2, 1, 1, 18, 6, 8)


@pytest.mark.parametrize("api", APIS)
async def test_usage_is_told_to_observers(api) -> None:
    """The event has the names of OpenTelemetry's conventions."""
    ear = Ear()
    async with served(api, whole(api)) as (llm, _):
        with listening(observers=[ear]):
            await llm.execute("Hi", WorkflowContext())
    is_anthropic = api == "anthropic"
    said = {"chat": "stop", "responses": "completed", "anthropic": "end_turn"}
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic" if is_anthropic else "openai",
        "gen_ai.request.model": "claude-opus-5" if is_anthropic else "gpt-5",
        "gen_ai.response.model": "claude-opus-5"
        if is_anthropic
        else "gpt-5-2026-01-01",
        "gen_ai.response.finish_reasons": [said[api]],
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
    }
    assert ear.heard == [("llm", "llm.usage", told)]


async def test_other_servers_may_leave_things_out() -> None:
    """No id, no usage, a finish reason of their own: it is an answer all the same."""
    choice = {"message": {"content": "Hello."}, "finish_reason": "eos"}
    answer = WireAnswer.of_json({"choices": [choice]})
    async with served("chat", answer) as (llm, _):
        response = await llm.execute("Hi", WorkflowContext())
    assert response == LLMResponse("Hello.")


@pytest.mark.parametrize("api", APIS)
async def test_stream_gives_texts_and_leaves_the_response(api) -> None:
    """Texts come one by one; the whole response is among the outcomes."""
    context = WorkflowContext()
    async with served(api, streamed(api, "Hel", "lo", ".")) as (llm, seen):
        assert await texts(llm, context=context) == ["Hel", "lo", "."]
    response = context.outcomes["llm"]
    assert (response.content, response.finish_reason) == ("Hello.", "stop")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 3)
    assert sent(seen)["stream"] is True


async def test_tool_calls_of_a_chat_stream_are_put_together() -> None:
    """Pieces of arguments belong to the call of their index."""
    pieces = [
        {
            "index": 0,
            "id": "call_1",
            "function": {"name": "get_weather", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"city"'}},
        {"index": 1, "id": "c2", "function": {"name": "get_time", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": ': "Paris"}'}},
    ]
    answer = streamed("chat", finish="tool_calls", tool_pieces=pieces)
    await _two_calls("chat", answer)


async def test_tool_calls_of_a_message_stream_are_put_together() -> None:
    """Pieces of JSON belong to the block of their index."""
    tools = [
        ("call_1", "get_weather", ['{"city"', ': "Paris"}']),
        ("c2", "get_time", []),
    ]
    await _two_calls("anthropic", streamed("anthropic", stop="tool_use", tools=tools))


async def test_tool_calls_of_a_response_stream_come_at_its_end() -> None:
    """The last event has them whole."""
    tools = [("call_1", "get_weather", '{"city":"Paris"}'), ("c2", "get_time", "{}")]
    await _two_calls("responses", streamed("responses", tool_calls=tools))


async def _two_calls(api, answer) -> None:
    context = WorkflowContext()
    tools = [WEATHER, Tool("get_time")]
    async with served(api, answer, tools=tools) as (llm, _):
        assert await texts(llm, context=context) == []
    assert context.outcomes["llm"].tool_calls == (PARIS, ToolCall("get_time", {}, "c2"))


async def test_traffic_that_says_nothing_is_passed_over() -> None:
    """Comments, CRLF, chunks without choices: normal traffic of servers and proxies."""
    events = [b": keep-alive\r\n\r\n", *_crlf(*streamed("chat", "Hi").body)]
    async with served("chat", of_events(*events)) as (llm, _):
        assert await texts(llm) == ["Hi"]


def _crlf(*parts):
    return [data.replace(b"\n", b"\r\n") for _, data in parts]
