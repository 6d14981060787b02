"""The context's own methods, as a caller sees them."""

from __future__ import annotations

from typing import assert_type

from tta_primitives import WorkflowContext

context = WorkflowContext(correlation_id="c-1")

assert_type(context, WorkflowContext)
assert_type(context.child(), WorkflowContext)
assert_type(context.correlation_id, str)
assert_type(context.elapsed_ms(), float)

WorkflowContext(correlation_id=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
