"""Plain code over OpenAI's SDK, tested as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from examples.support_desk.desk import AnswerCutError, answer, speak
from pytest_tta.faults import first, length, no_finish, rate_limit, stream_cut

if TYPE_CHECKING:
    from pytest_tta import Harness
    from pytest_tta.wire.wire import Wire


async def test_order_is_looked_up(tta_wire: Wire) -> None:
    """The model asks for the tool, and what it finds is in the next request."""
    tta_wire.openai.calls_tool("order_status", order="7")
    tta_wire.openai.when(contains="expected on Friday").reply("It comes on Friday.")
    assert await answer("Where is order 7?") == "It comes on Friday."


async def test_model_that_only_asks_is_stopped(tta_wire: Wire) -> None:
    """Four requests, and a colleague takes over."""
    tta_wire.openai.calls_tool("order_status", order="9").times(4)
    assert (await answer("Where is order 9?")).startswith("I could not find out.")


async def test_limit_is_waited_for(tta: Harness) -> None:
    """The SDK retries by itself, as late as it is told: 40 seconds, over at once."""
    tta.wire.openai.inject(rate_limit(after=20), when=first(2))
    tta.wire.openai.reply("Hello.")
    assert await answer("Hello?") == "Hello."
    assert tta.elapsed == 40
    assert [one.retry_count for one in tta.wire.requests] == [0, 1, 2]


async def test_silent_provider_costs_three_timeouts(tta: Harness) -> None:
    """Each attempt ends at its 20th second; between them the SDK pauses shortly."""
    tta.wire.openai.reply("too late", delay=60).times(3)
    with pytest.raises(openai.APITimeoutError, match="timed out"):
        await answer("Hello?")
    assert [one.took for one in tta.wire.exchanges] == pytest.approx([20, 20, 20])


def test_half_an_answer_is_an_error(tta: Harness) -> None:
    """Without the look at `finish_reason` the audit would fail this test."""
    tta.wire.openai.fails(length(after_tokens=2), said="It comes on Friday.")
    with pytest.raises(AnswerCutError, match="It comes"):
        tta.run(answer, "Where is order 7?")


async def test_words_come_one_by_one(tta: Harness) -> None:
    """At their times."""
    tta.wire.openai.reply(stream="It is on its way.", tokens_per_second=10)
    assert [word async for word in speak("Where is it?")][:2] == ["It ", "is "]
    assert tta.elapsed == pytest.approx(0.4)


async def test_words_that_never_came_are_missed(tta_wire: Wire) -> None:
    """The connection ends as if nothing were wrong, and only the reason is missing."""
    tta_wire.openai.fails(no_finish(), said="It is on its way.")
    with pytest.raises(AnswerCutError, match="None"):
        [word async for word in speak("Where is it?")]


async def test_lost_connection_is_an_error(tta_wire: Wire) -> None:
    """The SDK retries nothing of which it has given away the beginning."""
    tta_wire.openai.fails(stream_cut(after_tokens=2), said="It is on its way.")
    with pytest.raises(openai.APIConnectionError, match="Connection error"):
        [word async for word in speak("Where is it?")]
    assert len(tta_wire.requests) == 1
