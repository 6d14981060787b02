"""The elements that a picture is made of, as text; and blocks, which have a size."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from tta_primitives.description import cleaned, cut
from tta_primitives.picture.words import is_plain, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Block", "box", "group", "line", "number", "placed", "text", "tip"]

_ROUND = 6.0
_HEAD = 6.0
_MOST_TIP = 400


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a picture, drawn from its own top left corner.

    Attributes:
        width: In pixels.
        height: The same.
        enter: How far below the top what runs comes in, at the left edge.
        leave: How far below the top it goes out.
        ends: Where it goes out, from the left; usually at the right edge.
        svg: The elements.
    """

    width: float
    height: float
    enter: float
    leave: float
    ends: float
    svg: str


def number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    # To add 0 makes a negative zero a plain one.
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def placed(block: Block, x: float, y: float) -> str:
    """Return a block's elements at a place."""
    return group(block.svg, x, y)


def group(svg: str, x: float, y: float, kind: str = "") -> str:
    """Return elements together, at a place."""
    named = f' class="{kind}"' if kind else ""
    return f'<g{named} transform="translate({number(x)} {number(y)})">{svg}</g>'


def tip(words: str) -> str:
    """Return what is shown when the pointer rests on the element around it."""
    shown = cut(cleaned(words), _MOST_TIP)
    return f"<title>{escape(shown, quote=False)}</title>"


def box(  # noqa: PLR0917 - the place of a box, as everybody writes it
    x: float, y: float, width: float, height: float, kind: str, radius: float
) -> str:
    """Return a rectangle with round corners."""
    size = f'width="{number(width)}" height="{number(height)}"'
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<rect class="{kind}" {place} {size} rx="{number(radius)}"/>'


def text(
    x: float, y: float, words: str, kind: str, size: float, *, mono: bool = False
) -> str:
    """Return a line of text from its left end.

    Args:
        x: Where it begins.
        y: Its base line.
        words: The clean text.
        kind: Its classes.
        size: Of the font, in pixels.
        mono: Whether all characters are equally wide.
    """
    fit = ""
    if not is_plain(words):
        # Some font will have these characters, with widths of its own.
        width = number(width_of(words, size, mono=mono))
        fit = f' textLength="{width}" lengthAdjust="spacingAndGlyphs"'
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<text class="{kind}" {place}{fit}>{escape(words, quote=False)}</text>'


def line(
    points: Sequence[tuple[float, float]], kind: str = "flow", *, head: bool = False
) -> str:
    """Return a line along points that lie beside or above each other.

    Args:
        points: Where it begins, turns, and ends; its turns are round.
        kind: Its classes.
        head: Whether an arrow's head is at its end.
    """
    kept = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
    steps = [f"M{_pair(kept[0])}"]
    for before, at, after in zip(kept, kept[1:], kept[2:], strict=False):
        steps.append(f"L{_pair(_towards(at, before))}")
        steps.append(f"Q{_pair(at)} {_pair(_towards(at, after))}")
    steps.append(f"L{_pair(kept[-1])}")
    drawn = f'<path class="{kind}" d="{"".join(steps)}"/>'
    return drawn + (_head(kept[-2], kept[-1], kind) if head and len(kept) > 1 else "")


def _pair(point: tuple[float, float]) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _towards(at: tuple[float, float], to: tuple[float, float]) -> tuple[float, float]:
    """Return the point where a turn begins or ends."""
    far = abs(to[0] - at[0]) + abs(to[1] - at[1])
    share = min(_ROUND, far / 2) / far
    return at[0] + (to[0] - at[0]) * share, at[1] + (to[1] - at[1]) * share


def _head(before: tuple[float, float], at: tuple[float, float], kind: str) -> str:
    x, y = at
    if before[1] == y:
        points = (x - _HEAD, y - _HEAD / 2), (x - _HEAD, y + _HEAD / 2)
    else:
        points = (x - _HEAD / 2, y - _HEAD), (x + _HEAD / 2, y - _HEAD)
    corners = "L".join(_pair(point) for point in (at, *points))
    return f'<path class="{kind.replace("flow", "head")}" d="M{corners}Z"/>'
