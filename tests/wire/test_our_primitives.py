"""Our LLM primitives above the fake providers: each fault is an error with a name."""

from __future__ import annotations

import logging

import openai
import pytest

from pytest_tta.faults import (
    content_filter,
    empty_choices,
    error_in_200,
    first,
    html_200,
    length,
    malformed_json,
    no_finish,
    overloaded,
    rate_limit,
    refusal,
    stall,
    stream_cut,
    tool_args,
)
from pytest_tta.harness import Harness
from tta_primitives import WorkflowContext
from tta_primitives.llm import (
    AnthropicPrimitive,
    LLMResponse,
    OpenAIPrimitive,
    Tool,
    ToolCall,
    errors,
)
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive, TimeoutPrimitive

KEY = "sk-planted-9876543210"
WEATHER = Tool("get_weather", "Look the weather up.", {"type": "object"})
CALLS = LLMResponse(
    tool_calls=(ToolCall("get_weather", {"city": "Paris"}),), finish_reason="tool_calls"
)


def chat(**options):
    """Return a primitive for OpenAI's chat completions."""
    return OpenAIPrimitive(KEY, model="gpt-5", **options)


def responses(**options):
    """Return a primitive for OpenAI's newer API."""
    return OpenAIPrimitive(KEY, model="gpt-5", api="responses", **options)


def claude(**options):
    """Return a primitive for Anthropic."""
    return AnthropicPrimitive(KEY, model="claude-opus", **options)


def provider_of(tta, make):
    """Return the provider that a primitive asks."""
    return tta.wire.anthropic if make is claude else tta.wire.openai


every_api = pytest.mark.parametrize("make", [chat, responses, claude])


@pytest.fixture
def tta():
    """Enter a harness that the test leaves by itself."""
    with Harness() as harness:
        yield harness


@every_api
def test_an_hour_is_waited_for_to_the_second(tta, make) -> None:
    """Retry-After of 3 600 s, with our retry, and none of the SDK's."""
    provider = provider_of(tta, make)
    provider.fails(rate_limit(after=3600))
    provider.reply("at last")
    retried = RetryPrimitive(make(), max_retry_after=None, jitter="none")
    assert str(tta.run(retried, "x")) == "at last"
    assert tta.elapsed == 3600.0
    assert [one.retry_count for one in provider.requests] == [0, 0]


@every_api
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (length(), errors.ResponseTruncatedError),
        (
            content_filter(where="answer"),
            # Anthropic calls both a refusal.
            (errors.ResponseFilteredError, errors.ResponseRefusedError),
        ),
        (refusal(), errors.ResponseRefusedError),
        (empty_choices(), errors.IncompleteResponseError),
        (error_in_200(), errors.ResponseFailedError),
        (html_200(), errors.MalformedResponseError),
        (malformed_json(), errors.MalformedResponseError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_no_good_answer_is_an_error_with_a_name(tta, make, fault, kind) -> None:
    """Never a success; the audit has nothing to find."""
    provider_of(tta, make).fails(fault)
    with pytest.raises(kind, match=r"answer of (gpt-5|claude-opus)") as caught:
        tta.run(make(), "x")
    assert KEY not in repr(caught.value)
    assert tta.wire.audit() == []


@every_api
@pytest.mark.parametrize("how", ["closed", "reset", "clean"])
def test_a_stream_that_is_cut_is_an_error_with_what_had_come(tta, make, how) -> None:
    """However it is cut; what had come was handed on."""
    provider_of(tta, make).fails(stream_cut(2, how), said="one two three four")
    llm, got = make(), []

    async def read(question):
        context = WorkflowContext()
        async for text in llm.stream(question, context):
            got.append(text)  # noqa: PERF401 - what had come is to be seen

    with pytest.raises(
        (errors.StreamEndedError, openai.APIError), match=r"cut|ended|rror"
    ):
        tta.run(read, "x")
    assert "".join(got).strip() == "one two"
    assert tta.wire.audit() == []


@every_api
def test_a_stream_without_an_end_is_no_whole_answer(tta, make) -> None:
    """All the text has come, and nobody said that it is all."""
    provider_of(tta, make).fails(no_finish(), said="one two")

    async def read(question):
        return [text async for text in make().stream(question, WorkflowContext())]

    with pytest.raises(errors.StreamEndedError, match="without a finish reason"):
        tta.run(read, "x")


@every_api
def test_broken_arguments_of_a_tool_are_an_error(tta, make) -> None:
    """They are not dropped, and the model is asked again."""
    provider = provider_of(tta, make)
    provider.fails(tool_args(bad="json"), said=CALLS)
    provider.returns(CALLS)
    retried = RetryPrimitive(make(tools=[WEATHER]), initial_delay=0)
    [call] = tta.run(retried, "weather?").tool_calls
    assert dict(call.arguments) == {"city": "Paris"}
    assert len(provider.requests) == 2


@every_api
def test_a_truncated_answer_is_not_asked_for_again(tta, make) -> None:
    """It would be cut in the same place."""
    provider_of(tta, make).fails(length())
    with pytest.raises(errors.ResponseTruncatedError, match="max_output_tokens"):
        tta.run(RetryPrimitive(make(), initial_delay=0), "x")
    assert len(tta.wire.requests) == 1


def test_another_vendor_answers_when_one_is_overloaded(tta) -> None:
    """The whole story: retries, then the other one, in virtual time."""
    tta.wire.anthropic.inject(overloaded(), when=first(3))
    tta.wire.openai.reply("from the other")
    asked = FallbackPrimitive(
        RetryPrimitive(claude(), max_retries=2, jitter="none"), [chat()]
    )
    assert str(tta.run(asked, "x")) == "from the other"
    assert tta.elapsed == 1.5
    assert [one.path for one in tta.wire.requests] == [
        "fallback/retry/anthropic",
        "fallback/retry/anthropic",
        "fallback/retry/anthropic",
        "fallback/openai",
    ]


@every_api
def test_a_limit_of_ours_ends_a_stall_and_closes_the_answer(tta, make) -> None:
    """After ten seconds to the moment."""
    provider_of(tta, make).fails(stall(2), said="one two three")
    llm = make()

    async def read(question):
        limited = TimeoutPrimitive(llm, timeout_seconds=10)
        async for _ in limited.stream(question, WorkflowContext()):
            pass

    with pytest.raises(TimeoutError, match="10 s"):
        tta.run(read, "x")
    assert tta.elapsed == 10.0
    [exchange] = tta.wire.exchanges
    assert exchange.is_closed
    assert tta.wire.audit() == []


@every_api
def test_the_key_is_in_nothing_that_is_kept(tta, make, caplog) -> None:
    """Neither in traces, logs, requests or texts, nor in what describes it."""
    caplog.set_level(logging.DEBUG)
    llm = make()
    provider = provider_of(tta, make)
    provider.fails(rate_limit(after=1))
    provider.reply("fine")
    tta.run(RetryPrimitive(llm), "x")
    kept = [
        repr(llm),
        str(llm.describe()),
        repr(tta.wire.exchanges),
        str([dict(one.headers) for one in tta.wire.requests]),
        tta.trace.outline(),
        repr([span.error for span in tta.trace.spans]),
        caplog.text,
    ]
    assert KEY not in "\n".join(kept)
