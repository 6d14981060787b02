"""Answers with status 200 that are none: each has an error with a name of its own."""

from __future__ import annotations

import json

import pytest

from pytest_tta.wire.exchange import WireAnswer
from tests.llm.bodies import APIS, BODIES, served, whole
from tta_primitives import WorkflowContext
from tta_primitives.errors import PrimitiveError
from tta_primitives.llm import (
    BrokenToolCallError,
    EmptyResponseError,
    IncompleteResponseError,
    MalformedResponseError,
    ResponseFailedError,
    ResponseFilteredError,
    ResponseRefusedError,
    ResponseTruncatedError,
    Tool,
)
from tta_primitives.recovery.classify import is_retryable

WEATHER = Tool("get_weather")
JSON = "application/json"


def body(data, content_type=JSON):
    """Return an answer with these bytes."""
    return WireAnswer.of_bytes(data, content_type)


async def asked(api, answer, **options):
    """Ask once; return the error."""
    async with served(api, answer, **options) as (llm, seen):
        with pytest.raises(PrimitiveError, match="llm: the answer of ") as caught:
            await llm.execute("Hi", WorkflowContext())
    assert len(seen) == 1
    return caught.value


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", json.JSONDecodeError),
        (b'{"id": "x", "cho', json.JSONDecodeError),
        (b'{"id": "\xff\xfe"}', UnicodeDecodeError),
    ],
    ids=["empty", "cut", "bad utf-8"],
)
async def test_body_that_is_no_json_is_malformed(api, data, cause) -> None:
    """The SDKs let the error of their parser through; it becomes the cause."""
    error = await asked(api, body(data))
    assert type(error) is MalformedResponseError
    assert isinstance(error.__cause__, cause)
    assert "the body is no JSON" in str(error)
    assert is_retryable(error)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("data", "content_type", "shown"),
    [
        (b"<html>Sign in to the network</html>", "text/html", "<html>Sign in to"),
        (b"null", JSON, "None"),
        (b"[1, 2]", JSON, "[1, 2]"),
        (b'{"ok": true}', JSON, "is no answer of this API"),
    ],
    ids=["html", "null", "list", "other object"],
)
async def test_body_that_is_no_answer_is_malformed(
    api, data, content_type, shown
) -> None:
    """What the SDKs return as it is would else break the next step."""
    error = await asked(api, body(data, content_type))
    assert type(error) is MalformedResponseError
    assert shown in str(error)
    assert "base_url" in str(error)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("on_incomplete", ["raise", "return"])
async def test_error_in_an_answer_is_raised(api, on_incomplete) -> None:
    """There is nothing to return, so it is raised in any case."""
    told = {"type": "server_error", "message": "try again", "code": None}
    answer = WireAnswer.of_json({"error": told})
    error = await asked(api, answer, on_incomplete=on_incomplete)
    assert type(error) is ResponseFailedError
    assert (error.code, error.finish_reason) == ("server_error", "unknown")
    assert "try again" in str(error)
    assert is_retryable(error)


@pytest.mark.parametrize(
    ("told", "retryable"),
    [
        ({"code": "insufficient_quota", "message": "pay"}, False),
        ({"code": "context_length_exceeded", "message": "shorter"}, False),
        ({"type": "invalid_request_error", "message": "no"}, False),
        ({"code": 402, "message": "credits"}, False),
        ({"code": 429, "message": "slower"}, True),
        ({"code": 502, "message": "upstream"}, True),
        ({"code": "rate_limit_exceeded", "message": "slower"}, True),
        ("upstream has gone", True),
    ],
)
async def test_error_in_an_answer_tells_whether_it_may_pass(told, retryable) -> None:
    """Gateways answer 200 for what would be another status at the provider."""
    error = await asked("chat", WireAnswer.of_json({"error": told}))
    assert is_retryable(error) is retryable


async def test_error_of_a_choice_is_an_error() -> None:
    """OpenRouter reports there what went wrong while the model wrote."""
    answer = BODIES["chat"]("Hel", "error")
    answer["choices"][0]["error"] = {"code": 502, "message": "upstream broke"}
    error = await asked("chat", WireAnswer.of_json(answer))
    assert (type(error), error.code) == (ResponseFailedError, "502")
    assert error.response.content == "Hel"


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("chat", BODIES["chat"](choices=[])),
        ("chat", BODIES["chat"](choices=None)),
        ("chat", BODIES["chat"](None)),
        ("chat", BODIES["chat"](" \n")),
        ("responses", BODIES["responses"](None)),
        ("responses", BODIES["responses"](output=None)),
        ("anthropic", BODIES["anthropic"](None)),
        ("anthropic", BODIES["anthropic"]("")),
        ("anthropic", BODIES["anthropic"](content=None)),
    ],
)
async def test_answer_without_content_is_empty(api, answer) -> None:
    """No choice, no text, blanks: nothing to go on with, and worth another attempt."""
    error = await asked(api, WireAnswer.of_json(answer))
    assert type(error) is EmptyResponseError
    assert is_retryable(error)


INCOMPLETE = {"incomplete_details": {"reason": "max_output_tokens"}}
FILTERED = {"incomplete_details": {"reason": "content_filter"}}
REFUSAL = [{"type": "refusal", "refusal": "I cannot help."}]
REFUSED = [{"type": "message", "role": "assistant", "id": "m", "content": REFUSAL}]


@pytest.mark.parametrize(
    ("api", "answer", "reason", "kind"),
    [
        ("chat", whole("chat", "Hel", "length"), "length", ResponseTruncatedError),
        (
            "responses",
            whole("responses", "Hel", "incomplete", **INCOMPLETE),
            "length",
            ResponseTruncatedError,
        ),
        (
            "anthropic",
            whole("anthropic", "Hel", "max_tokens"),
            "length",
            ResponseTruncatedError,
        ),
        (
            "anthropic",
            whole("anthropic", "Hel", "model_context_window_exceeded"),
            "length",
            ResponseTruncatedError,
        ),
        (
            "chat",
            whole("chat", "Hel", "content_filter"),
            "content_filter",
            ResponseFilteredError,
        ),
        (
            "responses",
            whole("responses", "Hel", "incomplete", **FILTERED),
            "content_filter",
            ResponseFilteredError,
        ),
        (
            "chat",
            whole("chat", None, "stop", refusal="I cannot help."),
            "refusal",
            ResponseRefusedError,
        ),
        (
            "responses",
            whole("responses", output=REFUSED),
            "refusal",
            ResponseRefusedError,
        ),
        (
            "anthropic",
            whole("anthropic", None, "refusal", stop_details={"category": "cyber"}),
            "refusal",
            ResponseRefusedError,
        ),
    ],
)
async def test_what_would_come_again_is_not_retryable(
    api, answer, reason, kind
) -> None:
    """Truncated, filtered, refused: the same question gets the same answer."""
    error = await asked(api, answer)
    assert (type(error), error.finish_reason) == (kind, reason)
    assert not is_retryable(error)
    async with served(api, answer, on_incomplete="return") as (llm, _):
        response = await llm.execute("Hi", WorkflowContext())
    assert response == error.response
    assert not response.is_complete


async def test_refusal_says_what_the_model_said() -> None:
    """The words of the refusal are the content, its category is in the text."""
    answer = whole("chat", None, "stop", refusal="I cannot help.")
    assert (await asked("chat", answer)).response.content == "I cannot help."
    details = {"type": "refusal", "category": "cyber"}
    answer = whole("anthropic", None, "refusal", stop_details=details)
    assert "(refusal, cyber)" in str(await asked("anthropic", answer))


async def test_truncated_answer_says_what_to_do() -> None:
    """The text has model, path, tokens and the argument to raise."""
    error = await asked("chat", whole("chat", "Hel", "length"))
    assert str(error) == (
        "llm: the answer of gpt-5 was cut off after 3 tokens (length): raise "
        "max_output_tokens=, or ask for less"
    )
    assert error.response.content == "Hel"


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("anthropic", whole("anthropic", "Hel", "pause_turn")),
        ("chat", whole("chat", "Hel", None)),
        ("chat", whole("chat", "Hel", "weather")),
        ("responses", whole("responses", "Hel", "in_progress")),
        ("responses", whole("responses", "Hel", "cancelled")),
    ],
)
async def test_other_reasons_are_not_taken_for_an_end(api, answer) -> None:
    """What does not say that the answer is whole is an error, and may be retried."""
    error = await asked(api, answer)
    assert (type(error), error.finish_reason) == (IncompleteResponseError, "unknown")
    assert is_retryable(error)


async def test_failed_response_is_an_error() -> None:
    """The Responses API tells of a failure with status 200."""
    told = {"code": "server_error", "message": "The model failed."}
    answer = whole("responses", None, "failed", error=told)
    error = await asked("responses", answer)
    assert (type(error), error.code) == (ResponseFailedError, "server_error")
    assert "The model failed." in str(error)
    bare = await asked("responses", whole("responses", None, "failed"))
    assert type(bare) is ResponseFailedError


@pytest.mark.parametrize(
    ("api", "name", "arguments", "shown"),
    [
        ("chat", "get_weather", '{"city": "Par', "no JSON object"),
        ("chat", "get_weather", "[1]", "no JSON object"),
        ("responses", "get_weather", '{"city": "Par', "no JSON object"),
        ("anthropic", "get_weather", "Paris", "no JSON object"),
        ("chat", "launch", "{}", "the tools it was given are: 'get_weather'"),
        ("responses", "launch", "{}", "the tools it was given are: 'get_weather'"),
        ("anthropic", "launch", {}, "the tools it was given are: 'get_weather'"),
        ("chat", "", "{}", "no JSON object"),
    ],
)
async def test_tool_call_that_cannot_be_done_is_broken(
    api, name, arguments, shown
) -> None:
    """Bad arguments and unknown tools: never a call that is silently dropped."""
    finish = {"chat": "tool_calls", "responses": "completed", "anthropic": "tool_use"}
    call = ("call_1", name, arguments)
    answer = whole(api, None, finish[api], tool_calls=[call])
    error = await asked(api, answer, tools=[WEATHER])
    assert type(error) is BrokenToolCallError
    assert shown in str(error)
    assert is_retryable(error)


async def test_broken_arguments_are_kept_as_they_came() -> None:
    """Who wants it returned sees the text that the model wrote."""
    call = ("call_1", "get_weather", '{"city": "Par')
    answer = whole("chat", None, "tool_calls", tool_calls=[call])
    options = {"tools": [WEATHER], "on_incomplete": "return"}
    async with served("chat", answer, **options) as (llm, _):
        response = await llm.execute("Hi", WorkflowContext())
    assert response.tool_calls[0].broken_arguments == '{"city": "Par'
    assert not response.is_complete


async def test_call_of_tools_without_a_call_is_broken() -> None:
    """A finish reason that promises calls, and none there."""
    error = await asked("chat", whole("chat", "I look.", "tool_calls"))
    assert type(error) is BrokenToolCallError
    assert "calls none" in str(error)


async def test_tools_in_a_vendors_words_are_not_checked() -> None:
    """Their names are not known here, so that no call of them is refused."""
    tool = {"type": "function", "function": {"name": "launch"}}
    answer = whole("chat", None, "tool_calls", tool_calls=[("c", "launch", "{}")])
    async with served("chat", answer, options={"tools": [tool]}) as (llm, _):
        response = await llm.execute("Hi", WorkflowContext())
    assert response.tool_calls[0].name == "launch"
