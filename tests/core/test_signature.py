"""Functions given as options: f(input) or f(input, context), whichever says more."""

from __future__ import annotations

from functools import partial

import pytest

from pytest_tta.clock.clock import VirtualClock
from tta_primitives import WorkflowContext, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import RateLimitPrimitive, TimeoutPrimitive
from tta_primitives.signature import of_both, wants_context


def of_input(value):
    """Take the input alone."""
    return value


def of_input_and_context(value, context):
    """Take both."""
    return value, context


def of_input_and_other(value, whatever):
    """Take both, by a name that does not say so."""
    return value, whatever


def of_input_and_default(value, digits=2):
    """Take the input, and something that is not the context."""
    return value, digits


def of_three(value, context, more):
    """Take more than there is."""
    return value, context, more


async def of_later(value):
    """Would have to be awaited."""
    return value


@step
def primitive(value):
    """Is no plain function."""
    return value


OPTIONS = {
    "key_fn": lambda function: CachePrimitive(primitive, ttl=1, key_fn=function),
    "cost": lambda function: RateLimitPrimitive(primitive, rate=10, cost=function),
    "key": lambda function: RateLimitPrimitive(primitive, rate=1, key=function),
    "timeout_seconds": lambda function: TimeoutPrimitive(
        primitive, timeout_seconds=function
    ),
}


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (of_input, 1),
        (str, "1"),
        (partial(of_input_and_default, digits=3), (1, 3)),
        (of_input_and_default, (1, 2)),
        (of_input_and_context, (1, "context")),
        (of_input_and_other, (1, "context")),
    ],
    ids=["input", "builtin", "partial", "default", "context", "other"],
)
def test_a_function_is_asked_with_what_it_takes(function, answer) -> None:
    """A parameter with a default is not filled by surprise."""
    assert of_both("key", function)(1, "context") == answer


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (7, r"=7 must be a function, f\(input\) or f\(input, context\)"),
        (primitive, r" must be a function, f\(input\) or f\(input, context\)"),
        (of_later, "of_later .*must not be async: it is asked before every call"),
        (
            of_three,
            r"=of_three must be f\(input\) or f\(input, context\), and wants more as",
        ),
        (lambda: 1, "no first parameter for the input"),
    ],
    ids=["number", "primitive", "async", "three", "none"],
)
def test_what_cannot_be_asked_is_refused_at_construction(function, text) -> None:
    """The error names the option and says what it may be."""
    with pytest.raises(TypeError, match=text):
        of_both("cost", function)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_refuses_what_it_cannot_ask(option) -> None:
    """Before the first call, and by its own name."""
    with pytest.raises(TypeError, match=f"^{option}=of_three must be f"):
        OPTIONS[option](of_three)
    with pytest.raises(TypeError, match=f"^{option}=.*must not be async"):
        OPTIONS[option](of_later)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_takes_a_function_of_the_input_alone(option) -> None:
    """The value it returns is used: 3 of what the option is about."""
    workflow = OPTIONS[option](lambda value: value + 2)
    assert VirtualClock().run(workflow.execute(1, WorkflowContext())) == 1


def test_a_cost_by_input_alone_is_what_is_taken() -> None:
    """Three units of ten."""
    limit = RateLimitPrimitive(primitive, rate=10, cost=lambda value: value + 2)

    async def left():
        await limit.execute(1, WorkflowContext())
        return limit.stats.available

    assert VirtualClock().run(left()) == 7


def test_a_predicate_says_by_its_names_whether_it_wants_the_context() -> None:
    """A second parameter of another name is refused there: it may mean anything."""
    assert wants_context("hedge_if", of_input_and_context)
    assert not wants_context("hedge_if", of_input_and_default)
    with pytest.raises(TypeError, match=r"of_input_and_other must.* wants whatever"):
        wants_context("hedge_if", of_input_and_other)
