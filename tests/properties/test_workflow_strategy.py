"""Generated workflows: they run, shrink to a step alone, and print as code."""

from __future__ import annotations

import random

import pytest
from hypothesis import find, given, settings
from hypothesis.vendor.pretty import pretty

import tta_primitives
import tta_primitives.performance
import tta_primitives.recovery
from pytest_tta import Harness
from pytest_tta.properties import as_code, workflows
from tta_primitives import ParallelPrimitive, SequentialPrimitive, step
from tta_primitives.performance import CachePrimitive
from tta_primitives.primitive import positions
from tta_primitives.recovery import (
    BulkheadPrimitive,
    FallbackPrimitive,
    RetryPrimitive,
    TimeoutPrimitive,
)

QUICK = settings(database=None, max_examples=60, deadline=None)


@step
async def llm(question):
    """Answer."""
    return question


@step
async def other(question):
    """Answer as well."""
    return question


NAMES = {
    **vars(tta_primitives),
    **vars(tta_primitives.recovery),
    **vars(tta_primitives.performance),
    "llm": llm,
    "other": other,
}


def smallest(strategy, wanted):
    """Return what a strategy shrinks to, as it is printed."""
    options = settings(database=None, max_examples=5000, deadline=None)
    return pretty(find(strategy, wanted, settings=options, random=random.Random(1)))


def depth(workflow):
    """Return how many primitives are around the innermost step."""
    return max(path.count("/") for path, _ in positions(workflow))


def has(kind):
    """Return a predicate: one of this kind is somewhere in it."""
    return lambda workflow: any(isinstance(one, kind) for _, one in positions(workflow))


@QUICK
@given(workflow=workflows([llm, other]))
def test_undisturbed_workflows_answer_as_their_steps_do(workflow):
    """Whatever is around a step that never fails, the answer is the same."""
    assert depth(workflow) <= 3
    with Harness() as tta:
        assert tta.run(workflow, "6 * 7?") == "6 * 7?"


@QUICK
@given(workflow=workflows([llm, other], shapes=["sequential", "parallel", "cache"]))
def test_workflows_print_as_code(workflow):
    """Evaluated, it is the same workflow again."""
    twin = eval(pretty(workflow), NAMES)
    assert twin.describe() == workflow.describe()


def test_errors_and_durations_are_printed_as_code():
    """Classes by their names, options as they are written."""
    workflow = FallbackPrimitive(
        CachePrimitive(llm, ttl=2.5, negative_ttl=1, negative_on=(OSError,)),
        fallbacks=[llm >> other, llm | other],
        fallback_on=(OSError, ValueError),
    )
    assert as_code(workflow) == (
        "FallbackPrimitive(CachePrimitive(llm, ttl=2.5, negative_ttl=1, "
        "negative_on=(OSError,)), fallbacks=[llm >> other, llm | other], "
        "fallback_on=(OSError, ValueError))"
    )


def test_compound_operands_stand_in_brackets():
    """A chain of a parallel is not a parallel of chains, nor two parallels one."""
    both = ParallelPrimitive([llm, other])
    assert as_code(SequentialPrimitive([both, other])) == "(llm | other) >> other"
    nested = ParallelPrimitive([both, other])
    assert as_code(nested) == "ParallelPrimitive([llm | other, other])"


def test_the_plainest_workflow_is_the_first_step():
    """What does not matter for a failure is not around it."""
    assert smallest(workflows([llm, other]), lambda _: True) == "llm"


def test_one_primitive_that_matters_is_all_that_is_left():
    """It stands around the first step, with the plainest options."""
    found = smallest(workflows([llm, other]), has(BulkheadPrimitive))
    assert found == "BulkheadPrimitive(llm, max_concurrency=8, max_queue=None)"


def test_two_primitives_that_matter_are_all_that_is_left():
    """Also where others were between them."""

    def wanted(workflow):
        inner = has(TimeoutPrimitive)
        return any(
            isinstance(one, RetryPrimitive) and inner(one)
            for _, one in positions(workflow)
        )

    found = smallest(workflows([llm]), wanted)
    limit = "TimeoutPrimitive(llm, timeout_seconds=60.0)"
    assert found == f"RetryPrimitive({limit}, max_retries=0)"


def test_only_the_given_shapes_are_generated():
    """At most so deep as was asked for."""
    seen = set()

    @QUICK
    @given(workflow=workflows([llm], max_depth=1, shapes=["retry", "sequential"]))
    def collect(workflow):
        assert depth(workflow) <= 1
        seen.update(one.name for _, one in positions(workflow))

    collect()
    assert seen == {"llm", "retry", "sequential"}


def test_without_depth_steps_are_alone():
    """Nothing is around them."""
    assert smallest(workflows([other], max_depth=0), lambda _: True) == "other"


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"steps": []}, ValueError, r"steps=\[\] must have at least one step"),
        ({"steps": ["llm"]}, TypeError, r"'llm'"),
        ({"max_depth": -1}, ValueError, r"max_depth=-1 must be"),
        ({"shapes": []}, ValueError, r"shapes=\[\] must be a list of shapes"),
        ({"shapes": "retry"}, ValueError, r"shapes='retry' must be a list of shapes"),
        ({"shapes": ["saga"]}, ValueError, r"shapes='saga' must be .*hedge"),
        ({"max_seconds": 0.0}, ValueError, r"max_seconds=0\.0 must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, text):
    """The error names the argument and shows the value."""
    with pytest.raises(kind, match=text):
        workflows(**{"steps": [llm], **arguments})
