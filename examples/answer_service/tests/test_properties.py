"""What must hold whatever goes wrong: Hypothesis looks for a counterexample.

Each example runs in a harness of its own: a fresh event loop, a fresh clock, fresh
chance. An example that waits for minutes takes a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.answer_service.answer import build_workflow
from examples.answer_service.corpus import Passage
from examples.answer_service.search import Evidence, Match
from pytest_tta import FaultPlan, FaultRule, Harness, MockPrimitive
from pytest_tta.faults import fail, hang, lost_ack, nth, slow
from tta_primitives import step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

if TYPE_CHECKING:
    from examples.answer_service.answer import Answer
    from pytest_tta.faults import Fault
    from tta_primitives import WorkflowPrimitive

# The same examples for every reader, and no limit on the real time of an example: the
# time that matters here is virtual.
repeatable = settings(derandomize=True, deadline=None)

PASSAGE = Passage("docs/retry.md", "Retry", "Test it in virtual time.")
MATCH = Match(PASSAGE, frozenset({"test"}))

# What may happen to each call of the model in turn; None is a good answer.
mishaps = st.lists(
    st.none()
    | st.builds(slow, st.floats(0.1, 30.0))
    | st.builds(fail, st.sampled_from([ConnectionError("reset"), OSError("down")]))
    | st.just(lost_ack(ConnectionError("reset")))
    | st.just(hang()),
    max_size=6,
)


@step(name="search")
def found(question: str) -> Evidence:
    """Find the same passage for every question."""
    return Evidence(question, (MATCH,))


def service(tta: Harness) -> WorkflowPrimitive[str, Answer]:
    """Return the real workflow between a scripted search and a scripted model."""
    tta.llm.reply("From the model.").always().optional()
    return build_workflow(search=found, model=tta.llm.primitive("model"))


def plan_of(mishaps: list[Fault | None]) -> FaultPlan:
    """Return the plan in which the n-th call of the model meets the n-th mishap."""
    return FaultPlan(
        *(FaultRule("model", one, nth(n)) for n, one in enumerate(mishaps, 1) if one)
    )


@repeatable
@given(mishaps=mishaps, seed=st.integers(0, 1000))
def test_everybody_is_answered_in_time(mishaps: list[Fault | None], seed: int) -> None:
    """Whatever the model does, there is an answer within 20 s and after 4 calls."""
    with Harness(seed=seed, faults=plan_of(mishaps)) as tta:
        result = tta.run(service(tta), "How do I test a retry?")

        assert result.text in {"From the model.", "Test it in virtual time."}
        assert tta.elapsed <= 20.0
        assert len(tta.trace.spans_at("attempt")) <= 4


@repeatable
@given(failures=st.integers(0, 6), seed=st.integers(0, 1000))
def test_fallback_answers_if_and_only_if_the_retries_are_used_up(
    failures: int, seed: int
) -> None:
    """Up to three failures are ridden out; a fourth is the end of the model's turn."""
    outcomes = [OSError("down")] * failures
    plan = plan_of([fail(error) for error in outcomes])
    with Harness(seed=seed, faults=plan) as tta:
        result = tta.run(service(tta), "How do I test a retry?")

        expected = "model" if failures <= 3 else "extract"
        assert result.answered_by == expected
        assert len(tta.trace.spans_at("attempt")) == min(failures, 3) + 1


@repeatable
@given(
    max_retries=st.integers(0, 8),
    initial_delay=st.floats(0.0, 10.0),
    max_delay=st.floats(0.0, 60.0),
    seed=st.integers(0, 1000),
)
def test_retry_keeps_its_bounds(
    max_retries: int, initial_delay: float, max_delay: float, seed: int
) -> None:
    """Under any policy there is one call more than retries, and no pause too long."""
    broken = MockPrimitive("broken", side_effect=OSError("down"))
    retry = RetryPrimitive(
        broken,
        max_retries=max_retries,
        initial_delay=initial_delay,
        max_delay=max_delay,
    )
    with Harness(seed=seed) as tta:
        with pytest.raises(OSError, match="down"):
            tta.run(retry, "input")

        assert broken.call_count == max_retries + 1
        [span] = tta.trace.spans_at("retry")
        for event in span.events:
            if event.name == "retry.scheduled":
                cap = initial_delay * 2 ** (event.detail["attempt"] - 1)
                assert 0.0 <= event.detail["delay"] <= min(cap, max_delay)


@repeatable
@given(works=st.lists(st.booleans(), min_size=2, max_size=5))
def test_fallbacks_are_tried_in_order(works: list[bool]) -> None:
    """The first alternative that works answers, and none after it is asked."""
    ways = [
        MockPrimitive(f"way {i}", return_value=i)
        if is_working
        else MockPrimitive(f"way {i}", side_effect=OSError("down"))
        for i, is_working in enumerate(works)
    ]
    workflow = FallbackPrimitive(ways[0], fallbacks=[*ways[1:], "a plain value"])
    with Harness() as tta:
        answer = tta.run(workflow, "input")

    best = works.index(True) if any(works) else len(works)
    assert answer == (best if any(works) else "a plain value")
    assert [way.call_count for way in ways] == [
        int(i <= best) for i in range(len(ways))
    ]
