"""The bugs of the zoo are planted well: an ordinary test sees none of them."""

from __future__ import annotations

import pytest

from tests.zoo.catalogue import SECOND, THIRD, ZOO


@pytest.mark.parametrize("bug", [*ZOO, *SECOND, *THIRD], ids=repr)
def test_a_bug_passes_an_ordinary_test(tta, bug):
    """The version with the bug passes as long as nothing fails and all is fast."""
    bug.body(tta, bug.buggy)


@pytest.mark.parametrize("bug", [*ZOO, *SECOND, *THIRD], ids=repr)
def test_the_correction_passes_the_same_test(tta, bug):
    """The version without the bug passes too, so the test asks nothing impossible."""
    bug.body(tta, bug.corrected)


def test_the_zoo_is_as_large_as_it_should_be():
    """Enough bugs, enough public reports, enough code without our primitives."""
    names = [bug.name for bug in ZOO]
    unseen = [bug.name for bug in (*SECOND, *THIRD)]

    assert len(set(names)) == len(names) >= 27
    assert len(set(unseen) - set(names)) == len(unseen) == 16
    assert len([bug for bug in ZOO if bug.issue_url]) >= 10
    assert len([bug for bug in ZOO if not bug.uses_primitives]) >= 8
