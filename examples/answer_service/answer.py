"""The workflow: how the pieces are put together, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.answer_service.errors import ModelNotConfiguredError, QuestionError
from examples.answer_service.extract import extract
from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import (
    FallbackOutcome,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from examples.answer_service.search import Evidence
    from tta_primitives import WorkflowContext, WorkflowPrimitive

__all__ = ["Answer", "build_workflow", "format_answer", "sources", "validate"]

_LONGEST_QUESTION = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answers.

    Attributes:
        text: The answer, in Markdown.
        sources: The passages it is based on, as "file: heading", the best first.
        answered_by: The name of the primitive that answered.
        reason: Why it was not the model that answered; None if it was.
    """

    text: str
    sources: tuple[str, ...]
    answered_by: str
    reason: str | None = None

    def __str__(self) -> str:
        listed = "\n".join(f"  {source}" for source in self.sources)
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.text}\n\nSources:\n{listed}\n\n"
            f"Answered by: {self.answered_by}{reason}"
        )


def build_workflow(
    *,
    search: WorkflowPrimitive[str, Evidence],
    model: WorkflowPrimitive[Evidence, str],
    ttl: float | timedelta = 3600,
    deadline_seconds: float | timedelta = 20,
) -> WorkflowPrimitive[str, Answer]:
    """Return the workflow from a question to its answer.

    Args:
        search: Finds evidence for a question.
        model: Answers from the evidence.
        ttl: Seconds for which a model's answer is kept.
        deadline_seconds: Seconds after which the model is no longer waited for,
            whatever is going on.
    """
    # Read from the inside out, each wrapper around what follows it:
    #
    # attempt   One request that hangs must not take the time of the next: the limit on
    #           an attempt stands inside the retry.
    # retry     Knows nothing of the cache, so a hit costs nothing of it. A missing
    #           model will still be missing in half a second.
    # cache     Around the retry: it sees one call with one result, however many
    #           attempts that took, and never an error. Its key is the evidence, so an
    #           answer is forgotten as soon as the documentation says something else.
    # deadline  Around everything, the pauses between attempts included. It travels
    #           down in the context: the retry gives up at once when the next pause
    #           would end too late.
    from_model = (
        TimeoutPrimitive(timeout_seconds=deadline_seconds).named("deadline")
        >> CachePrimitive(ttl=ttl)
        >> RetryPrimitive(max_retries=3, give_up_on=ModelNotConfiguredError)
        >> TimeoutPrimitive(timeout_seconds=8).named("attempt")
        >> model
    )
    # The fallback stands outside the cache, for an emergency answer must not be kept,
    # and outside the deadline, for it is needed most when the time is up. Bad questions
    # fail before it: no other way of answering would help them.
    reply = FallbackPrimitive(from_model, fallbacks=[extract]).named("reply")
    workflow = validate >> search >> (sources | reply) >> format_answer
    return workflow.named("answer")


@step
def validate(question: str) -> str:
    """Return the question on one line, without needless blanks.

    Raises:
        QuestionError: It is empty or too long.
    """
    question = " ".join(question.split())
    if not question:
        msg = "the question is empty; ask something like 'How do I test a retry?'"
        raise QuestionError(msg)
    if len(question) > _LONGEST_QUESTION:
        msg = (
            f"the question has {len(question)} characters; "
            f"it may have at most {_LONGEST_QUESTION}"
        )
        raise QuestionError(msg)
    return question


@step
def sources(evidence: Evidence) -> tuple[str, ...]:
    """Name the passages that were found."""
    return tuple(str(match.passage) for match in evidence.matches)


@step
def format_answer(
    sources_and_reply: tuple[tuple[str, ...], str], context: WorkflowContext
) -> Answer:
    """Put the answer together, with who gave it."""
    named, text = sources_and_reply
    for path, outcome in context.outcomes.items():
        if path.endswith("/reply") and isinstance(outcome, FallbackOutcome):
            return Answer(text, named, outcome.name, _reason(outcome.errors[0]))
    return Answer(text, named, "model")


def _reason(error: Exception | None) -> str:
    """Return the first line of an error, or its type if it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
