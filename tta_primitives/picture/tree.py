"""The tree that is drawn: each primitive with its path, kind and way to be shown."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tta_primitives.description import labels, leads, shown_option

if TYPE_CHECKING:
    from tta_primitives.description import Description

__all__ = ["Form", "Node", "tree_of"]

Form: TypeAlias = Literal[
    "leaf",
    "rest",
    "sequence",
    "lanes",
    "turns",
    "undone",
    "saga",
    "items",
    "around",
    "pile",
]

_FORMS: dict[str, Form] = {
    "Sequential": "sequence",
    "Parallel": "lanes",
    "Conditional": "lanes",
    "Router": "lanes",
    "Map": "items",
    "Fallback": "turns",
    "Timeout": "turns",
    "Compensation": "undone",
    "Saga": "saga",
}
_MOST_BELOW = {"items": 1, "undone": 2}
# Those that act in the same manner have a colour in common.
_TONES = {
    **dict.fromkeys(("Sequential", "Parallel", "Conditional", "Router", "Map"), "calm"),
    **dict.fromkeys(("Retry", "Hedge", "Fallback", "Saga", "Compensation"), "late"),
    **dict.fromkeys(("Timeout", "CircuitBreaker", "Bulkhead", "RateLimit"), "gone"),
    "Cache": "keep",
}
_MOST_NODES = 400
_DEEPEST = 40


@dataclass(slots=True)
class Node:
    """A primitive.

    Attributes:
        name: Of the primitive.
        kind: Its class, without `Primitive`.
        path: Its position in the workflow.
        options: As they are shown, `max_retries=3`.
        leads: When each child runs; empty where that goes without saying.
        undone_by: In a saga, the index of what undoes the child at an index.
        form: How it is shown.
        tone: The class of its colour.
        children: What is below.
    """

    name: str
    kind: str
    path: str
    options: list[str]
    leads: list[str]
    undone_by: dict[int, int]
    form: Form
    tone: str
    children: list[Node] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return " ".join([self.path, f"({self.kind})", *self.options])

    @property
    def is_plain(self) -> bool:
        """Whether its name says no more than its kind."""
        return self.name.replace("_", "").lower() == self.kind.lower()


def tree_of(description: Description) -> Node:
    """Return what is drawn: all of a tree, or its upper part and how much is left out.

    Args:
        description: What `describe()` says.
    """
    kept = _kept(description)
    return _node(description, description["name"], kept)


def _kept(root: Description) -> set[int]:
    """Return which nodes are drawn, by the identity of their descriptions."""
    kept: set[int] = set()
    waiting = deque([(root, 0)])
    while waiting and len(kept) < _MOST_NODES:
        node, depth = waiting.popleft()
        kept.add(id(node))
        if depth < _DEEPEST:
            waiting.extend((child, depth + 1) for child in node["children"])
    return kept


def _node(description: Description, path: str, kept: set[int]) -> Node:
    kind = description["type"].removesuffix("Primitive").lstrip("_") or "Primitive"
    below = description["children"]
    options: dict[str, Any] = description["options"]
    ways = leads(description)
    node = Node(
        name=description["name"],
        kind=kind,
        path=path,
        options=_options(options, ways),
        leads=ways,
        undone_by=_undone(description),
        form=_form(kind, options, len(below)),
        tone=_TONES.get(kind, "calm" if below else "good"),
    )
    for number, (child, label) in enumerate(
        zip(below, labels(description), strict=True)
    ):
        if id(child) not in kept:
            node.children.append(_rest(path, below[number:]))
            node.leads[number:] = [""]
            break
        node.children.append(_node(child, f"{path}/{label}", kept))
    return node


def _options(options: dict[str, Any], ways: list[str]) -> list[str]:
    """Return the options that the labels of the ways do not tell already."""
    told = {"compensations", "routes"} if ways else set()
    if any(way.endswith("(default)") for way in ways) or "default" in ways:
        told.add("default")
    return [shown_option(k, v) for k, v in options.items() if k not in told]


def _form(kind: str, options: dict[str, Any], count: int) -> Form:
    if not count:
        return "leaf"
    form = _FORMS.get(kind)
    if form is None and "routes" in options:
        form = "lanes"  # Of a class of the user's own.
    if count == 1 and form in {None, "turns", "undone"}:
        return "around"
    if form is None or count > _MOST_BELOW.get(form, count):
        return "pile"  # Who knows what it does with so many.
    return form


def _undone(description: Description) -> dict[int, int]:
    """Return the index of what undoes a step, for each step of a saga that has it."""
    pairs = description["options"].get("compensations")
    if not isinstance(pairs, dict):
        return {}
    places = {label: number for number, label in enumerate(labels(description))}
    return {
        places[step]: places[undo]
        for step, undo in pairs.items()
        if step in places and undo in places
    }


def _rest(path: str, left_out: list[Description]) -> Node:
    count, waiting = 0, list(left_out)
    while waiting:
        node = waiting.pop()
        count += 1
        waiting.extend(node["children"])
    name = f"{count:,} more"
    return Node(name, "Rest", f"{path}/…", [], [], {}, "rest", "gone")
