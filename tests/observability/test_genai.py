"""Spans of language models have the names and attributes of OpenTelemetry."""

from __future__ import annotations

import json

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from tests.span_memory import attributes, remembering
from tta_primitives import WorkflowContext, step
from tta_primitives.llm import (
    AnthropicPrimitive,
    LLMRequest,
    Message,
    OpenAIPrimitive,
    ResponseTruncatedError,
)
from tta_primitives.recovery import RetryPrimitive

KEY = "sk-test-0123456789abcdefghij"
KNOWN = {
    value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_")
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Leave out what this machine says of providers."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def llm(**options) -> OpenAIPrimitive:
    return OpenAIPrimitive(KEY, model="gpt-4.1-mini", **options).named("llm")


async def test_call_of_a_model_is_a_span_of_a_client(tta):
    """Operation, provider, models, tokens and server, all of them names that exist."""
    tta.wire.openai.reply("Paris.")
    asked = llm(
        temperature=0.5,
        max_output_tokens=100,
        options={"top_p": 0.9, "seed": 7, "stop": "END", "user": "u"},
    )
    with remembering() as memory:
        await asked.execute("Capital of France?", WorkflowContext(session_id="s-1"))
    (span,) = memory.spans
    assert span.name == "chat gpt-4.1-mini"
    assert span.kind is SpanKind.CLIENT
    told = attributes(span)
    model = {k: v for k, v in told.items() if not k.startswith("tta.")}
    usage = {k: v for k, v in model.items() if ".usage." in k}
    assert set(usage) == {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}
    assert all(value > 0 for value in usage.values())
    assert model.pop("gen_ai.response.model").startswith("gpt-4.1-mini")
    assert {k: v for k, v in model.items() if k not in usage} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.conversation.id": "s-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    assert {k for k in model if k.startswith("gen_ai.")} <= KNOWN
    assert (told["tta.path"], told["tta.primitive"]) == ("llm", "OpenAIPrimitive")
    assert "France" not in memory.text()
    assert "Paris" not in memory.text()
    assert KEY not in memory.text()


async def test_server_is_the_one_that_is_asked(tta):
    """Also one behind a gateway, whose credentials are not told."""
    tta.wire.host("https://gateway.example:8443/v1").reply("ok")
    with remembering() as memory:
        await llm(base_url="https://user:hunter2@gateway.example:8443/v1").execute(
            "hello", WorkflowContext()
        )
    told = attributes(memory.spans[0])
    assert told["server.address"] == "gateway.example"
    assert told["server.port"] == 8443
    assert "hunter2" not in memory.text()


async def test_model_that_a_request_names_tells_no_secret(tta):
    """Neither the span's name nor what the provider repeats of it."""
    tta.wire.openai.reply("ok")
    request = LLMRequest((Message("user", "hi"),), model=f"gpt {KEY}")
    with remembering() as memory:
        await llm().execute(request, WorkflowContext())
    told = attributes(memory.spans[0])
    assert told["gen_ai.request.model"].startswith("gpt ")
    assert "gen_ai.response.model" in told
    assert KEY not in memory.text()


async def test_stream_tells_that_it_is_one_and_when_it_began(tta):
    """The time to the first chunk is in seconds."""
    tta.wire.openai.reply("Paris it is.")
    with remembering() as memory:
        async for _ in llm().stream("Capital?", WorkflowContext()):
            pass
    told = attributes(memory.spans[0])
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.time_to_first_chunk"] >= 0
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.usage.output_tokens"] > 0


async def test_anthropic_is_told_by_its_name(tta):
    """Provider and server are those of the vendor."""
    tta.wire.anthropic.reply("Hello.")
    with remembering() as memory:
        await AnthropicPrimitive(KEY, model="claude-x").execute("hi", WorkflowContext())
    told = attributes(memory.spans[0])
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["server.address"] == "api.anthropic.com"
    assert memory.spans[0].name == "chat claude-x"


async def test_failed_answer_tells_its_error_and_what_it_took(tta):
    """Tokens of an answer that is cut off are paid for, too."""
    tta.wire.openai.reply("Par", finish_reason="length")
    with (
        remembering() as memory,
        pytest.raises(ResponseTruncatedError, match="cut"),
    ):
        await llm().execute("Capital?", WorkflowContext())
    (span,) = memory.spans
    told = attributes(span)
    assert span.status.status_code is StatusCode.ERROR
    assert told["error.type"].endswith("ResponseTruncatedError")
    assert told["gen_ai.response.finish_reasons"] == ("length",)
    assert told["gen_ai.usage.input_tokens"] > 0


async def test_attempts_are_spans_of_their_own(tta):
    """The retry around a model is the logical operation."""
    tta.wire.openai.reply("ok")
    with remembering() as memory:
        await RetryPrimitive(step(lambda v: v) >> llm()).execute("q", WorkflowContext())
    assert memory.parent_of("chat gpt-4.1-mini") == "sequential"


async def test_request_that_cannot_be_read_is_still_a_span(tta):
    """It has the primitive's name, and the error that the call raises."""
    with (
        remembering() as memory,
        pytest.raises(TypeError, match="no request to a model"),
    ):
        await llm().execute(7, WorkflowContext())
    assert memory.named("llm").kind is SpanKind.CLIENT
    assert attributes(memory.named("llm"))["error.type"] == "TypeError"


async def test_messages_are_told_only_if_wanted_and_without_secrets(tta):
    """As JSON in the form of the conventions."""
    tta.wire.openai.reply(f"Your key {KEY} is fine.")
    request = LLMRequest(
        (
            Message("system", "Be brief."),
            Message("user", f"Is {KEY} my key?"),
        )
    )
    with remembering(content_length=1000) as memory:
        await llm().execute(request, WorkflowContext())
    told = attributes(memory.spans[0])
    assert json.loads(told["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "Be brief."}
    ]
    assert json.loads(told["gen_ai.input.messages"]) == [
        {
            "role": "user",
            "parts": [{"type": "text", "content": "Is [redacted] my key?"}],
        }
    ]
    assert json.loads(told["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Your key [redacted] is fine."}],
            "finish_reason": "stop",
        }
    ]
    assert KEY not in memory.text()


async def test_messages_of_a_stream_are_told_if_wanted(tta):
    """What was streamed is put together."""
    tta.wire.openai.reply("Paris it is.")
    with remembering(content_length=1000) as memory:
        async for _ in llm().stream("Capital?", WorkflowContext()):
            pass
    (message,) = json.loads(attributes(memory.spans[0])["gen_ai.output.messages"])
    assert message["parts"] == [{"type": "text", "content": "Paris it is."}]
