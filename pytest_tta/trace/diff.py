"""Say in what a trace and a pattern differ: in a few lines, and as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.trace.pattern import S
from pytest_tta.trace.spans import compared, outline_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.trace.alignment import Row
    from pytest_tta.trace.spans import Span, Trace

__all__ = ["explain", "tree_diff"]

_MOST_LINES = 6


def explain(trace: Trace, pattern: object) -> list[str]:
    """Return why a trace is not what a pattern expects, the summary first.

    The lines suit `pytest_assertrepr_compare`: the first becomes the summary of the
    failure, at most six more are the differences, and then comes the tree, of which
    pytest shows everything only with `-vv`.

    Args:
        trace: What happened.
        pattern: What it was compared with.
    """
    patterns = _patterns(pattern)
    if patterns is None:
        return [
            (
                "a trace equals S(...), or a list of S(...) for several runs, and was "
                f"compared with {pattern!r}"
            )
        ]
    rows = compared(trace.roots, patterns, trace._recording)
    problems = [problem for row in rows for problem in row.all_problems()]
    if not problems:
        return ["the trace matches"]
    return [_summary(problems), *_listed(problems), *tree_diff(trace, pattern)]


def tree_diff(trace: Trace, pattern: object) -> list[str]:
    """Return the tree of a trace with its differences from a pattern, line by line.

    A line begins with `~` where attributes differ, with `+` where something ran that
    was not expected, and with `-` where something expected did not run.
    """
    patterns = _patterns(pattern) or []
    rows = compared(trace.roots, patterns, trace._recording)
    return [line for row in rows for line in _lines(row, 0)]


def _patterns(pattern: object) -> Sequence[S] | None:
    given = pattern if isinstance(pattern, (list, tuple)) else [pattern]
    patterns = [one for one in given if isinstance(one, S)]
    return patterns if len(patterns) == len(given) else None


def _summary(problems: list[str]) -> str:
    if len(problems) == 1:
        return f"trace differs: {problems[0]}"
    return f"trace differs in {len(problems)} places: {problems[0]}"


def _listed(problems: list[str]) -> Iterator[str]:
    """Yield the differences that the summary does not show."""
    yield from (f"  {problem}" for problem in problems[1 : _MOST_LINES + 1])
    hidden = len(problems) - 1 - _MOST_LINES
    if hidden > 0:
        yield f"  ... and {hidden} more"


def _lines(row: Row, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if row.span is None:
        yield f"- {indent}{row.pattern!r}"
        return
    yield f"{row.mark} {indent}{outline_line(row.span)}"
    if row.mark == "~":
        yield from (f"~ {indent}  ^ {problem}" for problem in row.problems)
    if row.rows is None:
        yield from _plain_lines(
            row.span, depth + 1, row.mark if row.mark == "+" else " "
        )
    else:
        for below in row.rows:
            yield from _lines(below, depth + 1)


def _plain_lines(span: Span, depth: int, mark: str) -> Iterator[str]:
    for child in span.children:
        yield f"{mark} {'  ' * depth}{outline_line(child)}"
        yield from _plain_lines(child, depth + 1, mark)
