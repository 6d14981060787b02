"""The table in the terminal: what was reached of each node, and what is missing."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.coverage.data import CoverageData, NodeCoverage, WorkflowCoverage

__all__ = ["Line", "table"]

_TESTS = "tests"
_ALL = "with sweep"
_SMALLEST = 24


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        text: What it says.
        is_title: Whether it names a workflow.
    """

    text: str
    is_title: bool = False


def table(data: CoverageData, *, width: int, only_tests: bool = False) -> list[Line]:
    """Return the table, line by line.

    Args:
        data: What was collected.
        width: Of the terminal, in characters.
        only_tests: Whether sweeps do not count, and have no column.
    """
    columns = [_TESTS] if only_tests else [_TESTS, _ALL]
    lines: list[Line] = []
    for workflow in data.workflows:
        # One that is left out as a whole would only be a block of dashes.
        if any(node.counted for node in workflow.nodes.values()):
            lines += _workflow(workflow, columns, width)
    return [*lines, Line(_total(data, columns))]


def _workflow(
    workflow: WorkflowCoverage, columns: list[str], width: int
) -> Iterator[Line]:
    where = f"{workflow.place}, " if workflow.place else ""
    yield Line(f"{workflow.name} ({where}tree {workflow.tree})", is_title=True)
    names = [_indented(node) for node in workflow.nodes.values()]
    first = max(map(len, ["node", *names]))
    heads = "".join(f"  {column:>{len(column)}}" for column in columns)
    left = f"{'node':<{first}}{heads}"
    yield Line(f"{left}  missing")
    for name, node in zip(names, workflow.nodes.values(), strict=True):
        cells = "".join(f"  {_cell(node, column):>{len(column)}}" for column in columns)
        yield from _rows(f"{name:<{first}}{cells}", _missing(node, columns), width)


def _indented(node: NodeCoverage) -> str:
    depth = node.path.count("/")
    return "  " * depth + node.path.rpartition("/")[2]


def _cell(node: NodeCoverage, column: str) -> str:
    if not node.counted:
        return "-"
    reached = node.reached(sweep=column == _ALL)
    return f"{len(reached)}/{len(node.counted)}"


def _missing(node: NodeCoverage, columns: list[str]) -> str:
    """Name what nobody has reached, then what only a sweep has."""
    missing = node.missing(sweep=_ALL in columns)
    rest = [name for name in node.missing(sweep=False) if name not in missing]
    shown = [", ".join(missing)] if missing else []
    if rest:
        shown.append(f"sweep only: {', '.join(rest)}")
    return "; ".join(shown)


def _rows(left: str, missing: str, width: int) -> Iterator[Line]:
    room = max(_SMALLEST, width - len(left) - 2)
    rows = textwrap.wrap(missing, room) or [""]
    yield Line(f"{left}  {rows[0]}".rstrip())
    for row in rows[1:]:
        yield Line(f"{'':<{len(left)}}  {row}")


def _total(data: CoverageData, columns: list[str]) -> str:
    shown = []
    for column in columns:
        sweep = column == _ALL
        reached, count = data.ratio(sweep=sweep)
        shown.append(f"{column} {reached}/{count} {data.percent(sweep=sweep):.0f}%")
    return f"outcomes: {', '.join(shown)}"
