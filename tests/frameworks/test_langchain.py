"""A chain of LangChain over a provider that says what the test wrote down."""

from __future__ import annotations

import pytest

from pytest_tta import Harness, HarnessError
from pytest_tta.faults import length, no_finish, rate_limit, stream_cut

WHY = "has an environment of its own: tests/frameworks/test_environments.py"
openai = pytest.importorskip("langchain_openai", reason=WHY)
anthropic = pytest.importorskip("langchain_anthropic", reason=WHY)

from langchain_core.output_parsers import StrOutputParser  # noqa: E402 - see above
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402 - see above

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Be brief."), ("user", "{question}")]
)
# At import, as an application does it.
MODELS = {
    "openai": openai.ChatOpenAI(model="gpt-5", api_key="sk-test"),
    "anthropic": anthropic.ChatAnthropic(model="claude-test", api_key="sk-test"),
}
CHAINS = {name: PROMPT | model | StrOutputParser() for name, model in MODELS.items()}

both = pytest.mark.parametrize("vendor", CHAINS)


async def ask(vendor):
    """Ask as a whole."""
    return await CHAINS[vendor].ainvoke({"question": "6 * 7?"})


async def listen(vendor):
    """Ask for a stream, and join what comes."""
    chunks = CHAINS[vendor].astream({"question": "6 * 7?"})
    return "".join([chunk async for chunk in chunks])


@both
async def test_a_chain_is_answered(tta_wire, vendor) -> None:
    """What is asked is what the chain's prompt says."""
    provider = getattr(tta_wire, vendor)
    provider.when(contains="Be brief.").reply("42").times(2)
    assert await ask(vendor) == "42"
    assert await listen(vendor) == "42"
    assert [one.json.get("stream", False) for one in provider.requests] == [False, True]


@both
async def test_the_blocking_half_is_answered(tta_wire, vendor) -> None:
    """`invoke` goes through the SDK's other client."""
    getattr(tta_wire, vendor).reply("42")
    assert CHAINS[vendor].invoke({"question": "6 * 7?"}) == "42"


@both
async def test_a_limit_is_waited_for(tta, vendor) -> None:
    """By the SDK below, for as long as it is told."""
    provider = getattr(tta.wire, vendor)
    provider.fails(rate_limit(after=30))
    provider.reply("42")
    assert await ask(vendor) == "42"
    assert tta.elapsed == 30
    assert [one.retry_count for one in provider.requests] == [0, 1]


@both
def test_half_an_answer_is_found(tta, vendor) -> None:
    """The parser makes a text of it as of any other."""
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
    with pytest.raises(Exception, match=r"Connection error|peer closed connection"):
        tta.run(listen, vendor)
    assert tta.wire.audit() == []


@both
def test_an_unexpected_call_fails_the_test(vendor) -> None:
    """LangChain gathers it with results and stumbles over it; the harness tells."""

    def body() -> None:
        with Harness() as tta:
            rule = getattr(tta.wire, vendor).when(contains="weather").reply("Sunny.")
            rule.optional()
            with pytest.raises(AttributeError, match="'UnexpectedCall' object has no"):
                tta.run(ask, vendor)
            assert len(tta.wire.requests) == 1

    with pytest.raises(HarnessError, match=r"not scripted .*\n.*user: '6 \* 7\?'"):
        body()
