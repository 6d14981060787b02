"""Examples that execute plans: what they see, what they raise, what they shrink to."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.vendor.pretty import pretty

from pytest_tta import op
from pytest_tta.explore.line import from_line
from pytest_tta.explore.outcome import Outcome, Verdict
from pytest_tta.explore.plan import FaultAt, Plan, Schedule
from pytest_tta.properties import check, plans, run_plan, workflows
from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

QUICK = settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=100,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)


class Bank:
    """Charges, and says so; without a key it charges twice when it is asked twice."""

    def __init__(self):
        self.charges = []

    async def charge(self, order):
        """Charge an order."""
        async with op("bank.charge"):
            self.charges.append(order)
        return "paid"


def pay(tta):
    """Pay an order, and insist if the bank does not answer."""
    bank = Bank()
    insist = RetryPrimitive(step(bank.charge), max_retries=2)
    assert tta.run(insist, "o-1") == "paid"
    assert bank.charges == ["o-1"], f"charged {len(bank.charges)} times"


async def count(tta):
    """Count to two, by two who read and then write."""
    stored = [0]

    async def add():
        """Add one, as if nobody else did."""
        await op("db.read")
        seen = stored[0]
        await op("db.write")
        stored[0] = seen + 1

    async def later():
        """Begin when the first is half through."""
        await op("queue.pop")
        await op("queue.ack")
        await add()

    await asyncio.gather(add(), later())
    assert stored[0] == 2, f"counted {stored[0]}"


@step
async def llm(question):
    """Answer."""
    return f"answer to {question}"


def test_a_plan_without_faults_changes_nothing():
    """The body runs as it always does, and its outcome is handed back."""
    outcome = run_plan(pay, Plan())
    assert outcome.ended == "returned"
    assert "bank.charge" in [call.site for call in outcome.calls]


def test_an_error_that_reaches_the_caller_is_a_fair_end():
    """Whoever is told of a fault knows of it."""
    outcome = run_plan(pay, Plan(faults=(FaultAt("bank.charge", 1, "fatal"),)))
    assert outcome.ended == "told"


def test_a_broken_promise_fails_with_the_plan_in_words_and_as_a_line():
    """The line brings it back."""
    plan = Plan(faults=(FaultAt("bank.charge", 1, "lost-ack"),))
    with pytest.raises(AssertionError, match="charged 2 times") as caught:
        run_plan(pay, plan)
    text = str(caught.value)
    assert "what it takes:\n  call 1 of bank.charge has its effect" in text
    line = re.search("as one line: (.*)", text)
    assert line is not None
    assert from_line(line[1]).faults == plan.faults


def test_hypothesis_finds_the_lost_answer_and_nothing_else():
    """The smallest plan has one fault, at the first call, and no deviation."""

    @QUICK
    @given(plan=plans(["bank.charge"]))
    def example(plan):
        run_plan(pay, plan)

    with pytest.raises(AssertionError, match="charged 2 times") as caught:
        example()
    notes = "\n".join(getattr(caught.value, "__notes__", ())) + str(caught.value)
    assert "FaultAt(site='bank.charge', number=1, kind='lost-ack')" in notes


def test_hypothesis_finds_the_order_in_which_an_update_is_lost():
    """Without any fault; first come, first served has them one after the other."""
    assert run_plan(count, Plan()).verdict is None

    def loses(plan):
        try:
            run_plan(count, plan)
        except AssertionError:
            return True
        return False

    found = find(
        plans(["db.read"], faults=0), loses, settings=QUICK, random=random.Random(1)
    )
    assert found.faults == ()
    assert 1 <= len(found.schedule.deviations) <= 3


@settings(QUICK, max_examples=150)
@given(plan=plans(["ask/timeout/llm"], cancel=True, early=1))
def test_what_falls_back_always_answers_or_is_cancelled(plan):
    """Also when what has been cancelled was just answered."""

    def body(tta):
        """Ask, with something to say in any case."""
        ask = FallbackPrimitive(llm, fallbacks=["sorry"]).named("ask")
        assert tta.run(ask, "Q") in {"answer to Q", "sorry"}

    assert run_plan(body, plan, strict=True).ended in {"returned", "cancelled"}


@settings(QUICK, max_examples=60)
@given(workflow=workflows([llm], shapes=["retry", "fallback", "cache", "bulkhead"]))
def test_workflows_and_plans_go_together(workflow):
    """A generated workflow keeps its state for one example alone."""
    assert run_plan(lambda tta: tta.run(workflow, "Q"), Plan()).verdict is None
    assert pretty(workflow)


def test_two_examples_may_use_one_cache():
    """Each example is an exploration of its own, with one execution."""
    cache = CachePrimitive(llm, ttl=60)
    for _ in range(2):
        assert run_plan(lambda tta: tta.run(cache, "Q"), Plan()).verdict is None


def test_an_outcome_without_a_verdict_passes():
    """There is nothing to raise."""
    check(Outcome(Plan(), None))


def test_a_verdict_is_raised_from_its_error():
    """So that Hypothesis tells one failure from another."""
    error = ValueError("odd")
    plan = Plan(schedule=Schedule(order="sticky"))
    outcome = Outcome(plan, Verdict("error", "ValueError: odd\nsecond line", "", error))
    with pytest.raises(
        AssertionError, match="error: ValueError: odd\nsecond"
    ) as caught:
        check(outcome)
    assert caught.value.__cause__ is error
