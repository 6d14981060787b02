"""Hours of cache lifetime, in microseconds and on the dot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta import Harness
    from tta_primitives import WorkflowPrimitive

QUESTION = "How do I test a retry?"


async def test_answer_is_kept_for_an_hour(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """A millisecond before the hour is over it is a hit, on the dot it is a miss."""
    tta.llm.reply("First answer.")
    await answer.execute(QUESTION, WorkflowContext())

    # A plain asyncio.sleep: whatever waits on the loop waits in virtual time.
    await asyncio.sleep(3599.999)
    kept = await answer.execute(QUESTION, WorkflowContext())
    assert kept.text == "First answer."

    tta.llm.reply("Second answer.")
    await asyncio.sleep(0.001)
    fresh = await answer.execute(QUESTION, WorkflowContext())
    assert fresh.text == "Second answer."


async def test_same_question_in_other_blanks_is_a_hit(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """The key is what `validate` and `search` made of the question."""
    tta.llm.reply("In virtual time.")
    await answer.execute(QUESTION, WorkflowContext())

    await answer.execute("  How do I\ttest a retry?\n", WorkflowContext())

    assert len(tta.llm.calls) == 1
    caches = tta.trace.spans_at("cache")
    assert [cache.event_names for cache in caches] == [["cache.miss"], ["cache.hit"]]


async def test_many_who_ask_at_once_share_one_call(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """Of five callers the first is cancelled; the model is asked once, four get it."""
    tta.llm.reply("In virtual time.", delay=3)
    tasks = [
        asyncio.create_task(answer.execute(QUESTION, WorkflowContext()))
        for _ in range(5)
    ]
    await asyncio.sleep(1)
    tasks[0].cancel()

    first, *others = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(first, asyncio.CancelledError)
    assert {str(other) for other in others} == {str(await tasks[1])}
    assert tta.elapsed == 3.0


async def test_emergency_answer_is_not_kept(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """The cache stands inside the fallback: the next caller gets the model again."""
    tta.llm.raises(ConnectionError("reset by peer")).times(4)
    before = await answer.execute(QUESTION, WorkflowContext())
    assert before.answered_by == "extract"

    tta.llm.reply("I am back.")
    after = await answer.execute(QUESTION, WorkflowContext())
    assert after.answered_by == "model"
