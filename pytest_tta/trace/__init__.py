"""Record what workflows do, and compare it with patterns."""

from __future__ import annotations

from pytest_tta.trace.diff import explain, tree_diff
from pytest_tta.trace.pattern import S, any_order, no
from pytest_tta.trace.recorder import TraceRecorder
from pytest_tta.trace.spans import Event, Span, SpanNotFoundError, Trace

__all__ = [
    "Event",
    "S",
    "Span",
    "SpanNotFoundError",
    "Trace",
    "TraceRecorder",
    "any_order",
    "explain",
    "no",
    "tree_diff",
]
