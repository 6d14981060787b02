"""A workflow with a name and a version, whose runs survive their process."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Generic

from tta_primitives.primitive import In, Out, as_operand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["DurableWorkflow", "durable"]

_LONGEST_NAME = 200


class DurableWorkflow(Generic[In, Out]):
    """What `durable` makes; hand it to `durable_runtime`, and start runs there.

    Attributes:
        workflow: What is run.
        name: What its runs are found by after a restart.
        version: What a run must have been begun with to be resumed here.
    """

    __slots__ = ("_compatible", "_make_deps", "name", "version", "workflow")

    def __init__(
        self,
        workflow: WorkflowPrimitive[In, Out],
        name: str,
        *,
        version: str | None,
        compatible_with: Iterable[str],
        deps: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        self.workflow: WorkflowPrimitive[In, Out] = workflow
        self.name: str = name
        self.version: str = _shape(workflow) if version is None else version
        self._compatible = frozenset(compatible_with) | {self.version}
        self._make_deps = deps

    def can_resume(self, version: str) -> bool:
        """Tell whether a run that was begun with this version goes on here."""
        return version in self._compatible

    def deps(self) -> dict[str, Any]:
        """Return the live objects for one execution."""
        return {} if self._make_deps is None else dict(self._make_deps())

    def __repr__(self) -> str:
        return f"<DurableWorkflow {self.name!r} version={self.version!r}>"


def durable(
    workflow: WorkflowPrimitive[In, Out] | Callable[[In], Awaitable[Out]],
    *,
    name: str,
    version: str | None = None,
    compatible_with: Iterable[str] = (),
    deps: Callable[[], Mapping[str, Any]] | None = None,
) -> DurableWorkflow[In, Out]:
    """Make the runs of a workflow survive their process.

    Nothing is changed in the workflow: each leaf is recorded at the door when it has
    returned or raised, under its path, and a resumed run takes what is recorded.

    Args:
        workflow: Any workflow. What its steps return must be JSON data; tuples, bytes,
            dates, decimals, UUIDs and exceptions are kept as what they are.
        name: What the runs are found by after a restart: never change it.
        version: What tells versions of the workflow apart. Unless given it is derived
            from the names and types of the primitives in it, so that it changes when a
            step is added, renamed or moved.
        compatible_with: Other versions whose runs may go on with this one.
        deps: Called for each execution of a run; what it returns is put into
            `context.deps`, which is not recorded.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The name is empty or too long.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        msg = f"name={name!r} must be a text of 1 to {_LONGEST_NAME} characters"
        raise ValueError(msg)
    if isinstance(compatible_with, str):
        msg = f"compatible_with={compatible_with!r} must be a collection of versions"
        raise TypeError(msg)
    if deps is not None and not callable(deps):
        msg = f"deps={deps!r} must be a function that returns them"
        raise TypeError(msg)
    return DurableWorkflow(
        as_operand(workflow),
        name,
        version=version,
        compatible_with=compatible_with,
        deps=deps,
    )


def _shape(workflow: WorkflowPrimitive[Any, Any]) -> str:
    """Return a digest of what the paths of the steps depend on."""

    def drawn(primitive: WorkflowPrimitive[Any, Any]) -> list[Any]:
        below = [drawn(child) for child in primitive.children()]
        return [type(primitive).__name__, primitive.name, below]

    return hashlib.sha256(json.dumps(drawn(workflow)).encode()).hexdigest()[:12]
