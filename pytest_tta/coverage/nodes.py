"""The nodes of a workflow's tree, each with the outcomes that it may have."""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_tta.coverage.kinds import constants_of, kind_of, type_of
from pytest_tta.coverage.universe import may_run, outcomes_of
from tta_primitives.primitive import labels

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["Node", "Shape", "digest_of", "node_of", "shape_of"]

Shape: TypeAlias = tuple[Any, ...]
"""What two trees with the same outcomes have in common, from the root downwards."""


class Node:
    """One position in a tree.

    Attributes:
        kind: What sort of primitive stands there.
        type: The name of its class.
        label: Its name among its siblings.
        path: From the root.
        config: The constants that its outcomes follow from.
        above: The node above; None at the root.
        index: Which of its siblings it is.
        children: The nodes below, in their order.
        fails: Whether an error may come out of it, as far as can be known.
        waits: Whether it may be cancelled: something in it waits.
        universe: The outcomes that it may have, in the order of the report.
        place: The line on which it was made; empty if that is not known.
        excluded: Outcomes that do not count, by a comment on that line.
    """

    above: Node | None
    path: str

    __slots__ = (
        "above",
        "by_label",
        "children",
        "config",
        "excluded",
        "fails",
        "index",
        "kind",
        "label",
        "names",
        "path",
        "place",
        "type",
        "universe",
        "waits",
    )

    fails: bool
    waits: bool
    universe: tuple[str, ...]
    names: frozenset[str]
    children: list[Node]
    by_label: dict[str, Node]

    def __init__(
        self, primitive: Any, label: str, above: Node | None = None, index: int = 0
    ) -> None:
        self.kind: str = kind_of(primitive)
        self.type: str = type_of(primitive)
        self.label: str = label
        self.path = label if above is None else f"{above.path}/{label}"
        self.config: dict[str, Any] = constants_of(primitive, self.kind)
        self.above = above
        self.index: int = index
        self.place: str = ""
        self.excluded: tuple[str, ...] = ()

    def all(self) -> Iterator[Node]:
        """Yield this and all nodes below, each before what is below it."""
        yield self
        for child in self.children:
            yield from child.all()

    def __repr__(self) -> str:
        return f"<Node {self.path} {self.kind}>"


def node_of(primitive: Any) -> Node:
    """Return the tree of a primitive, with the outcomes of every node."""
    root = _grown(primitive, primitive.name, None, 0)
    for node in root.all():
        node.universe = ()
        # What never runs has no outcomes, nor has what is below it.
        if node.above is None or (node.above.universe and may_run(node)):
            node.universe = tuple(dict.fromkeys(outcomes_of(node)))
        node.names = frozenset(node.universe)
    return root


def _grown(primitive: Any, label: str, above: Node | None, index: int) -> Node:
    node = Node(primitive, label, above, index)
    children = primitive.children()
    named = zip(children, labels(children), strict=True)
    node.children = [
        _grown(child, its, node, number) for number, (child, its) in enumerate(named)
    ]
    node.by_label = {child.label: child for child in node.children}
    node.waits = _waits(node)
    node.fails = _fails(node)
    return node


def _waits(node: Node) -> bool:
    if node.kind == "leaf":
        return bool(node.config["call"])
    return any(child.waits for child in node.children)


def _fails(node: Node) -> bool:
    """Tell whether an error may come out, but for programming errors."""
    children = node.children
    if node.kind in {"leaf", "value"}:
        return node.waits
    if node.kind == "fallback" and node.config["fallback_on"] is None:
        return all(child.fails for child in children)
    if node.kind in {"parallel", "map"} and node.config["return_exceptions"]:
        return False
    return _fails_itself(node) or any(child.fails for child in children)


def _fails_itself(node: Node) -> bool:
    """Tell whether a primitive raises errors of its own."""
    if node.kind == "timeout":
        return node.waits and not node.config["fallback"]
    if node.kind == "router":
        return not node.config["default"]
    is_queue = node.kind in {"bulkhead", "rate limit"}
    return is_queue and node.config["max_wait"] is not None


def shape_of(primitive: Any) -> Shape:
    """Return what the outcomes of a tree follow from, to tell trees apart by."""
    kind = kind_of(primitive)
    constants = constants_of(primitive, kind)
    children = tuple(map(shape_of, primitive.children()))
    return type_of(primitive), primitive.name, tuple(constants.items()), children


def digest_of(shape: Shape) -> str:
    """Return eight digits that tell a shape from others in any process."""
    return hashlib.sha256(repr(shape).encode()).hexdigest()[:8]
