"""Make calls go wrong: what, where and when."""

from __future__ import annotations

from pytest_tta.faults.catalogue import (
    Fault,
    cancel,
    fail,
    hang,
    lost_ack,
    returns,
    slow,
)
from pytest_tta.faults.injector import FaultInjector, FaultSite, Injection
from pytest_tta.faults.plan import FaultPlan, FaultRule
from pytest_tta.faults.schedules import (
    Schedule,
    always,
    at_time,
    chance,
    every,
    first,
    nth,
    when,
)

__all__ = [
    "Fault",
    "FaultInjector",
    "FaultPlan",
    "FaultRule",
    "FaultSite",
    "Injection",
    "Schedule",
    "always",
    "at_time",
    "cancel",
    "chance",
    "every",
    "fail",
    "first",
    "hang",
    "lost_ack",
    "nth",
    "returns",
    "slow",
    "when",
]
