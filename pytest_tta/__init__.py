"""Prove that async workflows are resilient: `pytest --tta`.

The names below are imported when they are first used, so that loading the plugin does
not load them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tta.clock.clock import VirtualClock as VirtualClock
    from pytest_tta.clock.errors import ClockDeadlock as ClockDeadlock
    from pytest_tta.clock.errors import ClockError as ClockError
    from pytest_tta.clock.errors import ClockHeld as ClockHeld
    from pytest_tta.clock.errors import ClockPaused as ClockPaused
    from pytest_tta.clock.errors import ClockRunaway as ClockRunaway
    from pytest_tta.clock.errors import ClockSpin as ClockSpin
    from pytest_tta.doubles.llm import LLMDouble as LLMDouble
    from pytest_tta.doubles.mock import MockPrimitive as MockPrimitive
    from pytest_tta.doubles.unexpected import UnexpectedCall as UnexpectedCall
    from pytest_tta.faults.plan import FaultPlan as FaultPlan
    from pytest_tta.faults.plan import FaultRule as FaultRule
    from pytest_tta.harness import Harness as Harness
    from pytest_tta.harness import HarnessError as HarnessError
    from pytest_tta.operation import op as op
    from pytest_tta.trace.pattern import S as S
    from pytest_tta.trace.pattern import any_order as any_order
    from pytest_tta.trace.pattern import no as no
    from pytest_tta.trace.spans import Span as Span
    from pytest_tta.trace.spans import Trace as Trace

_HOMES = {
    "ClockDeadlock": "pytest_tta.clock.errors",
    "ClockError": "pytest_tta.clock.errors",
    "ClockHeld": "pytest_tta.clock.errors",
    "ClockPaused": "pytest_tta.clock.errors",
    "ClockRunaway": "pytest_tta.clock.errors",
    "ClockSpin": "pytest_tta.clock.errors",
    "FaultPlan": "pytest_tta.faults.plan",
    "FaultRule": "pytest_tta.faults.plan",
    "Harness": "pytest_tta.harness",
    "HarnessError": "pytest_tta.harness",
    "LLMDouble": "pytest_tta.doubles.llm",
    "MockPrimitive": "pytest_tta.doubles.mock",
    "S": "pytest_tta.trace.pattern",
    "Span": "pytest_tta.trace.spans",
    "Trace": "pytest_tta.trace.spans",
    "UnexpectedCall": "pytest_tta.doubles.unexpected",
    "VirtualClock": "pytest_tta.clock.clock",
    "any_order": "pytest_tta.trace.pattern",
    "no": "pytest_tta.trace.pattern",
    "op": "pytest_tta.operation",
}

__all__ = [
    "ClockDeadlock",
    "ClockError",
    "ClockHeld",
    "ClockPaused",
    "ClockRunaway",
    "ClockSpin",
    "FaultPlan",
    "FaultRule",
    "Harness",
    "HarnessError",
    "LLMDouble",
    "MockPrimitive",
    "S",
    "Span",
    "Trace",
    "UnexpectedCall",
    "VirtualClock",
    "any_order",
    "no",
    "op",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
