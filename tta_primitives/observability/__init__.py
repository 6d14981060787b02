"""Traces, metrics and logs of workflows: `initialize_observability` turns them on."""

from __future__ import annotations

from tta_primitives.observability.exporting import SpanCounts
from tta_primitives.observability.metrics import metrics_asgi_app, metrics_wsgi_app
from tta_primitives.observability.redaction import Redactor
from tta_primitives.observability.setup import (
    Observability,
    ObservabilityOptions,
    initialize_observability,
)
from tta_primitives.observability.whereabouts import ContextFilter, ContextProcessor

__all__ = [
    "ContextFilter",
    "ContextProcessor",
    "Observability",
    "ObservabilityOptions",
    "Redactor",
    "SpanCounts",
    "initialize_observability",
    "metrics_asgi_app",
    "metrics_wsgi_app",
]
