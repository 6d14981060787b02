"""What was collected of coverage, as the record that reports are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.coverage.kinds import compensations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_tta.coverage.data import CoverageData, NodeCoverage, WorkflowCoverage
    from pytest_tta.report.record import (
        CoverageRecord,
        CoveredNode,
        CoveredOutcome,
        CoveredWorkflow,
    )
    from tta_primitives.description import Description

__all__ = ["coverage_record"]

# What was collected has all constants of a primitive; these say which one it is.
_TELLING = {
    "RetryPrimitive": ("max_retries",),
    "TimeoutPrimitive": ("timeout_seconds",),
    "CachePrimitive": ("ttl",),
    "CircuitBreakerPrimitive": ("failure_threshold",),
    "BulkheadPrimitive": ("max_concurrency",),
    "RateLimitPrimitive": ("rate",),
    "HedgePrimitive": ("delay",),
    "MapPrimitive": ("max_concurrency",),
    "ParallelPrimitive": ("max_concurrency", "min_success"),
}


def coverage_record(data: CoverageData, *, sweep: bool = True) -> CoverageRecord:
    """Return what was collected as builtins; workflows without outcomes are left out.

    Args:
        data: What was collected.
        sweep: Whether outcomes that only a sweep has reached count as reached.
    """
    covered, total = data.ratio(sweep=sweep)
    return {
        "covered": covered,
        "total": total,
        "percent": data.percent(sweep=sweep),
        "workflows": [
            _workflow(workflow)
            for workflow in data.workflows
            if any(node.counted for node in workflow.nodes.values())
        ],
    }


def _workflow(workflow: WorkflowCoverage) -> CoveredWorkflow:
    nodes = workflow.nodes
    return {
        "name": workflow.name,
        "tree": {**_tree(nodes, next(iter(nodes)), _below(nodes))},
        "nodes": {path: _node(node) for path, node in nodes.items()},
    }


def _below(nodes: Mapping[str, NodeCoverage]) -> dict[str, list[str]]:
    """Return the paths directly below each path, in the order of the tree."""
    below: dict[str, list[str]] = {path: [] for path in nodes}
    for path in nodes:
        above = path.rpartition("/")[0]
        if above in below:
            below[above].append(path)
    return below


def _tree(
    nodes: Mapping[str, NodeCoverage], path: str, below: Mapping[str, list[str]]
) -> Description:
    """Return what `describe()` says of a tree, as far as its paths and constants do."""
    node = nodes[path]
    return {
        "type": node.type,
        "name": path.rpartition("/")[2],
        "options": dict(_options(node, len(below[path]))),
        "children": [_tree(nodes, one, below) for one in below[path]],
    }


def _options(node: NodeCoverage, ways: int) -> Iterator[tuple[str, Any]]:
    for name in _TELLING.get(node.type, ()):
        if node.config.get(name) is not None:
            yield name, node.config[name]
    routes = node.config.get("routes")
    # A name of a route may be anything, also a text of two lines.
    if isinstance(routes, str) and ways - len(routes.split("\n")) in {0, 1}:
        yield "routes", routes.split("\n")
    pairs = compensations_of(node.config) if "compensations" in node.config else {}
    if pairs:
        yield "compensations", pairs


def _node(node: NodeCoverage) -> CoveredNode:
    return {
        "primitive": node.type,
        "outcomes": [_outcome(node, name) for name in node.universe],
    }


def _outcome(node: NodeCoverage, name: str) -> CoveredOutcome:
    hits = node.hits.get(name, {})
    return {
        "name": name,
        "by": "tests" if "test" in hits else ("sweep" if hits else ""),
        "excluded": name in node.excluded,
    }
