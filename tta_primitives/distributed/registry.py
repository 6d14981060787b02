"""What a worker can be asked for: workflows by name, and positions in them by path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tta_primitives.context import Position, place
from tta_primitives.distributed.errors import UnknownWorkflowError
from tta_primitives.primitive import WorkflowPrimitive, as_operand, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tta_primitives.distributed.codec import Codec

__all__ = ["Registry", "Served"]

PrimitiveT = TypeVar("PrimitiveT", bound=WorkflowPrimitive[Any, Any])

_SHOWN = 5


class Served(NamedTuple):
    """A position that a worker can be asked for.

    Attributes:
        position: Where it is.
        codec: What makes its types of JSON, None if it takes JSON.
    """

    position: Position
    codec: Codec | None


class Registry:
    """The workflows that a worker executes, by name.

    Args:
        workflows: Primitives or functions, each registered under its own name.
        deps: Live objects (clients, sessions) for `context.deps` of every call; may be
            filled later, when the worker starts.

    Attributes:
        deps: As above.

    Raises:
        ValueError: Two different workflows have one name.
    """

    def __init__(
        self,
        *workflows: WorkflowPrimitive[Any, Any] | Callable[..., Any],
        deps: Mapping[str, Any] | None = None,
    ) -> None:
        self.deps: dict[str, Any] = dict(deps or {})
        self._workflows: dict[str, WorkflowPrimitive[Any, Any]] = {}
        self._served: dict[str, dict[str, Served]] = {}
        for workflow in workflows:
            self.register(as_operand(workflow))

    def register(
        self,
        workflow: PrimitiveT,
        *,
        name: str | None = None,
        codec: Codec | None = None,
    ) -> PrimitiveT:
        """Register a workflow; return it, so that this may stand above `@step`.

        Args:
            workflow: What to execute.
            name: What callers ask for; the workflow's own name unless given.
            codec: What makes its types of JSON; the caller's must be the same.

        Raises:
            ValueError: Another workflow has this name.
        """
        primitive = as_operand(workflow)
        name = primitive.name if name is None else name
        if self._workflows.get(name, primitive) is not primitive:
            msg = (
                f"name={name!r} is registered for {self._workflows[name]!r} already; "
                f"give {primitive!r} another name"
            )
            raise ValueError(msg)
        self._workflows[name] = primitive
        self._served[name] = {}
        for position in _positions(primitive, name, None):
            own = codec if position.parent is None else None
            self._served[name][position.path] = Served(position, own)
        return workflow

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which workflows are registered."""
        return tuple(self._workflows)

    def paths(self) -> tuple[str, ...]:
        """Return the paths of all positions that a worker can be asked for."""
        return tuple(path for served in self._served.values() for path in served)

    def __iter__(self) -> Iterator[str]:
        return iter(self._workflows)

    def __contains__(self, name: object) -> bool:
        return name in self._workflows

    def find(self, workflow: str, path: str) -> Served:
        """Return a position in a workflow.

        Args:
            workflow: Its name.
            path: Beginning with that name, for instance `support/retry/llm`.

        Raises:
            UnknownWorkflowError: There is none; the message has the nearest.
        """
        served = self._served.get(workflow)
        if served is None:
            msg = f"no workflow {workflow!r} is registered on this worker"
            msg = f"{msg}; {_hint(workflow, self._workflows)}"
            raise UnknownWorkflowError(msg)
        found = served.get(path)
        if found is None:
            msg = f"the workflow {workflow!r} has no position {path!r} on this worker"
            msg = f"{msg}; {_hint(path, served)}"
            raise UnknownWorkflowError(msg)
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._workflows)}>"


def _positions(
    primitive: WorkflowPrimitive[Any, Any], label: str, parent: Position | None
) -> Iterator[Position]:
    position = place(parent, primitive, label)
    yield position
    children = primitive.children()
    for child, below in zip(children, labels(children), strict=True):
        yield from _positions(child, below, position)


def _hint(asked: str, known: Mapping[str, object]) -> str:
    """Tell what is nearest to a name that is unknown."""
    from difflib import get_close_matches  # Only who mistypes needs it.

    near = get_close_matches(asked, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    if not known:
        return "none is: call registry.register(workflow)"
    some = ", ".join(map(repr, sorted(known)[:_SHOWN]))
    return f"there is {some}{' ...' if len(known) > _SHOWN else ''}"
