"""What may answer instead of a primitive: another, a function, or a plain value."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tta_primitives.primitive import Out, WorkflowPrimitive, as_operand

if TYPE_CHECKING:
    from tta_primitives.context import WorkflowContext

__all__ = ["FallbackOutcome", "as_alternative", "is_value"]

_CONTAINERS = (list, dict, set, bytearray)


@dataclass(frozen=True, slots=True)
class FallbackOutcome:
    """Who answered instead of the primary, as `context.outcomes[path]` tells it.

    Attributes:
        index: Which alternative: 1 is the first fallback, 0 would be the primary.
        name: The name of the primitive that answered.
        errors: What those before it raised, in order; None for a refused result.
    """

    index: int
    name: str
    errors: tuple[Exception | None, ...]


class ValuePrimitive(WorkflowPrimitive[Any, Out]):
    """Answers everything with one value.

    Args:
        value: What to answer; lists, dicts and sets are copied each time, so that no
            caller changes the answer of the next.
    """

    _needs_position = False
    _reads_deadline = False

    def __init__(self, value: Out) -> None:
        self._value = value
        self._name = "value"

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return nothing: a value is a leaf."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return the value."""
        return {"value": self._value}

    async def execute(
        self,
        input_data: object,  # noqa: ARG002 - the answer is always the same
        context: WorkflowContext,  # noqa: ARG002
        /,
    ) -> Out:
        """Return the value."""
        return copy.deepcopy(self._value) if _is_container(self._value) else self._value


def _is_container(value: object) -> bool:
    return isinstance(value, _CONTAINERS)


def is_value(alternative: object) -> bool:
    """Tell whether an alternative is a plain value: neither primitive nor function."""
    return not isinstance(alternative, WorkflowPrimitive) and not callable(alternative)


def as_alternative(alternative: object) -> WorkflowPrimitive[Any, Any]:
    """Return a primitive for an alternative.

    Args:
        alternative: A primitive, a function, or a plain value.

    Raises:
        TypeError: It is an open wrapper, or a function without a parameter for the
            input.
    """
    if is_value(alternative):
        return ValuePrimitive(alternative)
    return as_operand(cast("WorkflowPrimitive[Any, Any]", alternative))
