"""Plain pictures of a workflow tree: JSON-able data and Mermaid text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from tta_primitives.arguments import is_timedelta
from tta_primitives.signature import function_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Description", "mermaid", "plain"]

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


class Description(TypedDict):
    """What `describe()` tells of one primitive.

    Attributes:
        type: The class's name.
        name: The primitive's name.
        options: Its options that differ from nothing, as plain data.
        children: The primitives below it, in the order in which they run.
    """

    type: str
    name: str
    options: dict[str, Any]
    children: list[Description]


def plain(value: object) -> Plain:
    """Return a value as JSON-able data; functions and classes by their names."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_timedelta(value):
        return value.total_seconds()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return _by_name(value)


def _by_name(value: object) -> str:
    """Name a value without its address, which would differ from run to run."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str):
        return name if module == "builtins" else f"{module}.{name}"
    if callable(value):
        return function_name(value)
    return f"<{type(value).__name__}>"


def mermaid(description: Description) -> str:
    """Return a Mermaid flowchart of a tree, top to bottom, parents above children."""
    lines = ["flowchart TD"]
    lines.extend(_mermaid_lines(description, "n0", iter(range(1, 1_000_000))))
    return "\n".join(lines) + "\n"


def _mermaid_lines(
    node: Description, identifier: str, numbers: Iterator[int]
) -> Iterator[str]:
    kind = node["type"].removesuffix("Primitive")
    options = ", ".join(f"{key}={value!r}" for key, value in node["options"].items())
    lines = [_escape(text) for text in (node["name"], kind, options) if text]
    shown = "<br/>".join(lines)
    yield f'    {identifier}["{shown}"]'
    for child in node["children"]:
        below = f"n{next(numbers)}"
        yield from _mermaid_lines(child, below, numbers)
        yield f"    {identifier} --> {below}"


def _escape(text: str) -> str:
    """Escape what ends a Mermaid label or would be read as markup in it."""
    return "".join(f"#{ord(c)};" if c in '#&"<>`' else c for c in text)
