"""Strategies for plans: what they generate, what they shrink to, how they print."""

from __future__ import annotations

import random

import pytest
from hypothesis import find, given, settings
from hypothesis.vendor.pretty import pretty

import pytest_tta.explore.plan
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from pytest_tta.properties import plans, schedules
from tta_primitives import step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

QUICK = settings(database=None, max_examples=80, deadline=None)


def smallest(strategy, wanted):
    """Return what a strategy shrinks to."""
    options = settings(database=None, max_examples=5000, deadline=None)
    return find(strategy, wanted, settings=options, random=random.Random(1))


@step
async def llm(question):
    """Answer."""
    return question


@QUICK
@given(schedule=schedules(max_choices=5, early=2))
def test_schedules_deviate_where_they_may(schedule):
    """No choice beyond the limit, none twice, and none that is no deviation."""
    points = [point for point, _ in schedule.deviations]
    assert schedule.order == "sticky"
    assert schedule.mode == "op"
    assert points == sorted(set(points))
    assert all(0 <= point < 5 for point in points)
    assert all(0 < index < 8 for _, index in schedule.deviations)
    assert 0 <= schedule.early <= 2


def test_the_plainest_schedule_deviates_nowhere():
    """What does not matter for a failure is not in its example."""
    assert smallest(schedules(), lambda _: True) == Schedule("op", "sticky")


def test_schedules_shrink_to_one_deviation():
    """A byte that does not matter becomes 0, and one that does becomes 1."""
    found = smallest(
        schedules(), lambda one: any(point == 3 for point, _ in one.deviations)
    )
    assert found == Schedule("op", "sticky", ((3, 1),))


@QUICK
@given(plan=plans(["retry/llm", "db.read"], faults=3, calls=2, cancel=True))
def test_plans_have_faults_at_the_given_sites(plan):
    """Never more than asked for, nowhere else, and one at most at each call."""
    calls = [(fault.site, fault.number) for fault in plan.faults]
    assert len(calls) == len(set(calls)) <= 3
    assert {site for site, _ in calls} <= {"retry/llm", "db.read"}
    assert {number for _, number in calls} <= {1, 2}
    assert plan.cancellation is None or plan.cancellation.task == "main"


@QUICK
@given(plan=plans(llm, cancel=True, early=1))
def test_plans_print_as_code(plan):
    """A failing example can be pasted into a test."""
    assert eval(pretty(plan), vars(pytest_tta.explore.plan)) == plan


def test_the_plainest_plan_disturbs_nothing():
    """First come, first served, and no fault."""
    found = smallest(plans(llm, cancel=True, early=1), lambda _: True)
    assert found == Plan(schedule=Schedule("op", "sticky"))


def test_the_plainest_fault_is_an_error_of_the_first_call():
    """At the first site, and without any deviation."""
    found = smallest(plans(["llm", "store"]), lambda plan: plan.faults)
    assert found.faults == (FaultAt("llm", 1, "error"),)
    assert found.schedule.deviations == ()


def test_the_plainest_cancellation_comes_at_once():
    """At the first moment of rest, and with no fault besides."""
    found = smallest(plans(llm, cancel=True), lambda plan: plan.cancellation)
    assert found.cancellation == Cancellation("main", 0)
    assert found.faults == ()


def test_a_workflow_stands_for_its_leaves():
    """Faults strike calls, not what is around them."""
    workflow = FallbackPrimitive(RetryPrimitive(llm), fallbacks=["sorry"]).named("ask")
    sites = set()

    @QUICK
    @given(plan=plans(workflow))
    def collect(plan):
        sites.update(fault.site for fault in plan.faults)

    collect()
    assert sites == {"ask/retry/llm", "ask/value"}


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"where": "llm"}, TypeError, r"where='llm' must be a workflow or a list"),
        ({"where": []}, ValueError, r"where=\[\] must name at least one site"),
        ({"where": ["a@1"]}, ValueError, r"where='a@1' names one execution"),
        ({"kinds": []}, ValueError, r"kinds=\[\] must be a list of kinds"),
        ({"kinds": "hang"}, ValueError, r"kinds='hang' must be a list of kinds"),
        ({"kinds": ["slow"]}, ValueError, r"kinds='slow' must be .*lost-ack"),
        ({"faults": -1}, ValueError, r"faults=-1 must be"),
        ({"calls": 0}, ValueError, r"calls=0 must be"),
        ({"cancel": "main"}, TypeError, r"cancel='main' must be"),
        ({"max_choices": 5000}, ValueError, r"max_choices=5000 must be at most 4096"),
        ({"early": -1}, ValueError, r"early=-1 must be"),
    ],
)
def test_wrong_plans_are_refused(arguments, kind, text):
    """The error names the argument and shows the value."""
    with pytest.raises(kind, match=text):
        plans(**{"where": ["llm"], **arguments})


def test_an_unknown_mode_is_refused():
    """The error lists those that there are."""
    with pytest.raises(ValueError, match=r"mode='fast' must be .*burst"):
        schedules(mode="fast")
