"""Say in what a trace and a pattern differ: in a few lines, and as a tree."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from pytest_tta.trace.lines import Line, cut, few, lines_below, span_line
from pytest_tta.trace.pattern import S
from pytest_tta.trace.spans import Span, Trace, comparison_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.trace.alignment import Row

__all__ = ["Difference", "difference_of", "explain", "tree_diff"]

_MOST_LINES = 6
# pytest cuts an explanation to 8 lines and 640 characters unless it is asked for more.
_MOST_CHARACTERS = 620
_LONGEST_LINE = 240
_IN_ORDER = (
    "  too much differs to compare everything with everything: the rest is compared in "
    "order"
)


class Difference:
    """What a trace, or a span, and a pattern differ in: found once, shown twice.

    Args:
        actual: What happened.
        pattern: What it was compared with: `S(...)`, or a list of them.

    Attributes:
        count: In how many places they differ.
        summary: What differs, on one line.
    """

    def __init__(self, actual: Trace | Span, pattern: object) -> None:
        spans = [actual] if isinstance(actual, Span) else actual.roots
        self._patterns = _patterns(pattern)
        self._pattern = pattern
        comparison = comparison_of(actual._recording)
        self._rows: list[Row] = []
        if self._patterns is not None:
            self._rows = comparison.align(spans, self._patterns, "")
        self._is_in_order = comparison.is_spent
        self.count: int = sum(row.total for row in self._rows)
        self.summary: str = self._summary()

    def few_lines(self) -> list[str]:
        """Return the summary and at most six lines, as short as pytest shows them."""
        lines = [cut(self.summary, _LONGEST_LINE)]
        room = _MOST_CHARACTERS - len(lines[0])
        for problem in islice(self._problems(), 1, _MOST_LINES + 1):
            line = f"  {cut(problem, _LONGEST_LINE)}"
            room -= len(line)
            if room < 0:
                break
            lines.append(line)
        hidden = self.count - len(lines)
        return [*lines, f"  ... and {hidden:,} more"] if hidden > 0 else lines

    def equal_line(self) -> str:
        """Return what is said where something else than a match was expected."""
        return cut(f"trace equals {self._pattern!r}, and must not", _LONGEST_LINE)

    def tree(self, *, whole: bool = False) -> list[str]:
        """Return the tree of what happened, its differences marked, line by line.

        A line begins with `~` where attributes differ, with `+` where something ran
        that was not expected, and with `-` where something expected did not run. In a
        big tree that which is as expected is left out.

        Args:
            whole: Leave nothing out.
        """
        lines = [line for row in self._rows for line in _lines(row, 0)]
        shown = few(lines, "as expected", "differ", is_marked=True, whole=whole)
        return [*shown, *([_IN_ORDER] if self._is_in_order else [])]

    def _summary(self) -> str:
        if self._patterns is None:
            return (
                "a trace equals S(...), or a list of S(...) for several runs, and was "
                f"compared with {self._pattern!r}"
            )
        if not self.count:
            return "the trace matches"
        places = "" if self.count == 1 else f" in {self.count:,} places"
        return f"trace differs{places}: {next(self._problems())}"

    def _problems(self) -> Iterator[str]:
        return (said() for row in self._rows for said in row.all_problems())


def difference_of(left: object, right: object) -> Difference | None:
    """Return in what the sides of a comparison differ; None if none is a trace.

    Args:
        left: One side: a trace, a span or a pattern.
        right: The other.
    """
    for actual, pattern in ((left, right), (right, left)):
        if isinstance(actual, Trace):
            return Difference(actual, pattern)
        if isinstance(actual, Span) and isinstance(pattern, S):
            return Difference(actual, pattern)
    return None


def explain(trace: Trace | Span, pattern: object) -> list[str]:
    """Return why a trace is not what a pattern expects, the summary first.

    The first line is the summary of the failure, at most six more are the differences,
    and then comes the tree.

    Args:
        trace: What happened.
        pattern: What it was compared with.
    """
    difference = Difference(trace, pattern)
    tree = difference.tree(whole=True) if difference.count else []
    return [*difference.few_lines(), *tree]


def tree_diff(trace: Trace | Span, pattern: object) -> list[str]:
    """Return the tree of a trace with its differences from a pattern, line by line.

    A line begins with `~` where attributes differ, with `+` where something ran that
    was not expected, and with `-` where something expected did not run.
    """
    return Difference(trace, pattern).tree(whole=True)


def _patterns(pattern: object) -> Sequence[S] | None:
    given = pattern if isinstance(pattern, (list, tuple)) else [pattern]
    patterns = [one for one in given if isinstance(one, S)]
    return patterns if len(patterns) == len(given) else None


def _lines(row: Row, depth: int) -> Iterator[Line]:
    if row.span is None:
        text = f"{row.pattern!r}   <- expected, did not run"
        yield Line(depth, text, "-", matters=True, spans=0)
        return
    is_new = row.mark == "+"
    said = f"{span_line(row.span)}   <- not expected" if is_new else span_line(row.span)
    yield Line(depth, said, row.mark, matters=row.mark != " ")
    if row.mark == "~":
        yield from _notes(row, row.span, depth + 1)
    if row.rows is None:
        below = lines_below(row.span.children, depth + 1, row.mark if is_new else " ")
        yield from (line._replace(matters=False) for line in below)
    else:
        for one in row.rows:
            yield from _lines(one, depth + 1)


def _notes(row: Row, span: Span, depth: int) -> Iterator[Line]:
    for problem in row.problems:
        # The line above says where.
        text = f"^ {problem.removeprefix(f'{span.path}: ')}"
        yield Line(depth, text, "~", matters=True, spans=0)
