"""Properties of retry and fallback, each example in a clocked loop of its own."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from pytest_tta import Harness, HarnessError
from pytest_tta.doubles import UnexpectedCall
from pytest_tta.faults import FaultPlan, FaultRule, fail, first
from pytest_tta.properties import (
    attempts_bounded,
    deadline_kept,
    errors,
    fallback_order,
    fault_plans,
    retry_policies,
    timeouts,
)
from tta_primitives import step
from tta_primitives.errors import FallbackExhaustedError
from tta_primitives.recovery import (
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

# No health check is suppressed here: the harness is made inside the test.
EXAMPLES = settings(database=None, max_examples=60, deadline=None)


@step
async def llm(question):
    """Answer in a second."""
    await asyncio.sleep(1)
    return f"answer to {question}"


@step
async def other(question):
    """Answer in two seconds."""
    await asyncio.sleep(2)
    return f"other answer to {question}"


def outcome(tta, workflow):
    """Return what a run gave, or what it raised."""
    try:
        return tta.run(workflow, "Q")
    except Exception as error:
        return error


@EXAMPLES
@given(policy=retry_policies(), plan=fault_plans(paths=["llm"], kinds=["fail", "slow"]))
def test_attempts_never_exceed_the_policy(policy, plan):
    """Whatever fails and however the retry is configured, its bound holds."""
    workflow = RetryPrimitive(llm, **policy)
    with Harness(faults=plan) as tta:
        result = outcome(tta, workflow)
        attempts_bounded(tta.trace, workflow)
        assert tta.trace.find("retry").attempts <= policy["max_retries"] + 1
        if not (plan or policy.keys() & {"attempt_timeout", "max_elapsed"}):
            assert result == "answer to Q"


@EXAMPLES
@given(policy=retry_policies(), error=errors())
def test_delays_stay_within_the_bounds_of_the_policy(policy, error):
    """No delay exceeds `max_delay`; exponential ones grow no faster than the factor."""
    workflow = RetryPrimitive(llm, **policy)
    with Harness() as tta:
        tta.faults.at("llm").fail(error)
        outcome(tta, workflow)
        delays = [
            event.detail["delay"]
            for event in tta.trace.find("retry").events
            if event.name == "retry.scheduled"
        ]
    assert len(delays) <= policy["max_retries"]
    assert all(0 <= delay <= workflow.max_delay for delay in delays)
    if workflow.backoff_strategy == "exponential":
        for number, delay in enumerate(delays):
            cap = workflow.initial_delay * workflow.backoff_factor**number
            assert delay <= cap + 1e-9


@EXAMPLES
@given(
    limit=timeouts(max_seconds=30),
    policy=retry_policies(),
    plan=fault_plans(paths=["llm"]),
)
def test_a_limit_around_a_retry_is_kept(limit, policy, plan):
    """Attempts, delays, slow and hanging calls all end within the limit."""
    workflow = TimeoutPrimitive(RetryPrimitive(llm, **policy), timeout_seconds=limit)
    with Harness(faults=plan) as tta:
        outcome(tta, workflow)
        deadline_kept(tta.trace)
        assert tta.elapsed <= limit + 1e-9


@EXAMPLES
@given(
    limit=timeouts(max_seconds=5),
    policy=retry_policies(),
    plan=fault_plans(paths=["llm"]),
)
def test_a_limit_inside_a_retry_is_kept_by_each_attempt(limit, policy, plan):
    """Each attempt ends within its own limit, and the attempts are bounded."""
    workflow = RetryPrimitive(TimeoutPrimitive(llm, timeout_seconds=limit), **policy)
    with Harness(faults=plan) as tta:
        outcome(tta, workflow)
        deadline_kept(tta.trace)
        attempts_bounded(tta.trace, workflow)


@EXAMPLES
@given(plan=fault_plans(paths=["llm", "other"], kinds=["fail", "lost_ack", "slow"]))
def test_alternatives_answer_in_their_order(plan):
    """The other model is asked only after the first has failed, and then answers."""
    workflow = FallbackPrimitive(llm, fallbacks=[other, "sorry"])
    with Harness(faults=plan) as tta:
        result = outcome(tta, workflow)
        fallback_order(tta.trace)
        asked = [span.label for span in tta.trace.find("fallback").children]
    answers = {1: "answer to Q", 2: "other answer to Q", 3: "sorry"}
    assert result == answers[len(asked)]


@EXAMPLES
@given(plan=fault_plans(paths=["llm", "other"], kinds=["fail"], types=[OSError]))
def test_a_fallback_fails_only_when_all_have_failed(plan):
    """The error has one part for each alternative, in order."""
    workflow = FallbackPrimitive(llm, fallbacks=[other])
    with Harness(faults=plan) as tta:
        result = outcome(tta, workflow)
        failed = [
            span.error is not None for span in tta.trace.find("fallback").children
        ]
    if isinstance(result, FallbackExhaustedError):
        assert failed == [True, True]
        assert [type(error) for error in result.exceptions] == [OSError, OSError]
    else:
        assert failed in ([False], [True, False])


@EXAMPLES
@given(
    plan=fault_plans(paths=["llm", "other"], kinds=["fail", "slow", "lost_ack"]),
    policy=retry_policies(max_retries=3),
    seed=st.integers(0, 2**32),
)
def test_equal_seeds_repeat_a_run_exactly(plan, policy, seed):
    """Delays, jitter and faults included, two runs have the same outline."""
    workflow = FallbackPrimitive(RetryPrimitive(llm, **policy), fallbacks=[other])

    def outline():
        with Harness(seed=seed, faults=plan) as tta:
            outcome(tta, workflow)
            return tta.trace.outline(events=True)

    assert outline() == outline()


loops = []


@EXAMPLES
@given(delay=st.integers(1, 1000))
def test_h42_each_example_has_its_own_loop_clock_doubles_and_trace(delay):
    """Nothing of one example is seen by the next."""
    with Harness() as tta:
        tta.llm.reply("Hi", delay=delay)
        seen = []

        @step
        async def look(question):
            seen.append(asyncio.get_running_loop())
            return question

        assert tta.clock.elapsed == 0
        assert tta.run(look >> tta.llm.primitive(), "Q") == "Hi"
        assert tta.clock.elapsed == delay
        assert len(tta.llm.calls) == 1
        assert len(tta.trace.spans) == 3
    assert all(seen[0] is not loop for loop in loops)
    loops.append(seen[0])


def leaking(question):
    """Leave a task behind."""
    leaking.tasks.append(asyncio.ensure_future(asyncio.sleep(1000)))
    return question


leaking.tasks = []


def test_h42_a_leaked_task_is_reported_by_its_own_example():
    """The example that leaks fails, and the next, which does not, passes."""
    reported = []

    @EXAMPLES
    @given(leaks=st.booleans())
    def examples(leaks):
        try:
            with Harness() as tta:
                tta.run(step(leaking) if leaks else llm, "Q")
        except HarnessError as error:
            reported.append((leaks, "left running: task" in str(error)))
        else:
            reported.append((leaks, False))

    examples()
    assert set(reported) == {(True, True), (False, False)}


def test_h42_no_health_check_fails_although_hours_pass():
    """Virtual hours are no slow example, and a harness inside is no fixture."""

    @settings(EXAMPLES, suppress_health_check=())
    @given(hours=st.integers(1, 48))
    def examples(hours):
        with Harness() as tta:
            tta.llm.reply("Hi", delay=hours * 3600)
            tta.run(tta.llm.primitive(), "Q")
            assert tta.elapsed == hours * 3600

    examples()


def test_a_fault_that_breaks_a_workflow_is_found_and_shrunk():
    """A workflow without a timeout hangs on one fault, which prints as code."""

    def breaks(plan):
        workflow = RetryPrimitive(llm, max_retries=2, initial_delay=0)
        with Harness(faults=plan) as tta:
            return isinstance(outcome(tta, workflow), OSError)

    plans = fault_plans(paths=["other", "llm"], kinds=["fail", "slow"])
    options = settings(database=None, max_examples=3000, deadline=None)
    found = find(plans, breaks, settings=options, random=random.Random(3))
    assert repr(found) == (
        "FaultPlan(FaultRule('llm', fail(ConnectionError), first(3)))"
    )
    assert found == FaultPlan(FaultRule("llm", fail(ConnectionError), first(3)))


def test_an_unexpected_call_fails_the_harness_although_it_was_swallowed():
    """H35 at the harness: a bare except does not hide a call that nobody scripted."""

    @step
    async def careless(question, context):
        try:
            return await llm.execute(question, context)
        except BaseException:
            return "swallowed"

    def run_twice():
        with Harness() as tta:
            tta.llm.at("llm").reply("once")
            answers = [tta.run(careless, "Q"), tta.run(careless, "Q")]
            assert answers == ["once", "swallowed"]
            assert isinstance(tta.llm.problems[0], UnexpectedCall)

    with pytest.raises(HarnessError, match=r"call 2 of 'careless/llm' was not scrip"):
        run_twice()
