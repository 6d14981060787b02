"""Faults and orders of events that nobody has written down: the plugin tries them.

Each test with a marker is executed again and again, with a fault at a request, with
several, in another order, or cancelled at another moment. So each makes its workflow in
its body: a cache that was filled in one execution would answer in the next. What such
a search does not reach by itself is in the tests below, as `pytest --tta-suggest`
proposes them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from examples.answer_service.answer import build_workflow
from examples.answer_service.model import ChatModel
from examples.answer_service.search import Index, search
from pytest_tta.faults import first
from tta_primitives import WorkflowContext
from tta_primitives.errors import RateLimitExceededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.answer_service.answer import Answer
    from examples.answer_service.search import Evidence
    from pytest_tta import Harness
    from tta_primitives import WorkflowPrimitive

    Make = Callable[[Harness], WorkflowPrimitive[str, Answer]]

QUESTION = "How do I test a retry?"


def scripted(tta: Harness) -> WorkflowPrimitive[Evidence, str]:
    """Return a double in the place of the model."""
    tta.llm.reply("In virtual time.").always().optional()
    return tta.llm.primitive("model")


def over_http(_: Harness) -> WorkflowPrimitive[Evidence, str]:
    """Return the real client, which is answered in this process."""
    message = {"message": {"content": "In virtual time."}, "finish_reason": "stop"}
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, json={"choices": [message]})
    )
    client = httpx.AsyncClient(transport=transport, base_url="http://model/v1")
    return ChatModel(client, "small")


@pytest.fixture(params=[scripted, over_http], ids=["scripted", "over HTTP"])
def make(request: pytest.FixtureRequest, index: Index) -> Make:
    """Return what makes a fresh workflow; the index, which never changes, may stay."""

    def fresh(tta: Harness) -> WorkflowPrimitive[str, Answer]:
        return build_workflow(search=search(index), model=request.param(tta))

    return fresh


@pytest.mark.tta_sweep(depth=4, faults=["error", "hang"], strict=True)
@pytest.mark.tta_schedules(50)
def test_everybody_is_answered_in_time(make: Make, tta: Harness) -> None:
    """Whatever becomes of the four requests, and whenever the caller leaves."""
    tta.always(lambda: tta.elapsed <= 20, "the model is waited for 20 s")
    tta.always(
        lambda: len(tta.trace.spans_at("model")) <= 4, "it is asked four times at most"
    )

    result = tta.run(make(tta), QUESTION)

    tta.sometimes("the model answers", result.answered_by == "model")
    tta.sometimes("the page is quoted", result.answered_by == "extract")
    assert result.text == "In virtual time." or result.reason


@pytest.mark.tta_sweep(strict=True)
@pytest.mark.tta_schedules(50)
def test_many_who_ask_at_once_are_told_the_same(make: Make, tta: Harness) -> None:
    """They share what the model says, whoever is first, also if that is nothing."""
    answer = make(tta)

    async def ask_at_once(question: str) -> set[str]:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(answer.execute(question, WorkflowContext()))
                for _ in range(3)
            ]
        return {str(await one) for one in asked}

    assert len(tta.run(ask_at_once, QUESTION)) == 1
    assert len(tta.trace.spans_at("model")) <= 4


@pytest.mark.tta_sweep(strict=True)
@pytest.mark.tta_schedules(50)
def test_only_what_the_model_said_is_kept(make: Make, tta: Harness) -> None:
    """For an hour; where it failed, the next one who asks has it asked again."""
    answer = make(tta)

    async def ask_in_turn(question: str) -> list[str]:
        by = []
        for pause in (1, 3600, 0):
            result = await answer.execute(question, WorkflowContext())
            by.append(result.answered_by)
            await asyncio.sleep(pause)
        return by

    by = tta.run(ask_in_turn, QUESTION)

    cached = [cache.event_names for cache in tta.trace.spans_at("cache")]
    assert ("cache.hit" in cached[1]) == (by[0] == "model")


@pytest.mark.tta_schedules(50)
def test_pause_before_a_retry_can_be_left(make: Make, tta: Harness) -> None:
    """The search cancels at each moment of rest, and one is between two attempts."""
    answer = make(tta)
    tta.faults.at("model").fail(ConnectionError("reset by peer"), when=first(1))
    assert tta.run(answer, QUESTION).answered_by == "model"


def test_hint_of_the_server_is_honoured(make: Make, tta: Harness) -> None:
    """Told to come back in 5 s, the retry waits so long."""
    answer = make(tta)
    busy = RateLimitExceededError("busy", retry_after=5)
    tta.faults.at("model").fail(busy, when=first(1))

    assert tta.run(answer, QUESTION).answered_by == "model"
    assert 5.0 <= tta.elapsed <= 5.5


def test_no_attempt_is_begun_that_cannot_end_in_time(make: Make, tta: Harness) -> None:
    """Told to come back in 30 s, the retry gives up at once, as it has but 20."""
    answer = make(tta)
    tta.faults.at("model").fail(RateLimitExceededError("busy", retry_after=30))

    assert tta.run(answer, QUESTION).answered_by == "extract"
    assert tta.elapsed == 0.0
    [retry] = tta.trace.spans_at("retry")
    assert retry.event_names[-1] == "retry.gave_up"


@pytest.mark.parametrize("place", ["attempt", "model"])
def test_timeout_of_the_model_itself_is_retried(
    make: Make, tta: Harness, place: str
) -> None:
    """A limit of the server's is no limit of ours, but an error like any other."""
    answer = make(tta)
    tta.faults.at(place).fail(TimeoutError("504"))

    result = tta.run(answer, QUESTION)

    assert (result.answered_by, result.reason) == ("extract", "504")
    assert len(tta.trace.spans_at("attempt")) == 4
