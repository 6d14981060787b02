"""What type checkers know of stats."""

from __future__ import annotations

from typing import Any, assert_type

from tta_primitives import step
from tta_primitives.recovery import (
    FallbackPrimitive,
    FallbackStats,
    RetryPrimitive,
    RetryStats,
    TimeoutPrimitive,
    TimeoutStats,
)
from tta_primitives.stats import stats_of


@step
async def llm(question: str) -> int:
    """Answer."""
    return len(question)


retry = RetryPrimitive(llm)
assert_type(retry.stats, RetryStats)
assert_type(retry.stats.calls, int)
assert_type(retry.stats.retry_ratio, float)
assert_type(RetryPrimitive().stats, RetryStats)
assert_type(FallbackPrimitive(llm, [0]).stats, FallbackStats)
assert_type(FallbackPrimitive(llm, [0]).stats.answers, tuple[int, ...])
assert_type(TimeoutPrimitive(llm, timeout_seconds=1).stats, TimeoutStats)
assert_type(stats_of(retry >> str), dict[str, dict[str, Any]])
