"""Each bug of the zoo is found by the default search, and nothing in what is right."""

from __future__ import annotations

import pytest

from tests.zoo.catalogue import ZOO
from tests.zoo.visit import replayed, visit


@pytest.mark.parametrize("bug", ZOO, ids=repr)
def test_a_bug_is_found_made_small_and_brought_back(bug):
    """The defaults find it; what is left is small, and fails 20 times out of 20."""
    seen = visit(bug, bug.buggy)

    assert seen.found is not None, f"not found in {seen.executions} executions"
    verdict, plan = seen.found.verdict, seen.found.plan
    assert verdict.kind in bug.kinds, f"{verdict.kind}: {verdict.text}"
    assert len(plan.faults) <= 1
    assert len(plan.schedule.deviations) <= 2
    again = replayed(bug, bug.buggy, seen.line, times=20)
    assert {one.verdict and one.verdict.group for one in again} == {verdict.group}


@pytest.mark.parametrize("bug", ZOO, ids=repr)
def test_nothing_is_found_in_what_is_right(bug):
    """The corrected version holds in 300 executions, all faults among them."""
    seen = visit(bug, bug.corrected, lambda hunt: hunt.executions < 300)

    assert seen.found is None, f"{seen.line}: {seen.found.verdict}"
    assert seen.executions >= 300


@pytest.mark.long
@pytest.mark.parametrize("bug", ZOO, ids=repr)
def test_nothing_is_found_in_what_is_right_however_long(bug):
    """The corrected version holds in 10 000 executions."""
    seen = visit(bug, bug.corrected, lambda hunt: hunt.executions < 10_000)

    assert seen.found is None, f"{seen.line}: {seen.found.verdict}"
