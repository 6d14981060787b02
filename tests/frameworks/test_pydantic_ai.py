"""An agent of pydantic-ai over a provider that says what the test wrote down."""

from __future__ import annotations

import pytest

from pytest_tta.faults import empty_choices, length, no_finish, rate_limit, stream_cut

WHY = "has an environment of its own: tests/frameworks/test_environments.py"
pydantic_ai = pytest.importorskip("pydantic_ai", reason=WHY)

from pydantic_ai.exceptions import ModelConnectionError  # noqa: E402 - see above
from pydantic_ai.models.anthropic import AnthropicModel  # noqa: E402 - see above
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402 - see above
from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: E402 - see above
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402 - see above


def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"no clouds above {city}"


MODELS = {
    "openai": OpenAIChatModel("gpt-5", provider=OpenAIProvider(api_key="sk-test")),
    "anthropic": AnthropicModel(
        "claude-test", provider=AnthropicProvider(api_key="sk-test")
    ),
}
AGENTS = {
    name: pydantic_ai.Agent(model, instructions="Be brief.", tools=[get_weather])
    for name, model in MODELS.items()
}

both = pytest.mark.parametrize("vendor", AGENTS)


async def ask(vendor):
    """Ask as a whole."""
    return (await AGENTS[vendor].run("The weather in Paris?")).output


async def listen(vendor):
    """Ask for a stream, and join what comes."""
    async with AGENTS[vendor].run_stream("The weather in Paris?") as result:
        return "".join([text async for text in result.stream_text(delta=True)])


@both
async def test_an_agent_calls_its_tool(tta_wire, vendor) -> None:
    """The model asks for it, is told what it found, and answers."""
    provider = getattr(tta_wire, vendor)
    provider.when(contains="no clouds above Paris").reply("Sunny.")
    provider.calls_tool("get_weather", city="Paris")
    assert await ask(vendor) == "Sunny."
    assert len(provider.requests) == 2


@both
async def test_a_streamed_answer_comes_in_pieces(tta_wire, vendor) -> None:
    """With the tool before it."""
    provider = getattr(tta_wire, vendor)
    provider.calls_tool("get_weather", city="Paris")
    provider.reply(stream="Sunny, I think.", first_token_after=1)
    assert await listen(vendor) == "Sunny, I think."


@both
async def test_a_limit_is_waited_for(tta, vendor) -> None:
    """By the SDK below, for as long as it is told."""
    provider = getattr(tta.wire, vendor)
    provider.fails(rate_limit(after=30))
    provider.reply("Sunny.")
    assert await ask(vendor) == "Sunny."
    assert tta.elapsed == 30
    assert [one.retry_count for one in provider.requests] == [0, 1]


@both
def test_half_an_answer_is_found(tta, vendor) -> None:
    """It is returned as the output of the run."""
    getattr(tta.wire, vendor).fails(length(after_tokens=2), said="one two three")
    assert tta.run(ask, vendor).split() == ["one", "two"]
    assert [one.kind for one in tta.wire.audit()] == ["accepted_bad_answer"]
    tta.wire.tolerate("accepted_bad_answer")


@both
def test_a_stream_without_an_end_is_found(tta, vendor) -> None:
    """Nothing is raised where the reason is missing why it ended."""
    getattr(tta.wire, vendor).fails(no_finish(), said="one two three")
    assert tta.run(listen, vendor) == "one two three"
    assert [one.kind for one in tta.wire.audit()] == ["accepted_bad_answer"]
    tta.wire.tolerate("accepted_bad_answer")


@both
def test_a_stream_that_is_cut_is_an_error(tta, vendor) -> None:
    """And no finding, as nobody took it for whole."""
    getattr(tta.wire, vendor).fails(stream_cut(), said="one two three")
    with pytest.raises(ModelConnectionError, match=r"Connection error|peer closed"):
        tta.run(listen, vendor)
    assert tta.wire.audit() == []


def test_an_answer_without_choices_is_an_error(tta) -> None:
    """Which one is for the framework to say: here an index that there is not."""
    tta.wire.openai.fails(empty_choices())
    with pytest.raises(IndexError, match="list index out of range"):
        tta.run(ask, "openai")
    assert tta.wire.audit() == []
