"""What can be wrapped, for type checkers: a primitive, or a function like one.

A function has the input, and may have the context behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tta_primitives.context import WorkflowContext
from tta_primitives.primitive import In, Out, WorkflowPrimitive

__all__ = ["AsyncOperand", "SyncOperand"]

# In overloads the first comes before the second: what is awaited is no output.

AsyncOperand: TypeAlias = (
    WorkflowPrimitive[In, Out]
    | Callable[[In], Awaitable[Out]]
    | Callable[[In, WorkflowContext], Awaitable[Out]]
)
"""A primitive, or a function whose output is awaited."""

SyncOperand: TypeAlias = Callable[[In], Out] | Callable[[In, WorkflowContext], Out]
"""A function that returns its output."""
