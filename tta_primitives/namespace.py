"""What tells one cache's entries from another's in a storage that they share."""

from __future__ import annotations

import sys
from functools import partial
from inspect import isclass, ismodule
from typing import TYPE_CHECKING, Any

from tta_primitives.description import plain
from tta_primitives.errors import CacheKeyError
from tta_primitives.keys import canonical, digest, type_name
from tta_primitives.primitive import StepPrimitive, WorkflowPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["namespace_of"]


def namespace_of(primitive: WorkflowPrimitive[Any, Any]) -> str:
    """Return a digest of what a tree of primitives is: the same in every process.

    Args:
        primitive: The root of the tree.

    Raises:
        ValueError: It holds a function without a name of its own, such as a lambda, or
            state that has no canonical form: another tree could have the same digest.
    """
    return digest(canonical(_identity(primitive)))


def _identity(primitive: WorkflowPrimitive[Any, Any]) -> list[Any]:
    options = primitive.options()
    for function in _functions_in(options):
        _function_name(function, primitive)
    own: Any = None
    kind: type[WorkflowPrimitive[Any, Any]] = type(primitive)
    if isinstance(primitive, StepPrimitive):
        name = _function_name(primitive._function, primitive)
        own = [name, _state(primitive, primitive._extras)]
        kind = StepPrimitive
    elif not _tells_its_options(kind):
        own = _state(primitive, _own_state(primitive))
    children = [_identity(child) for child in primitive.children()]
    return [type_name(kind), primitive.name, plain(options), own, children]


def _tells_its_options(kind: type[WorkflowPrimitive[Any, Any]]) -> bool:
    is_ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return is_ours or kind.options is not WorkflowPrimitive.options


def _own_state(primitive: WorkflowPrimitive[Any, Any]) -> dict[str, Any]:
    """Return the attributes of a user's primitive, without its children."""
    return {
        name: value
        for name, value in vars(primitive).items()
        if name != "_name" and not isinstance(value, WorkflowPrimitive)
    }


def _state(primitive: WorkflowPrimitive[Any, Any], state: dict[str, Any]) -> str:
    try:
        return canonical(state)
    except CacheKeyError:
        why = "holds what has no canonical form"
        if isinstance(primitive, StepPrimitive):
            why = "is bound to what has no canonical form"
        raise _no_namespace(primitive, why) from None


def _functions_in(value: object) -> Iterator[Callable[..., Any]]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _functions_in(part)
    elif callable(value) and not isclass(value):
        yield value


def _function_name(
    function: Callable[..., Any], primitive: WorkflowPrimitive[Any, Any]
) -> str:
    if isinstance(function, partial):
        bound = {"args": function.args, **function.keywords}
        return _function_name(function.func, primitive) + _state(primitive, bound)
    owner = getattr(function, "__self__", None)
    if owner is not None and not (isclass(owner) or ismodule(owner)):
        raise _no_namespace(primitive, f"is a method of one {type(owner).__name__}")
    name = getattr(function, "__qualname__", None)
    if name is None:
        raise _no_namespace(primitive, f"is one {type(function).__name__}")
    if "<" in name:
        is_lambda = name.endswith("<lambda>")
        raise _no_namespace(
            primitive, "holds a lambda" if is_lambda else "holds a local function"
        )
    return f"{_module_name(function)}.{name}"


def _module_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__module__", None) or ""
    if name == "__main__":
        # Every script is called so; the file tells which.
        return f"__main__:{getattr(sys.modules[name], '__file__', '')}"
    return name


def _no_namespace(primitive: WorkflowPrimitive[Any, Any], why: str) -> ValueError:
    msg = (
        f"{primitive.name!r} {why}, which nothing tells from another in a shared "
        "storage; give what has the storage a namespace='...' of its own"
    )
    return ValueError(msg)
