"""What the error means that a test's body has ended with."""

from __future__ import annotations

from pytest_tta.explore.judge import Situation, judge
from pytest_tta.explore.sites import RetryStorm


def test_a_storm_in_a_group_is_a_storm():
    """A TaskGroup wraps what a site raises; the verdict names the storm itself."""
    storm = RetryStorm("db.read was called 33 times")
    group = BaseExceptionGroup("tasks", [ExceptionGroup("other", [OSError()]), storm])

    verdict = judge(group, Situation(deviates=True)).verdict

    assert verdict.kind == "retry storm"
    assert verdict.error is storm
