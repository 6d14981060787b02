"""Failures that pass: how often, when, and how it is told that they did not pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta import S
from pytest_tta.faults import first
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta import Harness
    from tta_primitives import WorkflowPrimitive

QUESTION = "How do I test a retry?"


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([0.0, 0.167, 1.006], marks=pytest.mark.tta(seed=0)),
        pytest.param([0.0, 0.152, 0.798], marks=pytest.mark.tta(seed=7)),
    ],
    ids=["seed 0", "seed 7"],
)
async def test_retries_come_at_exact_times(
    answer: WorkflowPrimitive[str, Answer], tta: Harness, moments: list[float]
) -> None:
    """The pauses are random, but the chance of a test is seeded: they repeat exactly.

    A seed is set for one test by its marker, for all tests by `--tta-seed`.
    """
    tta.llm.raises(ConnectionError("reset by peer")).times(2)
    tta.llm.reply("In virtual time.")

    result = await answer.execute(QUESTION, WorkflowContext())

    assert result.answered_by == "model"
    attempts = tta.trace.spans_at("model")
    assert [round(attempt.started_at, 3) for attempt in attempts] == moments
    # Full jitter: anywhere between 0 and 0.5 s, then between 0 and 1 s.
    pauses = tta.clock.sleeps.by(kind="sleep")
    assert pauses[0].delay <= 0.5
    assert pauses[1].delay <= 1.0
    # The log knows who waited, by its path in the workflow.
    assert pauses[0].path == "answer/parallel/reply/deadline/cache/retry"


async def test_model_is_asked_four_times_at_most(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """Three retries follow the first attempt; then the documentation is quoted."""
    tta.llm.raises(ConnectionError("reset by peer")).times(4)

    result = await answer.execute(QUESTION, WorkflowContext())

    assert result.answered_by == "extract"
    assert result.reason == "reset by peer"
    [retry] = tta.trace.spans_at("retry")
    assert retry == S("retry", attempts=4, error=ConnectionError)
    assert retry.event_names[-1] == "retry.exhausted"


async def test_lost_answer_is_asked_for_under_the_same_key(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """The model did the work and its answer got lost: the second call must be known.

    A fault is put at a path, without a change to the code. `lost_ack` is the one that
    mocks cannot play: the call is executed, and its caller sees an error.
    """
    tta.llm.reply("In virtual time.").times(2)
    tta.faults.at("model").lost_ack(ConnectionError("reset by peer"), when=first(1))

    result = await answer.execute(QUESTION, WorkflowContext())

    assert result.answered_by == "model"
    lost, again = tta.llm.calls
    assert lost.idempotency_key == again.idempotency_key
    assert lost.idempotency_key is not None
