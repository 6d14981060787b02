"""The retry budget: a share of the calls, in a sliding window of the loop's time."""

from __future__ import annotations

import asyncio

import pytest

from pytest_tta.clock.clock import VirtualClock
from tests.recovery.doubles import Boom, Script, virtual
from tta_primitives import WorkflowContext
from tta_primitives.recovery import RetryBudget, RetryPrimitive, attempts_of


@virtual
async def test_case_21_a_shared_budget_bounds_retries_under_a_total_outage(
    clock, events
):
    """100 failing calls may retry 20 times in all; each raises its own error."""
    budget = RetryBudget(ratio=0.2, min_retries=3, window=60)
    llm = Script(Boom(), takes=1)
    retried = RetryPrimitive(llm, budget=budget, jitter="none")
    runs = [retried.execute(n, WorkflowContext()) for n in range(100)]
    errors = await asyncio.gather(*runs, return_exceptions=True)
    assert llm.calls == 120
    assert {type(error) for error in errors} == {Boom}
    assert len(events.detail("retry.budget_exhausted")) == 100


@virtual
async def test_case_21_the_note_says_that_the_budget_was_exhausted(clock):
    """Whoever reads the error learns why it was not retried."""
    budget = RetryBudget(min_retries=1)
    with pytest.raises(Boom, match="2") as caught:
        await RetryPrimitive(Script(Boom(1), Boom(2)), budget=budget).execute(
            "x", WorkflowContext()
        )
    assert (
        "gave up after 2 attempts (retry budget exhausted)" in caught.value.__notes__[0]
    )
    assert len(attempts_of(caught.value)) == 2


@virtual
async def test_a_few_retries_are_always_allowed(clock):
    """Without traffic the minimum counts, in each window anew."""
    budget = RetryBudget(ratio=0.1, min_retries=2, window=10)
    for _ in range(3):
        assert [budget.take() for _ in range(3)] == [True, True, False]
        await asyncio.sleep(11)


@virtual
async def test_the_ratio_counts_calls_of_the_window_only(clock):
    """Calls that left the window allow nothing any more."""
    budget = RetryBudget(ratio=0.5, min_retries=0, window=10)
    for _ in range(10):
        budget.note_call()
    assert budget.remaining() == 5
    await asyncio.sleep(5)
    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]
    await asyncio.sleep(5)
    assert budget.remaining() == 0


@virtual
async def test_a_call_leaves_within_a_tenth_of_the_window(clock):
    """It counts for the whole window, and for less than a tenth of it longer."""
    budget = RetryBudget(ratio=1, min_retries=0, window=10)
    await asyncio.sleep(1)
    budget.note_call()
    left = []
    for pause in (9.95, 0.05):
        await asyncio.sleep(pause)
        left.append(budget.remaining())
    assert left == [1, 0]


@pytest.mark.parametrize(
    ("ratio", "calls", "allowed"), [(0.1, 30, 3), (0.2, 15, 3), (1, 7, 7)]
)
@virtual
async def test_the_share_is_exact(clock, ratio, calls, allowed):
    """A tenth of 30 is 3, whatever floating point makes of it."""
    budget = RetryBudget(ratio=ratio, min_retries=0)
    for _ in range(calls):
        budget.note_call()
    assert budget.remaining() == allowed


def test_a_budget_begins_anew_on_a_loop_whose_clock_shows_an_earlier_time():
    """A module-level budget does not carry one test's outage into the next."""
    budget = RetryBudget(min_retries=1)

    async def use(after):
        await asyncio.sleep(after)
        taken = [budget.take(), budget.take()]
        await asyncio.sleep(20)
        return [*taken, budget.take()]

    assert VirtualClock().run(use(500)) == [True, False, True]
    assert VirtualClock().run(use(0)) == [True, False, True]


@virtual
async def test_endless_retries_end_with_the_budget(clock):
    """max_retries=None with a budget makes as many attempts as that allows."""
    llm = Script(Boom())
    budget = RetryBudget(min_retries=7, window=3600)
    with pytest.raises(Boom, match="boom"):
        await RetryPrimitive(llm, max_retries=None, budget=budget).execute(
            "x", WorkflowContext()
        )
    assert llm.calls == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratio": 0}, ValueError, "ratio=0 must be a positive number"),
        ({"ratio": "much"}, TypeError, "ratio='much' must be a positive number"),
        ({"min_retries": -1}, ValueError, "min_retries=-1 must be a whole number"),
        ({"window": 0}, ValueError, "window=0 must be a positive number of seconds"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(options, error, message):
    """The message names the parameter, shows the value and says what is allowed."""
    with pytest.raises(error, match=message):
        RetryBudget(**options)


def test_the_repr_can_be_pasted():
    """It is the expression that made it."""
    assert repr(RetryBudget()) == "RetryBudget(ratio=0.2, min_retries=3, window=10)"
