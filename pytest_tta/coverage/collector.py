"""Who listens at the door, and counts the outcomes of every node."""

# ruff: noqa: ANN401 - primitives of any class

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_tta.coverage.births import Births
from pytest_tta.coverage.data import CoverageData, NodeCoverage, WorkflowCoverage
from pytest_tta.coverage.nodes import Node, Shape, digest_of, node_of, shape_of
from pytest_tta.coverage.seen import Below, Seen, late_event, outcomes_seen
from tta_primitives.door import Call, Observer, add_observer, remove_observer
from tta_primitives.loops import now
from tta_primitives.primitive import StepPrimitive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.coverage.data import Via

__all__ = ["Collector", "Tree", "current", "install"]

_LEAF = {"ok": "ok", "failed": "failed", "timed_out": "failed"}


@dataclass(slots=True, eq=False)
class Tree:
    """A workflow that was seen.

    Attributes:
        root: Its root.
        workflow: What is counted of it.
        primitive: The first of its kind that was executed, where somebody wants to look
            at it once more.
        input_data: What that was given.
        node_id: In which test.
    """

    root: Node
    workflow: WorkflowCoverage
    primitive: Any = None
    input_data: Any = None
    node_id: str = ""


class Collector:
    """Collects resilience coverage.

    Args:
        root: The folder that shown paths begin at.
        keeps_trees: Whether the first primitive of each workflow is kept, and its
            input, so that tests can be suggested for it.

    Attributes:
        data: What was collected so far.
        births: Where primitives were made.
    """

    def __init__(self, root: str = "", *, keeps_trees: bool = False) -> None:
        self.data: CoverageData = CoverageData()
        self.births: Births = Births(root)
        self._keeps_trees = keeps_trees
        self._observer = _CoverageObserver(self)
        self._ways: list[tuple[str, Via]] = []
        self._hits: dict[tuple[Node, str], int] = {}
        self._trees: dict[tuple[str, Shape], Tree] = {}
        self._known: WeakKeyDictionary[Any, Node] = WeakKeyDictionary()
        self._coverage: dict[Node, NodeCoverage] = {}

    @property
    def trees(self) -> list[Tree]:
        """The workflows that were seen, in the order in which they were."""
        return list(self._trees.values())

    @contextmanager
    def observing(self, node_id: str, via: Via) -> Iterator[Observer]:
        """Count what happens from now on, in the whole process.

        Inside another one, the inner one counts: so an exploration of a test has its
        hits apart from those of the test itself.

        Args:
            node_id: The test.
            via: "test" for a test's own run, "sweep" for runs that a search makes.

        Yields:
            What is told of calls; it listens at the door already.
        """
        self.flush()
        self._ways.append((node_id, via))
        if len(self._ways) == 1:
            add_observer(self._observer)
        try:
            yield self._observer
        finally:
            self.flush()
            self._ways.pop()
            if not self._ways:
                remove_observer(self._observer)

    def hit(self, node: Node, outcome: str) -> None:
        """Count an outcome of a node, if it is one that the node may have."""
        if outcome in node.names:
            key = node, outcome
            self._hits[key] = self._hits.get(key, 0) + 1

    def root_of(self, call: Call) -> Node:
        """Return the root of the workflow that a call begins."""
        primitive = call.primitive
        root = self._known.get(primitive)
        if root is None:
            root = self._known[primitive] = self._tree(primitive, call).root
        return root

    def _tree(self, primitive: Any, call: Call) -> Tree:
        place, shape = self.births.place_of(primitive), shape_of(primitive)
        tree = self._trees.get((place, shape))
        if tree is None:
            tree = self._trees[place, shape] = self._new_tree(place, shape, call)
        return tree

    def _new_tree(self, place: str, shape: Shape, call: Call) -> Tree:
        root = node_of(call.primitive)
        name, digest = root.label, digest_of(shape)
        if not root.children:
            # A lone step is no workflow, but for instance the body of a test.
            root.names = frozenset()
            return Tree(root, WorkflowCoverage(name, digest, place))
        tree = Tree(root, self.data.workflow(place, name, digest))
        self._enter(tree, call.primitive)
        if self._keeps_trees:
            tree.primitive, tree.input_data = call.primitive, call.input_data
            tree.node_id = self._ways[-1][0] if self._ways else ""
        return tree

    def _enter(self, tree: Tree, primitive: Any) -> None:
        """Count every node of a tree from now on, those that never run included."""
        births = self.births
        for node, one in zip(tree.root.all(), _all(primitive), strict=True):
            node.place = births.place_of(one)
            coverage = NodeCoverage(
                node.path, node.type, node.place, node.config, node.universe
            )
            coverage.exclude(births.excluded_by(one))
            self._coverage[node] = tree.workflow.nodes[node.path] = coverage

    def flush(self) -> None:
        """Put what was counted so far into the data."""
        hits, self._hits = self._hits, {}
        if not self._ways:
            return
        node_id, via = self._ways[-1]
        for (node, outcome), count in hits.items():
            self._coverage[node].hit(outcome, via, count, [node_id])


def _all(primitive: Any) -> Iterator[Any]:
    yield primitive
    for child in primitive.children():
        yield from _all(child)


class _CoverageObserver(Observer):
    """Makes outcomes of what the door tells.

    What a call keeps only if it must, its label, store and error, is looked at past its
    properties: they find out by an exception, which takes as long as all the rest.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        # When a cache has loaded what; inputs that cannot be hashed by their text.
        self._loaded: WeakKeyDictionary[Any, dict[Any, float]] = WeakKeyDictionary()

    def started(self, call: Call, /) -> None:
        """Begin to note what is told of a call that has others below it."""
        if isinstance(call.primitive, StepPrimitive):
            return
        above, node = self._place(call)
        if not node.children:
            return
        seen = Seen(node, above)
        store = getattr(call, "_store", None)
        if store is None:
            call._store = {self: seen}
        else:
            store[self] = seen
        if node.kind == "breaker":
            breaker: Any = call.primitive
            seen.before = breaker.state
        elif node.kind == "cache":
            seen.before = self._loaded_before(node, call)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Note what a primitive tells."""
        seen = self._seen(call)
        if seen is None:
            return
        if not seen.is_over:
            seen.events.append((name, detail))
            return
        outcome = late_event(seen, name)
        if outcome is not None:
            self._collector.hit(seen.node, outcome)

    def finished(self, call: Call, /) -> None:
        """Count the outcomes of a call that has ended."""
        # Steps are leaves: nothing was noted of them.
        is_step = isinstance(call.primitive, StepPrimitive)
        seen = None if is_step else self._seen(call)
        hit = self._collector.hit
        if seen is None:
            above, node = self._place(call)
            if node.children:  # It began before anybody listened.
                return
            hit(node, _LEAF.get(call.status, call.status))
        else:
            above, node = seen.above, seen.node
            for outcome in outcomes_seen(seen, call):
                hit(node, outcome)
            if node.kind == "cache" and call.status == "ok":
                self._note_load(seen, call)
            # They hold errors, and these the frames of the user's code.
            seen.events.clear()
            seen.below.clear()
            seen.is_over = True
        if above is not None:
            self._tell(above, node, call)

    def _seen(self, call: Call) -> Seen | None:
        """Return what is noted of a call, without a store for one that has none."""
        store = getattr(call, "_store", None)
        return None if store is None else store.get(self)

    def _tell(self, above: Seen, node: Node, call: Call) -> None:
        """Let the call above know how one below it has ended."""
        if above.node.kind == "compensation" and node.index == 1:
            name = "undone" if call.status == "ok" else "undo fails"
            self._collector.hit(above.node, name)
        elif not above.is_over:
            error = None if call.status == "ok" else call.error
            kind = None if error is None else type(error)
            above.below.append(Below(node, call.status, kind))

    def _place(self, call: Call) -> tuple[Seen | None, Node]:
        """Return what is noted of the call above, and the node of this one."""
        above = call.parent
        while above is not None and not isinstance(above, Call):
            above = above.parent
        if above is not None:
            seen = self._seen(above)
            if seen is not None:
                label = getattr(call, "_label", None) or call.primitive.name
                node = seen.node.by_label.get(label)
                if node is not None:
                    return seen, node
        return None, self._collector.root_of(call)

    def _loaded_before(self, node: Node, call: Call) -> float | None:
        """Return when a cache loaded what it is asked for, if that has expired."""
        loaded = self._loaded.get(call.primitive, {}).get(_key(call.input_data))
        ttl = node.config["ttl"]
        if loaded is None or ttl == "inf":
            return None
        is_old = not isinstance(ttl, (int, float)) or now() - loaded >= ttl
        return loaded if is_old else None

    def _note_load(self, seen: Seen, call: Call) -> None:
        if seen.told("cache.miss") is not None:
            loads = self._loaded.setdefault(call.primitive, {})
            loads[_key(call.input_data)] = now()


def _key(input_data: Any) -> Any:
    try:
        hash(input_data)
    except TypeError:
        return repr(input_data)
    return input_data


_current: Collector | None = None


def current() -> Collector | None:
    """Return the collector of this session, None if coverage is not collected."""
    return _current


def install(collector: Collector | None) -> None:
    """Make a collector that of this session; None for none."""
    global _current  # noqa: PLW0603 - one session, one collector
    _current = collector
