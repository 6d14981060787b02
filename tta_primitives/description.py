"""A workflow tree as JSON-able data, and as Mermaid text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from tta_primitives.arguments import is_timedelta
from tta_primitives.signature import function_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Description",
    "cleaned",
    "cut",
    "labels",
    "leads",
    "mermaid",
    "plain",
    "shown_option",
]

_LONG_PATH = 24
_MOST_IN_LABEL = 400
# When the first of what is below a primitive runs, and when the others do.
_LEADS = {
    "ConditionalPrimitive": ("then", "else"),
    "FallbackPrimitive": ("", "if it fails"),
    "TimeoutPrimitive": ("", "if it takes longer"),
    "CompensationPrimitive": ("", "undo"),
}
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


def cleaned(text: str) -> str:
    r"""Return a text in which whatever cannot be seen is written as `\x1b` or `\u202e`.

    Control characters are no XML, lone surrogates no UTF-8, and marks of direction turn
    around what stands beside them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _visible(c) for c in text)


def _visible(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters, its middle replaced by a sign."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def shown_option(key: str, value: Any) -> str:  # noqa: ANN401 - any plain data
    """Return an option as a picture shows it: `max_retries=3`, `routes=[fast, slow]`.

    Args:
        key: Its name.
        value: Plain data. Functions are texts in it, so texts have no quotes.
    """
    return f"{key}={_shown(value)}"


def _shown(value: Any) -> str:  # noqa: ANN401 - any plain data
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        pairs = (f"{key}: {_shown(one)}" for key, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    text = str(value)
    # Of a function or a class far away, its own name says most.
    is_far = len(text) > _LONG_PATH and all(map(str.isidentifier, text.split(".")))
    return f"…{text.rpartition('.')[2]}" if is_far else text


def labels(description: Description) -> list[str]:
    """Return the labels of what is below: its names, `#2` for the second of a name."""
    seen: Counter[str] = Counter()
    found = []
    for child in description["children"]:
        name = child["name"]
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def leads(description: Description) -> list[str]:
    """Return when each of the primitives below one runs; empty if it always does.

    Args:
        description: Of the one, whose class is told by its name and its options.
    """
    kind, options = description["type"], description["options"]
    number = len(description["children"])
    if isinstance(options.get("routes"), list):
        return _routes(description)
    if isinstance(options.get("compensations"), dict):
        pairs = options["compensations"].items()
        undone = {undo: f"undoes {step}" for step, undo in pairs}
        return [undone.get(label, "") for label in labels(description)]
    first, others = _LEADS.get(kind, ("", ""))
    return [first, *[others] * (number - 1)][:number]


def _routes(description: Description) -> list[str]:
    """Return the names of the routes; one is the default if the options say which."""
    routes, below = description["options"]["routes"], description["children"]
    shown = [str(route) for route in routes]
    if len(below) > len(shown):
        return [*shown, *["default"] * (len(below) - len(shown))]
    wanted = description["options"].get("default")
    found = [i for i, child in enumerate(below) if child["name"] == wanted]
    if len(found) == 1:
        shown[found[0]] += " (default)"
    return shown[: len(below)]


def mermaid(description: Description) -> str:
    """Return a Mermaid flowchart of a tree, top to bottom, parents above children."""
    lines = ["flowchart TD"]
    lines.extend(_mermaid_lines(description, "n0", count(1)))
    return "\n".join(lines) + "\n"


def _mermaid_lines(
    node: Description, identifier: str, numbers: Iterator[int]
) -> Iterator[str]:
    kind = node["type"].removesuffix("Primitive")
    options = ", ".join(f"{key}={value!r}" for key, value in node["options"].items())
    texts = (node["name"], kind, cut(options, _MOST_IN_LABEL))
    lines = [_escape(text) for text in texts if text]
    shown = "<br/>".join(lines)
    yield f'    {identifier}["{shown}"]'
    for child, lead in zip(node["children"], leads(node), strict=True):
        below = f"n{next(numbers)}"
        yield from _mermaid_lines(child, below, numbers)
        label = f'|"{_escape(lead)}"|' if lead else ""
        yield f"    {identifier} -->{label} {below}"


def _escape(text: str) -> str:
    """Escape what ends a Mermaid label or would be read as markup in it."""
    return "".join(f"#{ord(c)};" if c in _MARKUP else c for c in cleaned(text))


# Of the last, two begin a comment wherever they stand.
_MARKUP = frozenset('#&"<>`%')
