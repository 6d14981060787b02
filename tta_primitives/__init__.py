"""Composable primitives for resilient async workflows.

Compose with `validate >> RetryPrimitive(llm, max_retries=3) >> format_answer` and
`a | b`, run with `await workflow.execute(input_data, WorkflowContext())`, and prove
that it is resilient with `pytest --tta`.

PYTEST_DONT_REWRITE: the runtime has no asserts, and must load the same way everywhere.
"""

from __future__ import annotations

from tta_primitives.branching import ConditionalPrimitive, RouterPrimitive
from tta_primitives.context import WorkflowContext
from tta_primitives.mapping import MapPrimitive
from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    StepPrimitive,
    WorkflowPrimitive,
    step,
)

__all__ = [
    "ConditionalPrimitive",
    "MapPrimitive",
    "ParallelPrimitive",
    "RouterPrimitive",
    "SequentialPrimitive",
    "StepPrimitive",
    "WorkflowContext",
    "WorkflowPrimitive",
    "step",
]
