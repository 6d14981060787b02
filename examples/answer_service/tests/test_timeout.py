"""A limit inside the retry and one outside of it do different things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta import S
from pytest_tta.faults import first
from tta_primitives import WorkflowContext
from tta_primitives.errors import TimeoutExceededError
from tta_primitives.recovery import TimeoutPrimitive

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta import Harness
    from tta_primitives import WorkflowPrimitive

QUESTION = "How do I test a retry?"


async def test_limit_inside_the_retry_ends_one_attempt(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """A request that hangs is given up after 8 s, and the next one is answered."""
    tta.faults.at("model").hang(when=first(1))
    tta.llm.reply("In virtual time.")

    result = await answer.execute(QUESTION, WorkflowContext())

    assert result.answered_by == "model"
    attempts = tta.trace.spans_at("attempt")
    assert [attempt.status for attempt in attempts] == ["timed_out", "ok"]
    assert attempts[0].duration == 8.0


async def test_limit_outside_the_retry_ends_them_all(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """After 20 s nobody waits for the model any longer, in whichever attempt it is."""
    tta.faults.at("model").hang()

    result = await answer.execute(QUESTION, WorkflowContext())

    assert tta.elapsed == 20.0
    assert result.answered_by == "extract"
    assert result.reason is not None
    assert result.reason.endswith("took longer than 20 s")
    assert tta.trace.find("deadline") == S(
        "deadline", status="timed_out", duration=20.0
    )
    assert len(tta.trace.spans_at("attempt")) == 3


async def test_deadline_of_the_caller_counts_as_well(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """A limit around the whole workflow leaves no time for a fallback either."""
    tta.faults.at("model").hang()
    hurried = TimeoutPrimitive(answer, timeout_seconds=5)

    with pytest.raises(TimeoutExceededError, match="took longer than 5 s"):
        await hurried.execute(QUESTION, WorkflowContext())

    assert tta.elapsed == 5.0
