"""What the strategies generate, what they shrink to, and the profile."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.vendor.pretty import pretty

from pytest_tta.faults import FaultPlan, FaultRule, fail, first, hang, slow
from pytest_tta.properties import (
    errors,
    fault_plans,
    load_profile,
    register_profile,
    retry_policies,
    timeouts,
)
from tta_primitives import step
from tta_primitives.recovery import FallbackPrimitive, RetryPrimitive

QUICK = settings(database=None, max_examples=50, deadline=None)


def smallest(strategy, wanted):
    """Return what a strategy shrinks to."""
    options = settings(database=None, max_examples=5000, deadline=None)
    return find(strategy, wanted, settings=options, random=random.Random(1))


@step
async def llm(question):
    """Answer."""
    return question


@QUICK
@given(plan=fault_plans(paths=["retry/llm", "store"], max_faults=2))
def test_plans_have_rules_for_the_given_paths(plan):
    """Never more rules than asked for, and nowhere else."""
    assert isinstance(plan, FaultPlan)
    assert len(plan) <= 2
    assert {rule.place for rule in plan} <= {"retry/llm", "store"}
    assert {rule.fault.name for rule in plan} <= {"fail", "lost_ack", "slow", "hang"}


@QUICK
@given(plan=fault_plans(paths=["llm"]))
def test_plans_print_as_code(plan):
    """A failing example can be pasted into a test."""
    import pytest_tta.faults

    assert eval(repr(plan), vars(pytest_tta.faults)) == plan


def test_hypothesis_prints_plans_as_code():
    """The example that Hypothesis shows is the one to paste."""
    shown = pretty(FaultPlan(FaultRule("llm", fail(OSError), first(2))))
    assert shown == "FaultPlan(FaultRule('llm', fail(OSError), first(2)))"


def test_the_paths_of_a_workflow_are_its_leaves():
    """Faults strike steps; what they do above is for the workflow to show."""
    workflow = FallbackPrimitive(RetryPrimitive(llm), fallbacks=[llm])
    plan = smallest(fault_plans(paths=workflow), lambda found: len(found) == 1)
    assert plan == FaultPlan(
        FaultRule("fallback/retry/llm", fail(ConnectionError), first(1))
    )
    places = {
        rule.place
        for rule in smallest(
            fault_plans(paths=workflow),
            lambda found: len({r.place for r in found}) == 2,
        )
    }
    assert places == {"fallback/retry/llm", "fallback/llm"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (lambda plan: True, FaultPlan()),
        (
            lambda plan: "TimeoutError" in repr(plan),
            FaultPlan(FaultRule("a", fail(TimeoutError), first(1))),
        ),
        (
            lambda plan: any(r.place == "b" and r.fault == hang() for r in plan),
            FaultPlan(FaultRule("b", hang(), first(1))),
        ),
        (
            lambda plan: any(
                r.fault.name == "slow" and r.fault.delay > 5 for r in plan
            ),
            FaultPlan(FaultRule("a", slow(10), first(1))),
        ),
    ],
)
def test_plans_shrink_to_the_plainest(wanted, expected):
    """No fault, else one, at the first place, on the first call."""
    assert smallest(fault_plans(paths=["a", "b"]), wanted) == expected


def test_kinds_that_are_asked_for_are_generated():
    """Cancellation and wrong values come only by name."""
    plans = fault_plans(paths=["a"], kinds=["cancel", "returns"], values=[None, "bad"])
    found = smallest(plans, lambda plan: len({r.fault.name for r in plan}) == 2)
    assert repr(sorted(rule.fault.name for rule in found)) == "['cancel', 'returns']"


@QUICK
@given(policy=retry_policies(max_retries=4, max_seconds=10))
def test_policies_make_retries(policy):
    """Every policy is accepted, and stays within its bounds."""
    retry = RetryPrimitive(llm, **policy)
    assert 0 <= retry.max_retries <= 4
    assert all(
        value <= 10
        for name, value in policy.items()
        if name in {"initial_delay", "max_delay", "max_elapsed", "attempt_timeout"}
    )


def test_policies_shrink_to_no_retry_and_defaults():
    """The plainest policy never retries and says nothing else."""
    assert smallest(retry_policies(), lambda policy: True) == {"max_retries": 0}
    assert smallest(retry_policies(), lambda policy: policy["max_retries"] > 2) == {
        "max_retries": 3
    }


def test_timeouts_shrink_to_the_longest():
    """A limit that never matters is the plainest."""
    limits = timeouts(max_seconds=30)
    assert smallest(limits, lambda limit: True) == 30.0
    assert smallest(limits, lambda limit: limit < 10) == 9.999


@QUICK
@given(limit=timeouts(min_seconds=0.5, max_seconds=2))
def test_timeouts_are_whole_milliseconds_in_bounds(limit):
    """They print shortly and add up exactly on the clock."""
    assert 0.5 <= limit <= 2
    assert round(limit, 3) == limit


@QUICK
@given(error=errors(types=[OSError, KeyError]))
def test_errors_are_made_of_their_types(error):
    """Each error is an instance with a text."""
    assert type(error) in {OSError, KeyError}
    assert error.args == ("injected",)


def test_errors_shrink_to_the_first_type():
    """The plainest error is the first that was named."""
    assert type(smallest(errors(), lambda error: True)) is ConnectionError


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: fault_plans(paths="llm"),
            TypeError,
            r"paths='llm' must be a list of p",
        ),
        (
            lambda: fault_plans(paths=[3]),
            TypeError,
            r"paths=\[3\] must be a list of pat",
        ),
        (
            lambda: fault_plans(paths=[]),
            ValueError,
            r"paths=\[\] must name at least one",
        ),
        (
            lambda: fault_plans(paths=["a//b"]),
            ValueError,
            r"paths='a//b' must be labels",
        ),
        (
            lambda: fault_plans(paths=["a"], max_faults=-1),
            ValueError,
            r"max_faults=-1 must be a whole number",
        ),
        (
            lambda: fault_plans(paths=["a"], kinds=["explode"]),
            ValueError,
            r"kinds='explode' must be one of 'fail', 'lost_ack'",
        ),
        (
            lambda: fault_plans(paths=["a"], kinds=[]),
            ValueError,
            r"kinds=\[\] must have at least one kind",
        ),
        (
            lambda: fault_plans(paths=["a"], kinds=["returns"]),
            ValueError,
            r"kinds has 'returns', which needs values=\[...\]",
        ),
        (
            lambda: errors(types=[3]),
            TypeError,
            r"types=\[3\] must be classes of except",
        ),
        (
            lambda: errors(types=[]),
            ValueError,
            r"types=\[\] must have at least one clas",
        ),
        (
            lambda: timeouts(max_seconds="1"),
            TypeError,
            r"max_seconds='1' must be a posi",
        ),
        (
            lambda: timeouts(min_seconds=2, max_seconds=1),
            ValueError,
            r"min_seconds=2 must be at least 0\.001 and at most max_seconds=1",
        ),
        (
            lambda: retry_policies(max_retries=True),
            ValueError,
            r"max_retries=True must be a whole number",
        ),
        (
            lambda: retry_policies(max_seconds=0),
            ValueError,
            r"max_seconds=0 must be a p",
        ),
    ],
)
def test_options_that_make_no_sense_fail_when_the_strategy_is_made(
    make, error, message
):
    """Not in the first example, where the traceback would be Hypothesis' own."""
    with pytest.raises(error, match=message):
        make()


def test_the_profile_is_registered_on_demand_only():
    """Importing us changes nothing in Hypothesis; registering does not switch."""
    code = """
from hypothesis import settings
before = settings.default, set(settings._profiles)
import pytest_tta.properties as properties
assert (settings.default, set(settings._profiles)) == before
properties.register_profile()
assert settings.default is before[0]
properties.load_profile()
assert settings.default.deadline is None and settings.default.print_blob
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "ok\n"


def test_the_profile_keeps_what_is_in_force():
    """Only the deadline and the blob differ from the settings of the moment."""
    before = settings()
    try:
        load_profile("tta-test")
        loaded = settings.get_profile("tta-test")
        assert (loaded.deadline, loaded.print_blob) == (None, True)
        assert loaded.max_examples == before.max_examples
        assert loaded.derandomize == before.derandomize
        assert loaded.suppress_health_check == before.suppress_health_check
        register_profile("tta-test")
    finally:
        settings.load_profile("default")


def test_the_campaign_looks_for_new_examples_also_in_ci():
    """Many of them, and those that fail are kept, whatever CI has switched off."""
    before = settings()
    in_ci = settings(before, derandomize=True, database=None, max_examples=100)
    settings.register_profile("tta-ci", in_ci)
    settings.load_profile("tta-ci")
    try:
        register_profile("tta-test")
        campaign = settings.get_profile("tta-test-campaign")
        usual = settings.get_profile("tta-test")
    finally:
        settings.load_profile("default")
    assert (usual.derandomize, usual.database) == (True, None)
    assert (campaign.derandomize, campaign.max_examples) == (False, 10_000)
    assert isinstance(campaign.database, DirectoryBasedExampleDatabase)
    assert (campaign.deadline, campaign.print_blob) == (None, True)


def test_without_hypothesis_one_sentence_says_what_to_install(monkeypatch):
    """The invariants work without it, the strategies say how to get it."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"run pip install 'tta-dev-primitives\[pyt"):
        timeouts()


@QUICK
@given(data=st.data())
def test_strategies_compose_with_others(data):
    """They are strategies like all others."""
    drawn = data.draw(st.lists(timeouts(max_seconds=1) | st.none(), min_size=1))
    assert all(one is None or 0 < one <= 1 for one in drawn)
