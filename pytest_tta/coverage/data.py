"""What was collected, as plain data that can be merged, written and read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SCHEMA", "CoverageData", "Hit", "NodeCoverage", "Via", "WorkflowCoverage"]

SCHEMA = "tta-resilience/1"
Via: TypeAlias = Literal["test", "sweep"]

_MOST_TESTS = 10


@dataclass(slots=True)
class Hit:
    """How often an outcome was reached in one way.

    Attributes:
        hits: How often.
        tests: By which tests: the first few in the order of their ids.
    """

    hits: int = 0
    tests: list[str] = field(default_factory=list)

    def add(self, hits: int, tests: Iterable[str]) -> None:
        """Add what was reached elsewhere, in whatever order that comes."""
        self.hits += hits
        # The smallest ids, not the first to come: so the order of merging is no matter.
        self.tests = sorted({*self.tests, *tests})[:_MOST_TESTS]


@dataclass(slots=True)
class NodeCoverage:
    """One node of a workflow's tree.

    Attributes:
        path: From the root.
        type: The class of the primitive.
        place: The file and line on which it was made; empty if that is not known.
        config: The constants that its outcomes follow from.
        universe: The outcomes that it may have.
        excluded: Outcomes that do not count.
        hits: For each outcome that was reached, in which way how often.
    """

    path: str
    type: str
    place: str
    config: dict[str, Any]
    universe: tuple[str, ...]
    excluded: frozenset[str] = frozenset()
    hits: dict[str, dict[Via, Hit]] = field(default_factory=dict)

    @property
    def counted(self) -> list[str]:
        """The outcomes that count, in the order of the report."""
        return [name for name in self.universe if name not in self.excluded]

    def reached(self, *, sweep: bool) -> list[str]:
        """Return the outcomes that count and were reached.

        Args:
            sweep: Also by a sweep or another exploration, which has no assertions of
                its own for them.
        """
        return [
            name
            for name in self.counted
            if "test" in self.hits.get(name, {}) or (sweep and name in self.hits)
        ]

    def missing(self, *, sweep: bool) -> list[str]:
        """Return the outcomes that count and were not reached."""
        reached = set(self.reached(sweep=sweep))
        return [name for name in self.counted if name not in reached]

    def hit(self, outcome: str, via: Via, hits: int, tests: Iterable[str]) -> None:
        """Add that an outcome was reached."""
        ways = self.hits.setdefault(outcome, {})
        ways.setdefault(via, Hit()).add(hits, tests)

    def exclude(self, outcomes: Iterable[str]) -> None:
        """Let outcomes not count; `*` in a name stands for any characters."""
        patterns = tuple(outcomes)
        found = (
            name
            for name in self.universe
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        )
        self.excluded |= frozenset(found)


@dataclass(slots=True)
class WorkflowCoverage:
    """One workflow: all trees of one shape that were made on one line.

    Attributes:
        name: Of the root.
        tree: A digest of the shape and the constants.
        place: The file and line on which it was made; empty if that is not known.
        nodes: By path, each before what is below it.
        suggestions: For each path and outcome a test that would reach it, if asked for.
    """

    name: str
    tree: str
    place: str
    nodes: dict[str, NodeCoverage] = field(default_factory=dict)
    suggestions: dict[str, dict[str, str]] = field(default_factory=dict)

    def ratio(self, *, sweep: bool) -> tuple[int, int]:
        """Return how many outcomes were reached, of how many that count."""
        nodes = self.nodes.values()
        reached = sum(len(node.reached(sweep=sweep)) for node in nodes)
        return reached, sum(len(node.counted) for node in nodes)


class CoverageData:
    """What was collected of all workflows."""

    def __init__(self) -> None:
        self._workflows: dict[tuple[str, str, str], WorkflowCoverage] = {}

    @property
    def workflows(self) -> list[WorkflowCoverage]:
        """The workflows, in the order of their places, names and digests."""
        return [self._workflows[key] for key in sorted(self._workflows, key=_order)]

    def workflow(self, place: str, name: str, tree: str) -> WorkflowCoverage:
        """Return the workflow of this place, name and digest; a new one if needed."""
        key = (place, name, tree)
        if key not in self._workflows:
            self._workflows[key] = WorkflowCoverage(name, tree, place)
        return self._workflows[key]

    def ratio(self, *, sweep: bool) -> tuple[int, int]:
        """Return how many outcomes were reached, of how many that count."""
        ratios = [one.ratio(sweep=sweep) for one in self._workflows.values()]
        return sum(reached for reached, _ in ratios), sum(count for _, count in ratios)

    def percent(self, *, sweep: bool) -> float:
        """Return the part that was reached, in percent; 100.0 if nothing counts."""
        reached, count = self.ratio(sweep=sweep)
        return 100.0 * reached / count if count else 100.0

    def merge(self, other: CoverageData) -> None:
        """Add what was collected elsewhere, for instance by another process."""
        for theirs in other._workflows.values():
            mine = self.workflow(theirs.place, theirs.name, theirs.tree)
            for path, node in theirs.nodes.items():
                _merge_node(mine, path, node)
            for path, texts in theirs.suggestions.items():
                mine.suggestions.setdefault(path, {}).update(texts)

    def exclude(self, rules: Iterable[str]) -> None:
        """Let outcomes not count.

        Args:
            rules: `path` or `path: outcome, outcome`; in both `*` stands for any
                characters. A rule that ends in `.py` names files instead, and leaves
                out the workflows that were made there.
        """
        for rule in rules:
            if rule.endswith(".py"):
                self._exclude_file(rule)
                continue
            pattern, _, names = rule.partition(":")
            outcomes = [one.strip() for one in names.split(",") if one.strip()]
            for node in self._nodes():
                if fnmatchcase(node.path, pattern.strip()):
                    node.exclude(outcomes or ["*"])

    def _exclude_file(self, pattern: str) -> None:
        places = {key: key[0].rpartition(":")[0] for key in self._workflows}
        for key, file in places.items():
            if fnmatchcase(file, pattern.strip()):
                del self._workflows[key]

    def _nodes(self) -> Iterator[NodeCoverage]:
        for workflow in self._workflows.values():
            yield from workflow.nodes.values()

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON-able data in a stable order: schema `tta-resilience/1`."""
        return {
            "schema": SCHEMA,
            "workflows": [_plain_workflow(one) for one in self.workflows],
            "totals": {
                "outcomes": self.ratio(sweep=False)[1],
                "tests": self.ratio(sweep=False)[0],
                "with_sweep": self.ratio(sweep=True)[0],
            },
        }

    def to_json(self) -> str:
        """Return it as text; the same data gives the same text."""
        return json.dumps(self.to_plain(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CoverageData:
        """Return the data that `to_plain` described.

        Raises:
            ValueError: It is of another schema.
        """
        if plain.get("schema") != SCHEMA:
            msg = f"schema={plain.get('schema')!r} is not {SCHEMA!r}"
            raise ValueError(msg)
        data = cls()
        for one in plain["workflows"]:
            workflow = data.workflow(one["place"], one["name"], one["tree"])
            for node in one["nodes"]:
                workflow.nodes[node["path"]] = _node_from(node)
            workflow.suggestions = one.get("suggestions", {})
        return data


def _order(key: tuple[str, str, str]) -> tuple[str, int, str, str]:
    place, name, tree = key
    file, _, line = place.rpartition(":")
    return file, int(line) if line.isdecimal() else 0, name, tree


def _merge_node(workflow: WorkflowCoverage, path: str, node: NodeCoverage) -> None:
    mine = workflow.nodes.get(path)
    if mine is None:
        mine = workflow.nodes[path] = NodeCoverage(
            node.path, node.type, node.place, node.config, node.universe
        )
    mine.excluded |= node.excluded
    for outcome, ways in node.hits.items():
        for via, hit in ways.items():
            mine.hit(outcome, via, hit.hits, hit.tests)


def _plain_workflow(workflow: WorkflowCoverage) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": workflow.name,
        "tree": workflow.tree,
        "place": workflow.place,
        "nodes": [_plain_node(node) for node in workflow.nodes.values()],
    }
    if workflow.suggestions:
        plain["suggestions"] = workflow.suggestions
    return plain


def _plain_node(node: NodeCoverage) -> dict[str, Any]:
    outcomes = {
        name: {
            via: {"hits": hit.hits, "tests": hit.tests}
            for via, hit in sorted(node.hits.get(name, {}).items())
        }
        for name in node.universe
    }
    return {
        "path": node.path,
        "type": node.type,
        "place": node.place,
        "config": node.config,
        "excluded": [name for name in node.universe if name in node.excluded],
        "outcomes": outcomes,
    }


def _node_from(plain: dict[str, Any]) -> NodeCoverage:
    names = tuple(plain["outcomes"])
    node = NodeCoverage(
        plain["path"], plain["type"], plain["place"], plain["config"], names
    )
    node.excluded = frozenset(plain["excluded"])
    for name, ways in plain["outcomes"].items():
        for via, hit in ways.items():
            node.hit(name, via, hit["hits"], hit["tests"])
    return node
