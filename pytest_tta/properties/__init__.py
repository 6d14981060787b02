"""Property tests of workflows: strategies that disturb them, invariants that must hold.

The strategies need Hypothesis; the invariants do not, and check any trace.
"""

from __future__ import annotations

from pytest_tta.properties.code import as_code
from pytest_tta.properties.invariants import (
    attempts_bounded,
    deadline_kept,
    fallback_order,
)
from pytest_tta.properties.plans import plans, schedules
from pytest_tta.properties.policies import policies
from pytest_tta.properties.profile import load_profile, register_profile
from pytest_tta.properties.promises import (
    at_most_once,
    compensated_in_reverse,
    nothing_left_running,
    permits_returned,
    probes_bounded,
    single_flight,
    ttl_kept,
)
from pytest_tta.properties.running import check, run_plan
from pytest_tta.properties.strategies import (
    errors,
    fault_plans,
    retry_policies,
    timeouts,
)
from pytest_tta.properties.workflows import workflows

__all__ = [
    "as_code",
    "at_most_once",
    "attempts_bounded",
    "check",
    "compensated_in_reverse",
    "deadline_kept",
    "errors",
    "fallback_order",
    "fault_plans",
    "load_profile",
    "nothing_left_running",
    "permits_returned",
    "plans",
    "policies",
    "probes_bounded",
    "register_profile",
    "retry_policies",
    "run_plan",
    "schedules",
    "single_flight",
    "timeouts",
    "ttl_kept",
    "workflows",
]
