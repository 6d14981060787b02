"""The neutral types of requests and responses."""

from __future__ import annotations

import dataclasses

import pytest

from tta_primitives.llm import (
    LLMRequest,
    LLMResponse,
    Message,
    Tool,
    ToolCall,
    Usage,
)

HI = Message("user", "Hi")


@pytest.mark.parametrize(
    "value",
    [
        "Hi",
        HI,
        {"role": "user", "content": "Hi"},
        [HI],
        [{"role": "user", "content": "Hi"}],
        {"messages": [{"role": "user", "content": "Hi"}]},
        LLMRequest((HI,)),
    ],
)
def test_a_request_is_made_of_whatever_a_primitive_accepts(value):
    """Text, messages, mappings and requests all mean the same question."""
    assert LLMRequest.of(value) == LLMRequest((HI,))


@pytest.mark.parametrize("value", [None, 3, b"Hi", {"question": "Hi"}])
def test_other_inputs_are_no_request(value):
    """What is no request is shown, with what would be one."""
    with pytest.raises(TypeError, match="is no request to a model; give a text"):
        LLMRequest.of(value)


def test_an_unknown_field_is_named_with_the_known_ones():
    """A misspelt field of a request is an error and never dropped."""
    with pytest.raises(TypeError, match=r"no field 'temprature'; its fields are: mess"):
        LLMRequest.of({"messages": [HI], "temprature": 0})


def test_an_empty_conversation_is_refused():
    """A request without a message asks nothing."""
    with pytest.raises(ValueError, match="must hold at least one message"):
        LLMRequest.of([])


def test_the_text_of_a_request_is_all_that_was_said():
    """The whole text joins the messages; the last user is the last to ask."""
    request = LLMRequest.of(
        [
            Message("system", "Be brief."),
            Message("user", "One?"),
            Message("assistant", ""),
            Message("user", "Two?"),
            Message("tool", "2", tool_call_id="a"),
        ]
    )
    assert request.text == "Be brief.\nOne?\nTwo?\n2"
    assert request.last_user == "Two?"
    assert LLMRequest((Message("system", "Be brief."),)).last_user == ""


def test_usages_add_up():
    """The usage of two calls is the sum of each kind of token."""
    total = Usage(10, 5, cached_tokens=2) + Usage(1, 1)
    assert total == Usage(11, 6, cached_tokens=2)
    assert total.total_tokens == 17


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (LLMResponse("Hi"), True),
        (LLMResponse(tool_calls=(ToolCall("f"),), finish_reason="tool_calls"), True),
        (LLMResponse("Hi", finish_reason="length"), False),
        (LLMResponse("", finish_reason="refusal"), False),
        (
            LLMResponse(
                tool_calls=(ToolCall("f", broken_arguments='{"a":'),),
                finish_reason="tool_calls",
            ),
            False,
        ),
    ],
)
def test_a_response_tells_whether_it_is_whole(response, expected):
    """Truncated, filtered, refused and tool-broken answers are not complete."""
    assert response.is_complete is expected


def test_a_response_reads_as_its_text():
    """`str` of a response is what the model said."""
    assert str(LLMResponse("Hello")) == "Hello"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Message("human", "Hi"),
            r"role='human' must be one of 'sys",
        ),
        (
            lambda: LLMResponse(finish_reason="done"),
            r"finish_reason='done' must",
        ),
        (lambda: Usage(-1), r"input_tokens=-1 must be a whole number of at least 0"),
        (lambda: ToolCall(""), r"name='' must not be empty"),
        (lambda: Tool(""), r"name='' must not be empty"),
        (
            lambda: LLMRequest((HI,), max_output_tokens=0),
            r"max_output_tokens=0 must",
        ),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(make, message):
    """A wrong value fails when the record is made."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Message("user", None), r"content=None must be text, not NoneType"),
        (lambda: Message.of(3), r"message=3 must be a mapping, not int"),
        (lambda: LLMResponse(3), r"content=3 must be text, not int"),
        (lambda: ToolCall("f", "{}"), r"arguments='{}' must be a mapping, not str"),
        (lambda: Tool("f", parameters=3), r"parameters=3 must be a mapping, not int"),
        (lambda: LLMRequest((HI,), options=3), r"options=3 must be a mapping, not int"),
    ],
)
def test_wrong_kinds_are_refused(make, message):
    """A wrong type fails when the record is made."""
    with pytest.raises(TypeError, match=message):
        make()


def test_the_records_cannot_be_changed():
    """A response that two primitives share stays what it was."""
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        LLMResponse("Hi").content = "Bye"
    assert not hasattr(LLMResponse("Hi"), "__dict__")


def test_lists_become_tuples():
    """What was given as a list is kept as a tuple."""
    request = LLMRequest([HI], tools=[Tool("f")])
    assert (request.messages, request.tools) == ((HI,), (Tool("f"),))
    assert Message("assistant", tool_calls=[ToolCall("f")]).tool_calls == (
        ToolCall("f"),
    )
