"""Faults of language models as bytes on the wire, whatever a client makes of them."""

from __future__ import annotations

import json
import re

import pytest

from pytest_tta.faults import (
    bad_utf8,
    crlf,
    length,
    no_event_lines,
    pause_turn,
    refusal,
    slow_first_token,
    split_bytes,
    stream_cut,
    tool_args,
)
from pytest_tta.faults.llm_edits import sliced
from pytest_tta.wire.api import Said, WireStrike
from pytest_tta.wire.exchange import WireAnswer
from pytest_tta.wire.providers.anthropic_messages import AnthropicMessages
from pytest_tta.wire.providers.openai_chat import OpenAIChat
from tests.faults.llm_faults import EVERY
from tta_primitives.llm import LLMResponse, ToolCall

ANSWER = LLMResponse("one two three four", model="m")
CALLS = LLMResponse("", (ToolCall("get", {"city": "Paris"}),), "tool_calls")
BODY = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "?"}],
}
SAID = Said(
    response=ANSWER, timeline=((1.0, "one "), (2.0, "two "), (3.0, "three four"))
)


def strike(*, stream=True, api=None, said=SAID, **body):
    """Return a fault's view of a request."""
    return WireStrike(
        api=api or OpenAIChat(),
        body={**BODY, "stream": stream, **body},
        number=1,
        said=said,
    )


def text_of(answer):
    """Return the pieces of text in a stream of chunks, each with its time."""
    return [
        (at, data.decode())
        for at, part in answer.body
        for data in re.findall(rb'"content":"([^"]+)"', part)
    ]


def test_cut_keeps_the_tokens_before_and_their_times() -> None:
    """A stream is cut after a token, whatever else comes between."""
    answer = stream_cut(2).on_wire(strike())
    assert text_of(answer) == [(1.0, "one "), (2.0, "two ")]
    assert (answer.ending, answer.tail, len(answer.tokens)) == ("closed", 0, 2)
    assert text_of(stream_cut(0).on_wire(strike())) == []
    assert len(text_of(stream_cut(99).on_wire(strike()))) == 3


def test_cut_text_keeps_its_times() -> None:
    """A shorter text comes when its words would have come."""
    answer = length(3).on_wire(strike())
    assert text_of(answer) == [(1.0, "one "), (2.0, "two "), (3.0, "three")]


def test_first_token_is_late_and_the_head_is_not() -> None:
    """All parts from the first token on come later by the same time."""
    answer = slow_first_token(10).on_wire(strike())
    assert answer.head_after == 0
    assert [at for at, _ in text_of(answer)] == [11.0, 12.0, 13.0]
    whole = slow_first_token(10).on_wire(strike(stream=False))
    assert whole.head_after == 13.0


def test_split_bytes_are_the_same_bytes_at_the_same_times() -> None:
    """Other pieces, equal for equal seeds; tokens and tail are where they were."""
    plain, said = strike().answer(), strike()
    split = split_bytes(1).on_wire(said)
    assert b"".join(p for _, p in split.body) == b"".join(p for _, p in plain.body)
    assert split == split_bytes(1).on_wire(said)
    assert split != split_bytes(2).on_wire(said)
    assert len(split.tokens) == len(plain.tokens)
    for index, before in zip(split.tokens, plain.tokens, strict=True):
        assert split.body[index][0] == plain.body[before][0]
    assert split.tail >= plain.tail


def test_tail_of_split_bytes_begins_where_it_began() -> None:
    """What comes at another time is no part of the same piece."""
    events = [(0.0, b"data: a\n\n"), (1.0, b"data: [DONE]\n\n")]
    split = sliced(WireAnswer.of_events(events, tokens=[0], tail=1), seed=3)
    assert b"".join(part for _, part in split.body[-split.tail :]) == events[1][1]
    assert [at for at, _ in split.body[-split.tail :]] == [1.0] * split.tail


def test_garbled_text_has_its_length_told() -> None:
    """Bytes that are no UTF-8 stand within the text, and HTTP is sound."""
    answer = bad_utf8().on_wire(strike(stream=False))
    data = b"".join(part for _, part in answer.body)
    assert b"\xff" in data
    assert answer.length == len(data)


def test_lines_end_otherwise_and_say_the_same() -> None:
    """Only the line ends of a stream change."""
    answer = crlf().on_wire(strike())
    for (_, changed), (_, plain) in zip(
        answer.body, strike().answer().body, strict=True
    ):
        assert changed == plain.replace(b"\n", b"\r\n")


def test_tool_of_the_request_is_called() -> None:
    """On the wire the broken call is of a tool that was offered."""
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
    answer = tool_args("json").on_wire(strike(stream=False, tools=[tool]))
    assert b"get_weather" in answer.body[0][1]


def test_category_of_a_refusal_is_told_by_anthropic_alone() -> None:
    """Its other fields stay as they are."""
    answer = refusal("cyber").on_wire(strike(stream=False, api=AnthropicMessages()))
    details = json.loads(answer.body[0][1])["stop_details"]
    assert (details["type"], details["category"]) == ("refusal", "cyber")
    assert answer.length == len(answer.body[0][1])
    assert b"cyber" not in refusal("cyber").on_wire(strike(stream=False)).body[0][1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (stream_cut(), r"stream_cut\(\) cannot happen to request 1 to openai.chat: "),
        (no_event_lines(), "it is not streamed; send stream=True"),
        (pause_turn(), "only anthropic has it; script another fault"),
    ],
    ids=repr,
)
def test_what_cannot_happen_to_a_request_is_an_error(fault, words) -> None:
    """A fault without effect would let a test pass that shows nothing."""
    assert not fault.applies(strike(stream=False))
    with pytest.raises(ValueError, match=words):
        fault.on_wire(strike(stream=False))


@pytest.mark.parametrize("fault", EVERY, ids=repr)
@pytest.mark.parametrize("api", [OpenAIChat(), AnthropicMessages()], ids=repr)
@pytest.mark.parametrize("stream", [False, True])
def test_same_request_is_struck_in_the_same_bytes(fault, api, stream) -> None:
    """Nothing of a fault is left to chance."""
    asked = strike(stream=stream, api=api)
    if fault.applies(asked):
        answer = fault.on_wire(asked)
        assert isinstance(answer, WireAnswer)
        assert answer == fault.on_wire(asked)


@pytest.mark.parametrize("fault", EVERY, ids=repr)
def test_answer_without_text_can_be_struck_too(fault) -> None:
    """A model that only calls a tool, or says nothing, breaks no fault."""
    for response in (CALLS, LLMResponse()):
        for stream in (False, True):
            asked = strike(stream=stream, said=Said(response=response))
            if fault.applies(asked):
                assert isinstance(fault.on_wire(asked), WireAnswer)
