"""Plans of faults as values: they print, compare, hash and travel."""

from __future__ import annotations

import json

import pytest

from pytest_tta import faults as module
from pytest_tta.faults import (
    FaultPlan,
    FaultRule,
    always,
    at_time,
    cancel,
    chance,
    every,
    fail,
    first,
    hang,
    lost_ack,
    nth,
    returns,
    slow,
    when,
)
from tta_primitives import StepPrimitive

RULES = [
    FaultRule("a", fail(TimeoutError("x", 2))),
    FaultRule("a", fail(KeyError, after_chunks=2), first(2)),
    FaultRule("*/b", lost_ack(ConnectionResetError("lost")), nth(3)),
    FaultRule("**/c", hang(), every(2)),
    FaultRule("d", hang(after_chunks=1), chance(0.25)),
    FaultRule("e", slow(1.5), at_time(60, 120)),
    FaultRule("f", slow(3600), at_time(60)),
    FaultRule("g", cancel(), first(2) & ~nth(1)),
    FaultRule(
        "h", returns({"a": [1, None, "x", 2.5, True]}), first(2) | nth(4) & every(2)
    ),
    FaultRule("i", returns("x", after_chunks=1), ~(first(2) | nth(4)) & always()),
    FaultRule("j", hang(), first(1) & (nth(1) & every(1))),
    FaultRule("k", hang(), first(1) | (nth(1) | every(1))),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_rule_prints_as_code(rule):
    """What is printed makes an equal rule, with an equal hash."""
    again = eval(repr(rule), vars(module).copy())
    assert again == rule
    assert hash(again) == hash(rule)
    assert repr(again) == repr(rule)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_plan_travels_as_json(rule):
    """What another process reads is an equal plan."""
    plan = FaultPlan(rule, RULES[0])
    assert FaultPlan.from_plain(json.loads(json.dumps(plan.to_plain()))) == plan


def test_the_plain_form_is_what_it_was():
    """Plans that were saved stay readable: the form is part of the interface."""
    plan = FaultPlan(FaultRule("llm", fail(TimeoutError("x")), first(2) & ~nth(1)))
    assert plan.to_plain() == [
        {
            "place": "llm",
            "fault": {
                "name": "fail",
                "error": {"type": "builtins:TimeoutError", "args": ["x"]},
            },
            "schedule": {
                "name": "and",
                "of": [
                    {"name": "first", "n": 2},
                    {"name": "not", "of": [{"name": "nth", "n": 1}]},
                ],
            },
        }
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (fail(ValueError("a")), fail(ValueError("b"))),
        (fail(ValueError("a")), fail(KeyError("a"))),
        (fail(ValueError), fail(ValueError())),
        (fail(ValueError), lost_ack(ValueError)),
        (fail(ValueError), fail(ValueError, after_chunks=1)),
        (slow(1), slow(2)),
        (hang(), cancel()),
        (returns(1), returns(True)),
        (returns(1), returns(1, after_chunks=1)),
        (first(1), nth(1)),
        (first(1), first(2)),
        (first(1) & nth(1), nth(1) & first(1)),
        (first(1) & nth(1), first(1) | nth(1)),
        (at_time(1), at_time(1, 2)),
    ],
    ids=repr,
)
def test_different_values_are_not_equal(left, right):
    """A shrinker may rely on equality."""
    assert left != right
    assert left == left  # noqa: PLR0124 - equality itself is tested
    assert len({left, right, left}) == 2


def test_equal_values_have_equal_hashes_whatever_their_order():
    """Dictionaries that were filled in another order are equal values."""
    left, right = returns({"a": 1, "b": 2}), returns({"b": 2, "a": 1})
    assert left == right
    assert hash(left) == hash(right)


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule("a", fail(lambda call: ValueError())),
        FaultRule("a", returns((1, 2))),
        FaultRule("a", returns({1: 2})),
        FaultRule("a", hang(), when(lambda call: True)),
        FaultRule("a", hang(), first(1) & when(lambda call: True)),
        FaultRule(StepPrimitive(str), hang()),
    ],
    ids=repr,
)
def test_what_has_no_plain_form_is_refused(rule):
    """Nothing comes back from JSON as something else."""
    with pytest.raises(TypeError, match="has no plain form"):
        FaultPlan(rule).to_plain()


@pytest.mark.parametrize(
    ("fault", "schedule", "message"),
    [
        ({"name": "explode"}, {"name": "always"}, "fault='explode' must be one of"),
        ({"name": "hang"}, {"name": "never"}, "schedule='never' must be one of"),
        (
            {"name": "fail", "error": {"type": "builtins:int"}},
            {"name": "always"},
            "type='builtins:int' must name a class of exceptions",
        ),
    ],
)
def test_plain_data_that_names_nothing_is_refused(fault, schedule, message):
    """A plan that cannot be read says what it stumbled over."""
    data = [{"place": "a", "fault": fault, "schedule": schedule}]
    with pytest.raises(ValueError, match=message):
        FaultPlan.from_plain(data)


def test_a_plan_is_iterated_and_counted():
    """A plan is its rules, in order."""
    plan = FaultPlan(*RULES)
    assert list(plan) == RULES
    assert len(plan) == len(RULES)
    assert {plan: 1}[FaultPlan(*RULES)] == 1


def test_a_function_is_shown_by_its_name():
    """What cannot be pasted is at least named."""

    def is_long(call):
        return len(call.input_data) > 10

    assert repr(when(is_long)).endswith("is_long)")
    assert repr(fail(is_long)).endswith("is_long)")
