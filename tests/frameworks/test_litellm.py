"""LiteLLM over providers that say what the test wrote down, also under aiohttp."""

from __future__ import annotations

import pytest

from pytest_tta.faults import length, no_finish, rate_limit, stream_cut
from tta_primitives import WorkflowContext, step

WHY = "has an environment of its own: tests/frameworks/test_environments.py"
litellm = pytest.importorskip("litellm", reason=WHY)

from litellm.exceptions import MidStreamFallbackError  # noqa: E402 - see above
from litellm.litellm_core_utils import logging_worker  # noqa: E402 - see above

# How LiteLLM names the clients that it keeps for vendors without an SDK below.
ASYNC = "async_httpx_client"

MODELS = {"openai": "openai/gpt-5", "anthropic": "anthropic/claude-test"}

both = pytest.mark.parametrize("vendor", MODELS)


@pytest.fixture(autouse=True)
async def stop_logging():
    """End the worker that LiteLLM leaves running on every loop."""
    yield
    await logging_worker.GLOBAL_LOGGING_WORKER.stop()


def request(vendor, **options):
    """Ask one question."""
    asked = [{"role": "user", "content": "6 * 7?"}]
    return litellm.acompletion(
        MODELS[vendor], asked, api_key="sk-test", num_retries=1, **options
    )


@step
async def ask(vendor):
    """Ask as a whole."""
    answer = await request(vendor)
    return answer.choices[0].message.content


@step
async def listen(vendor):
    """Ask for a stream, and join what comes."""
    chunks = await request(vendor, stream=True)
    texts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
    return "".join(texts)


async def run(workflow, vendor):
    """Run one of them by itself."""
    return await workflow.execute(vendor, WorkflowContext())


@both
async def test_a_completion_is_answered(tta_wire, vendor) -> None:
    """As a whole and as a stream."""
    getattr(tta_wire, vendor).reply("forty two").times(2)
    assert await run(ask, vendor) == "forty two"
    assert await run(listen, vendor) == "forty two"


async def test_aiohttp_below_is_never_asked(tta_wire) -> None:
    """Anthropic goes over LiteLLM's own transport, which is not httpx's."""
    tta_wire.anthropic.reply("42")
    assert await run(ask, "anthropic") == "42"
    kept = litellm.in_memory_llm_clients_cache.cache_dict.items()
    below = {
        type(one.client._transport).__name__ for name, one in kept if ASYNC in name
    }
    assert below == {"LiteLLMAiohttpTransport"}


async def test_a_limit_is_waited_for(tta) -> None:
    """By OpenAI's SDK below, for as long as it is told."""
    tta.wire.openai.fails(rate_limit(after=30))
    tta.wire.openai.reply("42")
    assert await run(ask, "openai") == "42"
    assert tta.elapsed == 30
    assert [one.retry_count for one in tta.wire.openai.requests] == [0, 1]


async def test_a_limit_without_the_sdk_is_an_error(tta) -> None:
    """Where LiteLLM speaks Anthropic's API itself."""
    tta.wire.anthropic.fails(rate_limit(after=30))
    with pytest.raises(litellm.RateLimitError, match="rate limit"):
        await run(ask, "anthropic")
    assert len(tta.wire.requests) == 1


@both
async def test_half_an_answer_is_found(tta, vendor) -> None:
    """It is returned like any other."""
    getattr(tta.wire, vendor).fails(length(after_tokens=2), said="one two three")
    assert (await run(ask, vendor)).split() == ["one", "two"]
    assert [one.kind for one in tta.wire.audit()] == ["accepted_bad_answer"]
    tta.wire.tolerate("accepted_bad_answer")


@both
@pytest.mark.parametrize("fault", [no_finish(), stream_cut()], ids=repr)
async def test_a_stream_that_is_cut_is_an_error(tta, vendor, fault) -> None:
    """And no finding, as nobody took it for whole."""
    getattr(tta.wire, vendor).fails(fault, said="one two three")
    with pytest.raises(MidStreamFallbackError, match="APIConnectionError"):
        await run(listen, vendor)
    assert tta.wire.audit() == []
