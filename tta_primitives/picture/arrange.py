"""Put blocks beside and below each other, with lines that show what runs when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tta_primitives.description import cleaned, cut
from tta_primitives.picture.shapes import Block, line, placed, text
from tta_primitives.picture.style import SANS
from tta_primitives.picture.words import width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Leg", "lanes", "margin", "pile", "sequence", "turns", "undone"]

_BETWEEN = 28.0
_LANE = 14.0
_ROW = 30.0
_RAIL = 14.0
_OUTSIDE = 10.0
_DOWN = 30.0
_LABEL = 20
_MOST_LANES = 6


@dataclass(frozen=True, slots=True)
class Leg:
    """One of several ways.

    Attributes:
        block: What runs on it.
        label: When it runs; empty if it always does.
        head: Whether an arrow points at it.
    """

    block: Block
    label: str = ""
    head: bool = True


def sequence(blocks: Sequence[Block], room: float) -> Block:
    """Return blocks one after the other, in as many rows as they need."""
    rows = _rows(blocks, room)
    if len(rows) == 1:
        return _row(rows[0])
    if all(len(row) == 1 for row in rows):
        return _column(blocks)
    return _snake([_row(row) for row in rows])


def _rows(blocks: Sequence[Block], room: float) -> list[list[Block]]:
    rows: list[list[Block]] = [[]]
    width = 0.0
    for block in blocks:
        if rows[-1] and width + _BETWEEN + block.width > room:
            rows.append([])
            width = 0.0
        width += block.width + (_BETWEEN if rows[-1] else 0)
        rows[-1].append(block)
    return rows


def _row(blocks: Sequence[Block]) -> Block:
    """Put what follows where what was before goes out, so that arrows are straight."""
    tops, axis = [], 0.0
    for block in blocks:
        tops.append(axis - block.enter)
        axis = tops[-1] + block.leave
    above = min(tops)
    parts, x, left = [], 0.0, 0.0
    for index, (block, top) in enumerate(zip(blocks, tops, strict=True)):
        y = top - above
        if index:
            at = y + block.enter
            parts.append(line([(left, at), (x, at)], head=True))
        parts.append(placed(block, x, y))
        left = x + block.ends
        x += block.width + _BETWEEN
    height = max(t - above + b.height for b, t in zip(blocks, tops, strict=True))
    enter, leave = blocks[0].enter + tops[0] - above, axis - above
    return Block(x - _BETWEEN, height, enter, leave, left, "".join(parts))


def _column(blocks: Sequence[Block]) -> Block:
    """Put each block below the one before."""
    tops = [0.0, *accumulate(block.height + _ROW for block in blocks)]
    parts = [placed(b, 0, y) for b, y in zip(blocks, tops, strict=False)]
    for (one, other), (y, below) in zip(pairwise(blocks), pairwise(tops), strict=False):
        x = min(one.width, other.width, 64) / 2
        parts.append(line([(x, y + one.height), (x, below)], head=True))
    return _in_turn(blocks, max(block.width for block in blocks), tops, parts)


def _snake(rows: Sequence[Block]) -> Block:
    """Put each row below the one before; a line goes back to its beginning."""
    width = max(row.width for row in rows)
    tops = [0.0, *accumulate(row.height + _ROW for row in rows)]
    parts = [placed(row, 0, y) for row, y in zip(rows, tops, strict=False)]
    for (one, other), (y, below) in zip(pairwise(rows), pairwise(tops), strict=False):
        # Two turns outside, right and left, and the way back between the rows.
        right, back, left = width + _OUTSIDE, below - _ROW / 2, -_OUTSIDE
        start, end = y + one.leave, below + other.enter
        points = [(one.ends, start), (right, start), (right, back), (left, back)]
        parts.append(line([*points, (left, end), (0, end)], head=True))
    return _in_turn(rows, width, tops, parts)


def _in_turn(
    blocks: Sequence[Block], width: float, tops: Sequence[float], parts: Sequence[str]
) -> Block:
    """Return what is entered at the first of blocks and left at the last."""
    last = blocks[-1]
    return Block(
        width,
        tops[-1] - _ROW,
        blocks[0].enter,
        tops[-2] + last.leave,
        last.ends,
        "".join(parts),
    )


def pile(blocks: Sequence[Block]) -> Block:
    """Return blocks below each other, with no word on what runs when."""
    tops = [0.0, *accumulate(block.height + _LANE for block in blocks)]
    width = max(block.width for block in blocks)
    height = tops[-1] - _LANE
    svg = "".join(placed(b, 0, y) for b, y in zip(blocks, tops, strict=False))
    return Block(width, height, height / 2, height / 2, width, svg)


def lanes(legs: Sequence[Leg], room: float) -> Block:
    """Return ways that begin at one point and end at another, below each other.

    Many short ones stand in columns; then what runs comes in above, and goes out below.
    """
    widest = max(leg.block.width for leg in legs)
    one = widest + _before(legs) + 2 * _RAIL
    count = 1
    if len(legs) > _MOST_LANES:
        count = min(max(int(room // (one + _RAIL)), 1), -(-len(legs) // 4))
    if count == 1:
        return _rails(legs)
    size = -(-len(legs) // count)
    return _bus([legs[i : i + size] for i in range(0, len(legs), size)])


def _before(legs: Sequence[Leg]) -> float:
    """Return how long the lines to the ways are, with room for their labels."""
    labels = [width_of(_label(leg), SANS) for leg in legs if leg.label]
    return max(labels, default=0.0) + (_RAIL + 14 if labels else _RAIL)


def _label(leg: Leg) -> str:
    return cut(cleaned(leg.label), _LABEL)


def _rails(legs: Sequence[Leg]) -> Block:
    """Return ways below each other, between two rails."""
    above = sum(leg.block.height + _LANE for leg in legs[:-1])
    middle = (legs[0].block.enter + above + legs[-1].block.enter) / 2
    column = _column_of(legs, middle, middle)
    end = _RAIL + column.width
    width = end + _RAIL
    lead = line([(0, middle), (_RAIL, middle)])
    tail = line([(end, middle), (width, middle)])
    svg = lead + placed(column, _RAIL, 0) + tail
    return Block(width, column.height, middle, middle, width, svg)


def _column_of(legs: Sequence[Leg], enter: float, leave: float) -> Block:
    """Return ways with the lines to them from the left edge, and to the right edge.

    Args:
        legs: The ways.
        enter: Where the lines to them begin, from above.
        leave: Where the lines from them end.
    """
    before = _before(legs)
    widest = max(leg.block.width for leg in legs)
    end = before + widest + _RAIL
    parts, y = [], 0.0
    for leg in legs:
        x = before + (widest - leg.block.width) / 2
        at, out = y + leg.block.enter, y + leg.block.leave
        parts.append(line([(0, enter), (0, at), (x, at)], head=leg.head))
        parts.append(line([(x + leg.block.ends, out), (end, out), (end, leave)]))
        if leg.label:
            parts.append(text(12, at - 5, _label(leg), "soft", SANS))
        parts.append(placed(leg.block, x, y))
        y += leg.block.height + _LANE
    height = y - _LANE
    return Block(end, height, enter, leave, end, "".join(parts))


def _bus(columns: Sequence[Sequence[Leg]]) -> Block:
    """Return columns of ways, all between a line above and a line below."""
    heights = [
        sum(leg.block.height + _LANE for leg in legs) - _LANE for legs in columns
    ]
    enter, top = 4.0, 22.0
    leave = top + max(heights) + 18
    x, parts = _RAIL, []
    drawn = [_column_of(legs, enter - top, leave - top) for legs in columns]
    for column in drawn:
        parts.append(placed(column, x, top))
        x += column.width + _RAIL
    first, last = drawn[0].width, drawn[-1].width
    parts.append(line([(0, enter), (x - _RAIL - last, enter)]))
    parts.append(line([(_RAIL + first, leave), (x, leave)]))
    return Block(x, leave + 4, enter, leave, x, "".join(parts))


def turns(blocks: Sequence[Block], labels: Sequence[str]) -> Block:
    """Return blocks of which each runs only if the one before came to something else.

    Args:
        blocks: The first, and what may run after it.
        labels: When each of the others runs.
    """
    tops = [0.0, *accumulate(block.height + _DOWN for block in blocks)]
    widest = max(
        [block.width for block in blocks]
        + [28 + width_of(cleaned(label), SANS) for label in labels]
    )
    left, end = 2 * _RAIL, 2 * _RAIL + widest + _RAIL
    middle = blocks[0].enter
    parts = [line([(0, middle), (left, middle)], head=True)]
    for index, (block, y) in enumerate(zip(blocks, tops, strict=False)):
        if index:
            parts.append(_way(left, y - _DOWN, y, labels[index - 1]))
        parts.append(placed(block, left, y))
        out = y + block.leave
        parts.append(line([(left + block.ends, out), (end, out), (end, middle)]))
    width = end + _RAIL
    parts.append(line([(end, middle), (width, middle)]))
    return Block(width, tops[-1] - _DOWN, middle, middle, width, "".join(parts))


def _way(x: float, top: float, bottom: float, label: str) -> str:
    """Return the dashed arrow down to what does not always run."""
    at = x + 18
    words = text(at + 8, (top + bottom) / 2 + 3, cleaned(label), "soft", SANS)
    return line([(at, top), (at, bottom)], "flow dash", head=True) + words


def undone(step: Block, undo: Block, label: str) -> Block:
    """Return a step with what undoes it below."""
    wide = 28 + width_of(cleaned(label), SANS)
    width = max(step.width, undo.width, wide)
    top = step.height + _DOWN
    svg = placed(step, 0, 0) + _way(0, step.height, top, label) + placed(undo, 0, top)
    height = top + undo.height
    return Block(width, height, step.enter, step.leave, step.ends, svg)


def margin(block: Block, pad: float) -> Block:
    """Return a block with room around it that no line crosses."""
    return Block(
        block.width + 2 * pad,
        block.height,
        block.enter,
        block.leave,
        block.ends + pad,
        placed(block, pad, 0),
    )
