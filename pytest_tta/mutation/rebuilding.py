"""Copies of a workflow's tree in which one primitive is another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tta_primitives.branching import ConditionalPrimitive, RouterPrimitive
from tta_primitives.mapping import MapPrimitive
from tta_primitives.primitive import (
    ParallelPrimitive,
    SequentialPrimitive,
    Wrapper,
    _copied,
    positions,
)
from tta_primitives.recovery.compensation import (
    CompensationPrimitive,
    SagaPrimitive,
    _Listed,
)
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.hedge import HedgePrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from tta_primitives.primitive import WorkflowPrimitive

    Primitive: TypeAlias = WorkflowPrimitive[Any, Any]
    Children: TypeAlias = tuple[Primitive, ...]
    Change: TypeAlias = Callable[[Primitive, Children], Primitive]

__all__ = ["CannotRebuild", "Rebuilding", "rebuild", "with_children"]

# What a primitive has learnt, and what counts it: `_wrap` makes it anew. Whoever holds
# the primitive that was copied looks at this.
_STATE = (
    *("_counts", "_circuit", "_shared", "_clock", "_by_loop", "_latencies"),
    *("_shelf", "_memory", "_flights", "_failures", "_failing", "_entries", "_touch"),
)


class CannotRebuild(Exception):
    """A primitive cannot be copied with other primitives in it."""


class Rebuilding:
    """The copies that belong together: of the workflows of one run of a test.

    A primitive that stands in two places, or in two workflows, is copied once, so that
    what was shared is shared by the copies. Each copy begins without a state of its
    own; the primitive that it was made of shows the copy's state from then on, so that
    a test can look at `breaker.state` as ever.
    """

    def __init__(self) -> None:
        # With each original, so that its id is given to nothing else.
        self._twins: dict[int, tuple[Primitive, Primitive]] = {}
        self._before: list[tuple[dict[str, Any], str, Any]] = []

    def copy(
        self, tree: Primitive, path: str = "", change: Change | None = None
    ) -> Primitive:
        """Return a copy of a tree.

        Args:
            tree: The root of the workflow.
            path: Where the change happens; nowhere if empty.
            change: Is given the primitive at the path and copies of its children, and
                returns what stands there instead.

        Raises:
            CannotRebuild: A primitive on the way cannot be copied.
            LookupError: There is no such path in the tree.
        """
        root = tree._as_operand()
        target = _at(root, path) if change is not None else None
        return self._twin(root, target, change)

    def restore(self) -> None:
        """Give the originals their own state back."""
        while self._before:
            attributes, name, value = self._before.pop()
            attributes[name] = value

    def _twin(
        self, node: Primitive, target: Primitive | None, change: Change | None
    ) -> Primitive:
        known = self._twins.get(id(node))
        if known is not None:
            return known[1]
        children = tuple(self._twin(one, target, change) for one in node.children())
        if node is target and change is not None:
            twin = change(node, children)
        elif _is_same(children, node.children()) and not _keeps_state(node):
            twin = node
        else:
            twin = with_children(node, children)
        if twin is not node and _keeps_state(node):
            # What was taken out has learnt nothing.
            is_out = type(twin) is not type(node)
            unused = with_children(node, children) if is_out else twin
            self._show_state(node, unused)
        self._twins[id(node)] = (node, twin)
        return twin

    def _show_state(self, node: Primitive, twin: Primitive) -> None:
        own, other = vars(node), vars(twin)
        for name in _STATE:
            if name in own and name in other:
                self._before.append((own, name, own[name]))
                own[name] = other[name]


def rebuild(tree: Primitive, path: str, change: Change) -> Primitive:
    """Return a copy of a tree with another primitive at a path; see `Rebuilding`.

    Args:
        tree: The root of the workflow; it keeps its own state.
        path: The path of the primitive to change.
        change: Is given it and copies of its children; returns the other one.

    Raises:
        CannotRebuild: A primitive on the way cannot be copied.
        LookupError: There is no such path in the tree.
    """
    copies = Rebuilding()
    try:
        return copies.copy(tree, path, change)
    finally:
        copies.restore()


def with_children(node: Primitive, children: Children) -> Primitive:
    """Return a copy of a primitive around other children, without what it has learnt.

    Args:
        node: The primitive.
        children: As many as it has, in the same order.

    Raises:
        CannotRebuild: It is of a kind that keeps its children in a way of its own.
    """
    for kind, make in _KINDS:
        if isinstance(node, kind):
            twin = make(node, children)
            break
    else:
        twin = _replaced(node, children)
    if not _is_same(twin.children(), children):
        raise CannotRebuild(_cannot(node))
    return twin


def _at(root: Primitive, path: str) -> Primitive:
    for found, node in positions(root):
        if found == path:
            return node
    msg = f"there is no {path!r} in {root.name!r}"
    raise LookupError(msg)


def _is_same(some: Children, others: Children) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(one is other for one, other in pairs)


def _keeps_state(node: Primitive) -> bool:
    return isinstance(node, Wrapper)


def _cannot(node: Primitive) -> str:
    return (
        f"{type(node).__name__} {node.name!r} keeps its children in a way that is not "
        "known here; let it keep them in attributes, lists or dicts"
    )


def _sequential(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - of the kind
    is_plain = type(node) is SequentialPrimitive
    twin: Any = _copied(node, SequentialPrimitive if is_plain else None)
    twin._links, twin._trailing = children, ()
    twin._settle()
    return twin  # type: ignore[no-any-return]


def _parallel(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    twin = _copied(node)
    twin._branches = children
    twin._settle()
    return twin  # type: ignore[no-any-return]


def _conditional(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    twin = _copied(node)
    twin._settle("condition", node._question, children)
    return twin  # type: ignore[no-any-return]


def _router(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    twin = _copied(node)
    twin._settle("router_fn", node._question, children)
    twin._needs_position |= twin._default is None
    return twin  # type: ignore[no-any-return]


def _map(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    twin = _copied(node)
    (twin.primitive,) = children
    for name in ("_needs_position", "_reads_deadline", "idempotent"):
        setattr(twin, name, getattr(twin.primitive, name))
    return twin  # type: ignore[no-any-return]


def _saga(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    listed = node._listed()
    if listed is None:
        return _wrapper(node, children)
    left = iter(children)
    # A pair is a step and what undoes it.
    steps = [
        next(left) if pair is None else (next(left), next(left))
        for _, _, pair in listed._places
    ]
    return saga_of(node, steps)


def saga_of(node: Any, steps: list[Any]) -> Primitive:  # noqa: ANN401 - as above
    """Return a copy of a saga that was given as a list, with another list.

    Args:
        node: The saga.
        steps: Steps, and pairs of a step and what undoes it.
    """
    twin = _copied(node)
    twin._wrap(_Listed(steps))
    return twin  # type: ignore[no-any-return]


def _wrapper(node: Any, children: Children) -> Primitive:  # noqa: ANN401 - as above
    """Bind a copy to the first child, as an open wrapper is bound to what follows."""
    if not children:
        return node  # type: ignore[no-any-return]
    twin = _copied(node)
    first, *rest = children
    for kind, attribute, is_one in _FURTHER:
        if isinstance(node, kind) and rest:
            setattr(twin, attribute, rest[0] if is_one else tuple(rest))
    twin._wrap(first)
    return twin  # type: ignore[no-any-return]


def _replaced(node: Primitive, children: Children) -> Primitive:
    """Copy a primitive that keeps its children as its base class would find them."""
    if not children:
        return node
    others = {id(old): new for old, new in zip(node.children(), children, strict=True)}
    twin = _copied(node)
    for name, value in vars(node).items():
        object.__setattr__(twin, name, _swapped(value, others))
    old = [one for one in node.children() if others[id(one)] is not one]
    if any(_holds(value, old, 4) for value in vars(twin).values()):
        raise CannotRebuild(_cannot(node))
    return twin


def _swapped(value: Any, others: dict[int, Primitive]) -> Any:  # noqa: ANN401 - any attribute
    if id(value) in others:
        return others[id(value)]
    if type(value) in {list, tuple}:
        return type(value)(_swapped(one, others) for one in value)
    if type(value) is dict:
        return {key: _swapped(one, others) for key, one in value.items()}
    return value


def _holds(value: object, old: list[Primitive], depth: int) -> bool:
    """Tell whether something of a primitive's own still refers to an old child."""
    if any(value is one for one in old):
        return True
    if not depth:
        return False
    inner: Any = value.values() if isinstance(value, dict) else value
    if isinstance(inner, (list, tuple, set, frozenset)) or isinstance(value, dict):
        return any(_holds(one, old, depth - 1) for one in inner)
    return False


_FURTHER: tuple[tuple[type[Any], str, bool], ...] = (
    (TimeoutPrimitive, "_fallback", True),
    (FallbackPrimitive, "fallbacks", False),
    (HedgePrimitive, "alternatives", False),
    (CompensationPrimitive, "compensation", True),
)

_KINDS: tuple[tuple[type[Any], Callable[[Any, Children], Primitive]], ...] = (
    (SequentialPrimitive, _sequential),
    (ParallelPrimitive, _parallel),
    (ConditionalPrimitive, _conditional),
    (RouterPrimitive, _router),
    (MapPrimitive, _map),
    (SagaPrimitive, _saga),
    (Wrapper, _wrapper),
)
