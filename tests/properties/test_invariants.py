"""The ready invariants hold for good runs and notice bad ones."""

from __future__ import annotations

import asyncio

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.doubles import MockPrimitive
from pytest_tta.properties import attempts_bounded, deadline_kept, fallback_order
from pytest_tta.trace.recorder import TraceRecorder
from tta_primitives import WorkflowContext
from tta_primitives.door import listening
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)


def recorded(workflow):
    """Run a workflow in virtual time and return its trace."""
    recorder = TraceRecorder()

    async def main():
        with listening(observers=(recorder,)):
            try:
                await workflow.execute("in", WorkflowContext())
            except Exception:
                return

    VirtualClock().run(main())
    return recorder.trace


def failing(name="llm"):
    """Return a step that always fails."""
    return MockPrimitive(name, side_effect=ConnectionError("down"))


class StubbornRetry(RetryPrimitive):
    """A retry with a bug: one attempt more than it allows."""

    async def execute(self, input_data, context, /):
        for _ in range(self.max_retries + 2):
            try:
                return await self.primitive.execute(
                    input_data, context.below(self, self.primitive, "llm")
                )
            except Exception as error:
                last = error
        raise last


class LazyTimeout(TimeoutPrimitive):
    """A timeout with a bug: it never interrupts."""

    async def execute(self, input_data, context, /):
        return await self.primitive.execute(
            input_data, context.below(self, self.primitive, self.primitive.name)
        )


class EagerFallback(FallbackPrimitive):
    """A fallback with a bug that a test chooses."""

    how = "reverse"

    async def execute(self, input_data, context, /):
        def run(one):
            return one.execute(input_data, context.below(self, one, one.name))

        first, *others = self.children()
        if self.how == "reverse":
            return await run(others[0])
        if self.how == "beside":
            return await asyncio.gather(run(first), run(others[0]))
        await run(first)
        return await run(others[0])


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_retry_that_keeps_its_bound_passes(max_retries):
    """`max_retries` and the first attempt are allowed."""
    workflow = RetryPrimitive(failing(), max_retries=max_retries)
    trace = recorded(workflow)
    assert trace.find("retry").attempts == max_retries + 1
    attempts_bounded(trace, workflow)


def test_an_attempt_too_many_is_noticed():
    """The message has the place, the number and the policy."""
    workflow = StubbornRetry(failing(), max_retries=2).named("retry")
    with pytest.raises(
        AssertionError,
        match=r"^retry@1 made 4 attempts, and <StubbornRetry .*=2> allows 3$",
    ):
        attempts_bounded(recorded(workflow), workflow)


def test_each_execution_of_an_inner_retry_has_its_own_bound():
    """A retry inside a retry may use its attempts again."""
    inner = RetryPrimitive(failing(), max_retries=1).named("inner")
    workflow = RetryPrimitive(inner, max_retries=2, retry_nested=True)
    trace = recorded(workflow)
    assert len(trace.spans_at("llm")) == 6
    attempts_bounded(trace, workflow)


def test_attempts_of_a_workflow_without_a_bound_cannot_be_decided():
    """What cannot be decided fails."""
    workflow = TimeoutPrimitive(failing(), timeout_seconds=1)
    with pytest.raises(AssertionError, match="timeout has no retry with max_retries"):
        attempts_bounded(recorded(workflow), workflow)


def test_attempts_of_a_workflow_that_did_not_run_cannot_be_decided():
    """A trace of something else proves nothing."""
    workflow = RetryPrimitive(failing())
    other = RetryPrimitive(failing())
    with pytest.raises(AssertionError, match=r"retry did not run: <Trace of 5 spans"):
        attempts_bounded(recorded(other), workflow)


@pytest.mark.parametrize(
    "make",
    [
        lambda slow: TimeoutPrimitive(slow, timeout_seconds=5),
        lambda slow: TimeoutPrimitive(slow, timeout_seconds=5, fallback="late"),
        lambda slow: RetryPrimitive(slow, attempt_timeout=5, max_retries=1),
        lambda slow: RetryPrimitive(slow, max_elapsed=5),
        lambda slow: TimeoutPrimitive(
            RetryPrimitive(slow, attempt_timeout=2, initial_delay=1), timeout_seconds=5
        ),
    ],
)
def test_limits_that_are_kept_pass(make):
    """What is cut off at its limit kept it, to the nanosecond."""
    slow = MockPrimitive("slow", return_value="late", delay=60)
    deadline_kept(recorded(make(slow)))


def test_a_limit_that_is_overrun_is_noticed():
    """The message has the place, the excess and whose limit it was."""
    slow = MockPrimitive("slow", return_value="late", delay=60)
    workflow = LazyTimeout(slow, timeout_seconds=5).named("timeout")
    with pytest.raises(
        AssertionError,
        match=r"^timeout/slow@1 ended 55 s after the 5 s that <LazyTimeout 'slow' time",
    ):
        deadline_kept(recorded(workflow))


async def slow_to_leave(value):
    """Need two seconds of cleanup."""
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(2)


def test_cleanup_may_take_what_the_test_allows():
    """Cleanup after a cancellation is only within the limit if it is allowed for."""
    trace = recorded(TimeoutPrimitive(slow_to_leave, timeout_seconds=5))
    deadline_kept(trace, cleanup_seconds=2)
    with pytest.raises(
        AssertionError, match=r"slow_to_leave@1 ended 2 s after the 5 s"
    ):
        deadline_kept(trace)


def test_a_plan_beyond_the_limit_is_noticed():
    """A retry that would sleep past its own limit should have given up."""
    retry = RetryPrimitive(
        failing(), max_elapsed=5, initial_delay=3, jitter="none", max_retries=2
    )
    trace = recorded(retry)
    deadline_kept(trace)
    retry.max_elapsed = 1
    with pytest.raises(
        AssertionError, match=r"retry@1 planned a delay of 3 s beyond its limit"
    ):
        deadline_kept(trace)


def test_a_trace_without_limits_cannot_be_decided():
    """What cannot be decided fails."""
    with pytest.raises(AssertionError, match="nothing that ran has a time limit"):
        deadline_kept(recorded(RetryPrimitive(failing(), initial_delay=0)))


def test_alternatives_in_their_order_pass():
    """The primary, then each fallback after the one before has failed."""
    fine = MockPrimitive("fine", return_value=1)
    never = MockPrimitive("never", return_value=2)
    workflow = FallbackPrimitive(
        failing("first"), fallbacks=[failing("second"), fine, never]
    )
    trace = recorded(workflow)
    assert [span.label for span in trace.find("fallback").children] == [
        "first",
        "second",
        "fine",
    ]
    fallback_order(trace)


def test_a_refused_result_is_followed_by_the_next():
    """With `fallback_if_result` an answer may be none."""
    workflow = FallbackPrimitive(
        MockPrimitive("first", return_value=""),
        fallbacks=[MockPrimitive("second", return_value="x")],
        fallback_if_result=lambda result: not result,
    )
    fallback_order(recorded(workflow))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reverse", r"ran 'second', and their order is 'first', 'second'"),
        ("beside", r"began 'second' while 'first' was running"),
        ("after", r"began 'second' although 'first' had answered"),
    ],
)
def test_alternatives_out_of_turn_are_noticed(how, message):
    """One that is skipped, runs beside another or is not needed."""
    first = MockPrimitive("first", return_value=1, delay=1)
    second = MockPrimitive("second", return_value=2, delay=1)
    workflow = EagerFallback(first, fallbacks=[second]).named("fallback")
    workflow.how = how
    with pytest.raises(AssertionError, match=f"fallback@1 {message}"):
        fallback_order(recorded(workflow))


def test_a_trace_without_fallbacks_cannot_be_decided():
    """What cannot be decided fails."""
    with pytest.raises(AssertionError, match="no fallback ran: <Trace of 1 span"):
        fallback_order(recorded(failing()))
