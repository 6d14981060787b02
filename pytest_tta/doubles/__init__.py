"""Stand-ins whose answers a test writes down: mock primitives and the LLM double."""

from __future__ import annotations

from pytest_tta.doubles.calls import CallLog, LLMCall, RecordedCall
from pytest_tta.doubles.llm import LLMDouble
from pytest_tta.doubles.mock import MockPrimitive
from pytest_tta.doubles.rules import Rule
from pytest_tta.doubles.unexpected import UnexpectedCall
from pytest_tta.doubles.watch import DoublesWatch

__all__ = [
    "CallLog",
    "DoublesWatch",
    "LLMCall",
    "LLMDouble",
    "MockPrimitive",
    "RecordedCall",
    "Rule",
    "UnexpectedCall",
]
