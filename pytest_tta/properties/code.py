"""Workflows as code: what a failing example prints can be pasted."""

from __future__ import annotations

import re
from typing import Any

from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    WorkflowPrimitive,
)
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.hedge import HedgePrimitive

__all__ = ["as_code", "print_as_code"]

_OPERATORS: dict[type[WorkflowPrimitive[Any, Any]], str] = {
    SequentialPrimitive: " >> ",
    ParallelPrimitive: " | ",
}
# Arguments of a constructor that are children, not options.
_LISTS: dict[type, str] = {
    FallbackPrimitive: "fallbacks",
    HedgePrimitive: "alternatives",
}


def as_code(workflow: WorkflowPrimitive[Any, Any]) -> str:
    """Return the expression that makes a workflow.

    Steps stand in it by their names, as they do where they are defined; classes of
    errors by theirs.

    Args:
        workflow: A primitive, with all that is below it.
    """
    children = workflow.children()
    if not children:
        return re.sub(r"\W", "_", workflow.name)
    kind = type(workflow)
    if kind in _OPERATORS:
        # The operator would make one of the two.
        if any(type(one) is kind for one in children):
            return f"{kind.__name__}([{', '.join(map(as_code, children))}])"
        return _OPERATORS[kind].join(_operand(one) for one in children)
    arguments = [as_code(children[0])]
    name = next((_LISTS[kind] for kind in type(workflow).__mro__ if kind in _LISTS), "")
    if name and children[1:]:
        arguments.append(f"{name}=[{', '.join(map(as_code, children[1:]))}]")
    arguments += [f"{key}={_shown(one)}" for key, one in workflow.options().items()]
    return f"{type(workflow).__name__}({', '.join(arguments)})"


def _operand(child: WorkflowPrimitive[Any, Any]) -> str:
    return f"({as_code(child)})" if type(child) in _OPERATORS else as_code(child)


def _shown(value: object) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, tuple):
        inner = ", ".join(map(_shown, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def print_as_code() -> None:
    """Let Hypothesis print workflows, wherever they stand in an example, as code."""
    from hypothesis.vendor import pretty

    def printer(workflow: Any, printer: Any, _cycle: bool) -> None:  # noqa: ANN401, FBT001 - its own
        printer.text(as_code(workflow))

    pretty.for_type_by_name("tta_primitives.primitive", "WorkflowPrimitive", printer)
