"""Property tests of workflows: strategies that disturb them, invariants that must hold.

The strategies need Hypothesis; the invariants do not, and check any trace.
"""

from __future__ import annotations

from pytest_tta.properties.invariants import (
    attempts_bounded,
    deadline_kept,
    fallback_order,
)
from pytest_tta.properties.profile import load_profile, register_profile
from pytest_tta.properties.strategies import (
    errors,
    fault_plans,
    retry_policies,
    timeouts,
)

__all__ = [
    "attempts_bounded",
    "deadline_kept",
    "errors",
    "fallback_order",
    "fault_plans",
    "load_profile",
    "register_profile",
    "retry_policies",
    "timeouts",
]
