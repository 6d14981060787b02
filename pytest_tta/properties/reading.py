"""How invariants read a trace, and how they say that one does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pytest_tta.trace.spans import WIDTHS
from tta_primitives.primitive import WorkflowPrimitive, labels, positions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.trace.spans import Span, Trace
    from tta_primitives.door import Call

__all__ = [
    "check_ran",
    "executions",
    "fail",
    "found",
    "log_of",
    "undecided",
    "wrapped",
]

P = TypeVar("P", bound=WorkflowPrimitive[Any, Any])


def executions(trace: Trace, kind: type[P]) -> Iterator[tuple[Span, P]]:
    """Yield the executions of primitives of a kind, with the primitives."""
    for span in trace.spans:
        primitive = span._call.primitive
        if isinstance(primitive, kind):
            yield span, primitive


def log_of(trace: Trace) -> Iterator[tuple[str, Call, float, list[Any]]]:
    """Yield what was recorded in the order in which it happened.

    Spans know when, and two things at one instant have an order as well.
    """
    log, at = trace._recording.log, 0
    while at < len(log):
        end = at + WIDTHS[log[at]]
        what, call, moment, *rest = log[at:end]
        yield what, call, moment, rest
        at = end


def wrapped(span: Span, primitive: WorkflowPrimitive[Any, Any]) -> list[Span]:
    """Return the executions of the first child, which is what a wrapper is around."""
    label = labels(primitive.children())[0]
    return [child for child in span.children if child.label == label]


def found(workflow: WorkflowPrimitive[Any, Any], kind: type[P]) -> list[P]:
    """Return all primitives of a kind in a workflow."""
    return [one for _, one in positions(workflow) if isinstance(one, kind)]


def check_ran(trace: Trace, workflow: WorkflowPrimitive[Any, Any]) -> None:
    """Check that a workflow is in the trace at all.

    Raises:
        AssertionError: It is not.
    """
    __tracebackhide__ = True
    if not any(span._call.primitive is workflow for span in trace.spans):
        undecided(workflow, f"did not run: {trace!r}")


def undecided(workflow: WorkflowPrimitive[Any, Any], why: str) -> NoReturn:
    """Fail because nothing can be decided about a workflow.

    Raises:
        AssertionError: Always.
    """
    __tracebackhide__ = True
    msg = f"{workflow.name} {why}"
    raise AssertionError(msg)


def fail(span: Span, what: str) -> NoReturn:
    """Fail because of one execution.

    Raises:
        AssertionError: Always.
    """
    __tracebackhide__ = True
    msg = f"{span.path}@{span.execution} {what}"
    raise AssertionError(msg)
