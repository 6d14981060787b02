"""Lay patterns beside spans so that as little as possible is left over.

A trace matches when nothing is left over and no attribute differs; otherwise what is
left over is the difference. So one search decides and explains.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Literal, TypeAlias

from pytest_tta.paths import hint
from pytest_tta.trace.pattern import AnyOrder, No, S, attribute_holds
from pytest_tta.trace.snapshot import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import EllipsisType

    from pytest_tta.trace.spans import Span

__all__ = ["Comparison", "Row"]

# What a comparison may cost before the rest of it is compared in order: a look at a
# pair of a group in any order costs one, a step away from what matches four. That is
# enough for 600 patterns in any order, or 200 spans that are wanted in another order.
_MOST_EFFORT = 200_000
_STEP = 4
# Of two values that are alike for long, so much is shown before they differ.
_SAME_SHOWN = 20
_SHOWN = 160
# No longer values are compared in words.
_LONGEST = 1_000_000

Item: TypeAlias = "S | AnyOrder | EllipsisType"
# Put into words when somebody reads it: most pairs that a search looks at are dropped.
Said: TypeAlias = "Callable[[], str]"
Mark: TypeAlias = Literal[" ", "~", "+", "-"]


class Row:
    """One line of a comparison: a span beside its pattern, or one without the other.

    Attributes:
        span: What happened, None if it was expected and did not.
        pattern: What was expected, None if nothing was.
        rows: The lines below; None where the pattern says nothing about children.
        total: How many problems there are, here and below.
    """

    __slots__ = ("_said", "pattern", "rows", "span", "total")

    def __init__(
        self,
        span: Span | None,
        pattern: S | None,
        said: Sequence[Said],
        rows: list[Row] | None = None,
    ) -> None:
        self.span: Span | None = span
        self.pattern: S | None = pattern
        self._said = said
        self.rows: list[Row] | None = rows
        below = sum(row.total for row in rows or ())
        self.total: int = len(said) + below

    @property
    def problems(self) -> list[str]:
        """What is wrong here, each with the path."""
        return [said() for said in self._said]

    @property
    def mark(self) -> Mark:
        """The sign that stands before the line."""
        if not self._said:
            return " "
        if self.span is None:
            return "-"
        return "+" if self.pattern is None else "~"

    @property
    def weight(self) -> float:
        """How bad it is: a line left over is worse than any pair of one name."""
        if self.span is None or self.pattern is None:
            return 2.0 * self.total
        return 1 + self.total / (self.total + 1) if self.total else 0.0

    def all_problems(self) -> Iterator[Said]:
        """Yield the problems here and below, from the top down, not yet in words."""
        yield from self._said
        for row in self.rows or ():
            yield from row.all_problems()


class Comparison:
    """Compares spans with patterns, each pair once.

    Args:
        known_paths: Gives the paths of all positions in the workflows that ran.
        effort: What it may cost, beside what matches; the usual unless given.
    """

    def __init__(
        self, known_paths: Callable[[], Sequence[str]], effort: int | None = None
    ) -> None:
        self._known_paths = known_paths
        self._effort = _MOST_EFFORT if effort is None else effort
        self._pairs: dict[tuple[int, int], Row | None] = {}

    @property
    def is_spent(self) -> bool:
        """Whether it was too much, so that some of it was compared in order only."""
        return self._effort <= 0

    def spend(self, effort: int = 1) -> bool:
        """Take some of the effort, and tell whether there was enough."""
        self._effort -= effort
        return self._effort >= 0

    def align(
        self, spans: Sequence[Span], items: Sequence[Item], path: str
    ) -> list[Row]:
        """Return the lines for siblings beside the patterns of them.

        Args:
            spans: The siblings in the order in which they began.
            items: What is expected, in order.
            path: The path of the span above, for messages.
        """
        return _Search(self, spans, items, path).rows()

    def pair(self, span: Span, pattern: S) -> Row | None:
        """Return the line of a span beside a pattern, None if it has another name."""
        key = (id(span), id(pattern))
        if key not in self._pairs:
            fits = pattern.fits(span.path)
            self._pairs[key] = self._compared(span, pattern) if fits else None
        return self._pairs[key]

    def _compared(self, span: Span, pattern: S) -> Row:
        said = list(_attribute_problems(span, pattern))
        for absent in pattern.absent:
            said += self._presence(span, absent)
        items = pattern.rows
        rows = self.align(span.children, items, span.path) if items else None
        return Row(span, pattern, said, rows)

    def _presence(self, span: Span, absent: No) -> Iterator[Said]:
        """Yield what is wrong about the absence of something below a span."""
        pattern = absent.pattern
        if not any(pattern.fits(path) for path in self._known_paths()):
            yield partial(_undecided, span, absent, self.names)
            return
        for below in span.descendants():
            row = self.pair(below, pattern)
            if row is not None and not row.total:
                yield partial("{} ran, in spite of {!r}".format, below.path, absent)

    def names(self) -> list[str]:
        """Return the names that a pattern could have."""
        return list({path.rpartition("/")[2]: None for path in self._known_paths()})


def _undecided(span: Span, absent: No, names: Callable[[], list[str]]) -> str:
    near = hint(absent.pattern.name, names())
    return (
        f"{span.path}: {absent!r} cannot be decided, nothing in this workflow "
        f"has that name; {near}"
    )


def _attribute_problems(span: Span, pattern: S) -> Iterator[Said]:
    for name, expected in pattern.attributes.items():
        try:
            actual = getattr(span, name)
        except LookupError as error:
            yield partial(str, error)
            continue
        if not attribute_holds(expected, actual):
            yield partial(_unequal, span.path, name, actual, expected)


def _unequal(path: str, name: str, actual: object, expected: object) -> str:
    if isinstance(expected, type):
        return f"{path}: {name} is {shorten(actual)}, expected {expected.__name__}"
    here, there = _apart(shorten(actual, _LONGEST), shorten(expected, _LONGEST))
    return f"{path}: {name} is {here}, expected {there}"


def _apart(one: str, other: str) -> tuple[str, str]:
    """Cut two texts so that where they begin to differ is seen in both."""
    if len(one) <= _SHOWN and len(other) <= _SHOWN:
        return one, other
    pairs = enumerate(zip(one, other, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    start = max(same - _SAME_SHOWN, 0) if same > _SHOWN - _SAME_SHOWN else 0
    return _cut(one, start), _cut(other, start)


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN
    before = f"... [{start:,} characters] ..." if start else ""
    after = f"... [{len(text) - end:,} characters]" if len(text) > end else ""
    return f"{before}{text[start:end]}{after}"


Place: TypeAlias = "tuple[int, int]"
Way: TypeAlias = "tuple[list[Row], Place]"
# Weight, minus how far it is, a number, the place, and where it was reached from.
_Step: TypeAlias = "tuple[float, int, int, Place, tuple[Place, list[Row]]]"


class _Search:
    """The best way to lay these items beside these spans, by Dijkstra's algorithm.

    A place is how many items and how many spans are done with. What matches costs
    nothing and is followed first, so that a trace that matches is walked through once.
    """

    def __init__(
        self,
        comparison: Comparison,
        spans: Sequence[Span],
        items: Sequence[Item],
        path: str,
    ) -> None:
        self._comparison = comparison
        self._spans = spans
        self._items = items
        self._path = path
        # From where each place is reached best, and by which lines.
        self._came: dict[Place, tuple[Place, list[Row]]] = {}
        # Each is looked at from many places.
        self._absentees: dict[int, Row] = {}
        self._surplus: dict[int, Row] = {}

    def rows(self) -> list[Row]:
        end = len(self._items), len(self._spans)
        order = count()
        # Weight; then what is furthest; then what was found first.
        start = (0, 0)
        waiting: list[_Step] = [(0.0, 0, next(order), start, (start, []))]
        while waiting:
            weight, _, _, place, came = heappop(waiting)
            if place in self._came:
                continue
            self._came[place] = came
            if place == end:
                break
            if weight and not self._comparison.spend(_STEP):
                return self._followed(place) + list(self._in_order(*place))
            for rows, after in self._ways(*place):
                further = weight + sum(row.weight for row in rows)
                entry = (further, -sum(after), next(order), after, (place, rows))
                heappush(waiting, entry)
        return self._followed(end)

    def _in_order(self, i: int, j: int) -> Iterator[Row]:
        """Yield lines for all that is left, one item beside one span at a time."""
        end = len(self._items), len(self._spans)
        while (i, j) != end:
            item = self._items[i] if i < len(self._items) else None
            ways = iter(self._ways(i, j))
            rows, (after, j_after) = next(ways)
            if isinstance(item, S) and j < len(self._spans) and j_after == j:
                # Of another name: both are left over, so that both go on.
                rows, j_after = [*rows, self._unexpected(self._spans[j])], j + 1
            elif item is ... and not self._goes_on(i + 1, j):
                rows, (after, j_after) = next(ways, (rows, (after, j_after)))
            yield from rows
            i, j = after, j_after

    def _goes_on(self, i: int, j: int) -> bool:
        """Tell whether dots end before this span: the next pattern has its name."""
        item = self._items[i] if i < len(self._items) else None
        if j >= len(self._spans) or item is None:
            return j >= len(self._spans)
        return not isinstance(item, S) or item.fits(self._spans[j].path)

    def _followed(self, place: Place) -> list[Row]:
        found: list[list[Row]] = []
        while place != (0, 0):
            place, rows = self._came[place]
            found.append(rows)
        return [row for rows in reversed(found) for row in rows]

    def _ways(self, i: int, j: int) -> Iterator[Way]:
        """Yield each step from a place, the most wanted first."""
        item = self._items[i] if i < len(self._items) else None
        if isinstance(item, S):
            yield from self._ways_of_one(item, i, j)
        elif isinstance(item, AnyOrder):
            yield from self._ways_of_group(item, i, j)
        elif item is ...:
            yield [], (i + 1, j)
        if j < len(self._spans) and not self._takes_all(i):
            span = self._spans[j]
            row = Row(span, None, []) if item is ... else self._unexpected(span)
            yield [row], (i, j + 1)

    def _takes_all(self, i: int) -> bool:
        """Tell whether the item is a group that all spans that are left belong to."""
        return i == len(self._items) - 1 and isinstance(self._items[i], AnyOrder)

    def _ways_of_one(self, item: S, i: int, j: int) -> Iterator[Way]:
        row = (
            self._comparison.pair(self._spans[j], item)
            if j < len(self._spans)
            else None
        )
        if row is not None:
            yield [row], (i + 1, j + 1)
        yield [self._missing(item)], (i + 1, j)

    def _ways_of_group(self, group: AnyOrder, i: int, j: int) -> Iterator[Way]:
        """Yield the group beside its own number of spans, or beside what is left."""
        left = len(self._spans) - j
        after = sum(
            1 if isinstance(one, S) else len(one.patterns)
            for one in self._items[i + 1 :]
            if one is not ...
        )
        usual = (len(group.patterns), left - after, left, 0)
        sizes = (left,) if self._takes_all(i) else dict.fromkeys(usual)
        for size in sizes:
            if 0 <= size <= left:
                yield (
                    self._unordered(group, self._spans[j : j + size]),
                    (i + 1, j + size),
                )

    def _unordered(self, group: AnyOrder, spans: Sequence[Span]) -> list[Row]:
        """Give each pattern a span of its own, exact ones first."""
        pair = self._comparison.pair
        table = _Table(group.patterns, spans, self._comparison)
        chosen = {**table.exact(), **table.rest()}
        rows = [
            row
            if j in chosen and (row := pair(span, group.patterns[chosen[j]]))
            else (self._unexpected(span))
            for j, span in enumerate(spans)
        ]
        taken = set(chosen.values())
        left = (one for i, one in enumerate(group.patterns) if i not in taken)
        return [*rows, *(self._missing(one) for one in left)]

    def _unexpected(self, span: Span) -> Row:
        """Return the line of a span without a pattern, the same one each time."""
        row = self._surplus.get(id(span))
        if row is None:
            said = partial("{} was not expected here".format, span.path)
            row = self._surplus[id(span)] = Row(span, None, [said])
        return row

    def _missing(self, pattern: S) -> Row:
        """Return the line of a pattern without a span, the same one each time."""
        row = self._absentees.get(id(pattern))
        if row is None:
            said = partial(_did_not_run, self._path, pattern, self._comparison.names)
            row = self._absentees[id(pattern)] = Row(None, pattern, [said])
        return row


def _did_not_run(path: str, pattern: S, names: Callable[[], list[str]]) -> str:
    where = f"{path}: " if path else ""
    there = names()
    known = any(pattern.fits(name) for name in there) or "/" in pattern.name
    near = "" if known else f"; {hint(pattern.name, there)}"
    return f"{where}{pattern!r} was expected here and did not run{near}"


class _Table:
    """Which pattern of a group takes which span."""

    def __init__(
        self,
        patterns: Sequence[S],
        spans: Sequence[Span],
        comparison: Comparison,
    ) -> None:
        self._patterns = patterns
        self._spans = spans
        self._comparison = comparison
        self._taker: dict[int, int] = {}
        self._taken: dict[int, int] = {}

    def exact(self) -> dict[int, int]:
        """Return the pattern of each span in the largest matching without a problem.

        Augmenting paths, after Kuhn's form of the Hungarian method.
        """
        for pattern in range(len(self._patterns)):
            if len(self._taker) == len(self._spans) or self._comparison.is_spent:
                break
            came_from, span = self._augmenting(pattern)
            while span is not None:
                taker = came_from[span]
                before = self._taken.get(taker)
                self._taker[span] = taker
                self._taken[taker] = span
                span = before
        return self._taker

    def _augmenting(self, start: int) -> tuple[dict[int, int], int | None]:
        came_from: dict[int, int] = {}
        waiting = deque([start])
        while waiting:
            pattern = waiting.popleft()
            for span in self._candidates(pattern):
                if not self._comparison.spend():
                    return came_from, None
                if span not in came_from and self._total(pattern, span) == 0:
                    came_from[span] = pattern
                    if span not in self._taker:
                        return came_from, span
                    waiting.append(self._taker[span])
        return came_from, None

    def _candidates(self, pattern: int) -> Iterator[int]:
        """Yield the spans, the one at the pattern's own place first: it often fits."""
        yield from range(pattern, len(self._spans))
        yield from range(min(pattern, len(self._spans)))

    def _total(self, pattern: int, span: int) -> int | None:
        row = self._comparison.pair(self._spans[span], self._patterns[pattern])
        return None if row is None else row.total

    def rest(self) -> dict[int, int]:
        """Return a pattern of the same name for spans that none fits, the least bad."""
        open_patterns = [i for i in range(len(self._patterns)) if i not in self._taken]
        open_spans = [j for j in range(len(self._spans)) if j not in self._taker]
        if not self._comparison.spend(len(open_patterns) * len(open_spans)):
            pairs = zip(open_spans, open_patterns, strict=False)
            return {j: i for j, i in pairs if self._total(i, j) is not None}
        totals = sorted(
            (total, i, j)
            for i in open_patterns
            for j in open_spans
            if (total := self._total(i, j)) is not None
        )
        chosen: dict[int, int] = {}
        taken: set[int] = set()
        for _, pattern, span in totals:
            if span not in chosen and pattern not in taken:
                chosen[span] = pattern
                taken.add(pattern)
        return chosen
