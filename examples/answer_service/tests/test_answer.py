"""Start here: what a test scripts, runs and looks at.

`answer` is the real workflow with a double in place of the model. `tta` is what a test
holds: `tta.llm` is that double, `tta.clock` the time, `tta.faults` what goes wrong, and
`tta.trace` what happened. A scripted reply that nobody asks for fails the test, as does
a call that nobody scripted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from examples.answer_service.errors import NothingFoundError, QuestionError
from pytest_tta import S, any_order, no
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta import Harness
    from tta_primitives import WorkflowPrimitive

QUESTION = "How do I test a retry?"


async def test_model_answers_from_what_was_found(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """The model is asked once, about the question and the passages found for it."""
    tta.llm.when(contains="an hour of backoff takes no time").reply("In virtual time.")

    result = await answer.execute(QUESTION, WorkflowContext())

    assert result.text == "In virtual time."
    assert result.answered_by == "model"
    assert result.sources[0] == "docs/retry.md: Retry > How to test a retry"
    assert tta.elapsed == 0.0


async def test_trace_is_the_workflow_as_it_ran(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """A trace is compared with a pattern; a mismatch is shown as a tree."""
    tta.llm.reply("In virtual time.", delay=1.5)

    await answer.execute(QUESTION, WorkflowContext())

    assert tta.trace == S(
        "answer",
        S("validate", output=QUESTION),
        S("search"),
        S(
            "parallel",
            # The two branches run side by side, so their order means nothing.
            any_order(S("sources"), S("reply", no("extract"), duration=1.5)),
        ),
        S("format_answer"),
        status="ok",
    )


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("  ", "the question is empty; ask something like"),
        ("why? " * 100, "the question has 499 characters; it may have at most 300"),
        ("How do I do it?", "has no word to look for"),
    ],
)
async def test_bad_question_goes_no_further(
    answer: WorkflowPrimitive[str, Answer], tta: Harness, question: str, sentence: str
) -> None:
    """No other way of answering would help a bad question, so none is tried."""
    with pytest.raises(QuestionError, match=sentence):
        await answer.execute(question, WorkflowContext())
    # A name that the workflow does not have would fail here, too.
    assert tta.trace == S("answer", ..., no("parallel"), status="failed")


async def test_nothing_found_is_no_question_for_the_model(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """Without a passage a model could only make something up."""
    with pytest.raises(NothingFoundError, match="says nothing about whales, sing"):
        await answer.execute("Why do whales sing?", WorkflowContext())
    assert not tta.llm.calls


async def test_cancelled_question_stops_everything(
    answer: WorkflowPrimitive[str, Answer], tta: Harness
) -> None:
    """Cancellation is not a failure: nothing is retried, and no fallback runs."""
    tta.llm.reply("Too late.", delay=5)
    task = asyncio.create_task(answer.execute(QUESTION, WorkflowContext()))
    await asyncio.sleep(2)

    task.cancel()
    with pytest.raises(asyncio.CancelledError, match=r"^$"):
        await task

    assert tta.elapsed == 2.0
    assert tta.trace == S("answer", ..., no("extract"), status="cancelled")
    assert len(tta.llm.calls) == 1
