"""A recording is to a fault what the answer of a fake provider is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tta.tape.tokens import TapedApi, api_for, marked, said_of
from pytest_tta.wire.api import Said
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers import AnthropicMessages, OpenAIChat, OpenAIResponses
from tta_primitives.llm import LLMResponse, ToolCall, Usage

APIS = (OpenAIChat(), OpenAIResponses(), AnthropicMessages())
PATHS = {
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/openai/v1/responses",
    "anthropic.messages": "/v1/messages",
}
by_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)


def body(*, stream, **more):
    """Return a request that is valid for any of the APIs."""
    asked = {"messages": [{"role": "user", "content": "?"}], "input": "?"}
    return {"model": "m", "max_tokens": 9, "stream": stream, **asked, **more}


def unmarked(answer):
    """Return an answer as a tape has it."""
    return replace(answer, tokens=(), tail=0)


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
calls = st.builds(
    ToolCall,
    name=st.sampled_from(["look", "search"]),
    arguments=st.dictionaries(st.sampled_from(["city", "n"]), st.integers()),
    id=st.just("call_1"),
)
responses = st.builds(
    LLMResponse,
    content=st.lists(words, max_size=4).map(" ".join),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    usage=st.just(Usage(3, 4)),
    model=st.just("m"),
)


@by_api
@given(response=responses, usage=st.booleans())
def test_tokens_and_tail_are_found_again(api, response, usage) -> None:
    """Exactly those that the provider's own answer has."""
    more = {"stream_options": {"include_usage": True}} if usage else {}
    answer = api.answer(Said(response=response), body(stream=True, **more), 1)
    assert marked(api, unmarked(answer)) == answer


@by_api
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_said_is_read_again(api, stream) -> None:
    """Text, calls, reason and usage, and the times of a stream."""
    timeline = ((0.5, "one "), (0.75, "two"))
    response = LLMResponse(
        "one two",
        (ToolCall("look", {"n": 1}, "call_7"),),
        "tool_calls",
        Usage(3, 4),
        "m",
    )
    said = Said(response=response, timeline=timeline, delay=0.25)
    asked = body(stream=stream)
    if stream and api.name == "openai.chat":
        asked["stream_options"] = {"include_usage": True}
    found = said_of(api, unmarked(api.answer(said, asked, 1)))
    assert found.response == response
    assert found.timeline == (timeline if stream else None)
    assert found.delay == (0.25 if stream else 1.0)


def test_an_answer_without_events_has_no_tokens() -> None:
    """And stays as it is."""
    answer = WireAnswer.of_json({"choices": []})
    assert marked(APIS[0], answer) is answer


@by_api
def test_what_is_no_event_is_no_token(api) -> None:
    """Comments, broken JSON, bytes that are no text."""
    parts = [b": ping\n\n", b"data: {oops\n\n", b"\xff\n\n", b"data: [1]\n\n"]
    answer = WireAnswer.of_events([(0.0, part) for part in parts])
    assert marked(api, answer) == answer


@by_api
def test_apis_are_known_by_their_paths(api) -> None:
    """At any host, below any path; others are not known."""
    url = f"https://gateway.example/proxy{PATHS[api.name]}?api-version=1"
    found = api_for("POST", url)
    assert found is not None
    assert found.name == api.name
    assert api_for("GET", url) is None


@by_api
def test_the_recording_answers_for_what_was_said_alone(api) -> None:
    """Another text, or another body, is answered as the provider would."""
    said, asked = Said(response=LLMResponse("hi")), body(stream=False)
    recorded = WireAnswer.of_json({"recorded": True})
    taped = TapedApi(api, said, asked, recorded)
    other = Said(response=LLMResponse("ho"))
    assert taped.answer(said, asked, 1) is recorded
    assert taped.answer(other, asked, 1) == api.answer(other, asked, 1)
    streamed = body(stream=True)
    assert taped.answer(said, streamed, 1) == api.answer(said, streamed, 1)
    assert taped.serves("POST", PATHS[api.name])
    assert taped.request(asked) == api.request(asked)
    assert taped.streams(streamed)
    assert taped.empty(asked, 1) == api.empty(asked, 1)
    assert taped.error("rate_limit") == api.error("rate_limit")
    assert taped.error_event("overloaded") == api.error_event("overloaded")
