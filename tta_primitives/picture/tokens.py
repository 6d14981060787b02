"""What stands in a line: a name, an option, a chip; and lines that tokens flow into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tta_primitives.description import cleaned, cut
from tta_primitives.picture.shapes import box, group, text, tip
from tta_primitives.picture.style import CODE, SANS, SMALL
from tta_primitives.picture.words import lines_of, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = ["Chip", "Flow", "Look", "Token", "chip", "flow", "names", "option", "soft"]

Look: TypeAlias = Literal["full", "pale", "void", "flat"]

_ROW = 17.0
_BETWEEN = 9.0
_CHIP, _CHIP_ROW = 16.0, 20.0
_MOST, _LEAST = 44, 20


@dataclass(frozen=True, slots=True)
class Token:
    """Something in a line.

    Attributes:
        width: In pixels.
        svg: Its elements, drawn from the left end of the line's middle.
        breaks: Whether it begins a line.
        height: Of its line, at least.
    """

    width: float
    svg: str
    breaks: bool = False
    height: float = _ROW


@dataclass(frozen=True, slots=True)
class Chip:
    """A remark on a primitive.

    Attributes:
        words: What it says.
        tone: The class of its colour.
        look: How it is filled.
        sign: What is drawn before the words: "tick", "ring", "cross" or "bar".
        tip: What it means, for the pointer.
    """

    words: str
    tone: str
    look: Look
    sign: Literal["tick", "ring", "cross", "bar"]
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """Tokens in lines.

    Attributes:
        lines: The lines from top to bottom.
        width: Of the longest one.
        height: Of all.
    """

    lines: tuple[tuple[Token, ...], ...]
    width: float
    height: float

    def drawn(self, x: float, y: float, *, middle: float | None = None) -> str:
        """Return the elements.

        Args:
            x: Where lines begin.
            y: The top of the first.
            middle: Where the middle of each line is to be instead.
        """
        parts = []
        for tokens in self.lines:
            at = x if middle is None else middle - _length(tokens) / 2
            height = _height(tokens)
            for token in tokens:
                parts.append(group(token.svg, at, y + height / 2))
                at += token.width + _BETWEEN
            y += height
        return "".join(parts)


def flow(tokens: Iterable[Token], room: float) -> Flow:
    """Put tokens into lines that are no longer than a width, if they can be."""
    lines: list[list[Token]] = []
    for token in tokens:
        is_new = not lines or token.breaks
        if is_new or _length([*lines[-1], token]) > room:
            lines.append([])
        lines[-1].append(token)
    width = max(map(_length, lines), default=0.0)
    return Flow(tuple(map(tuple, lines)), width, sum(map(_height, lines)))


def _height(tokens: Sequence[Token]) -> float:
    return max(one.height for one in tokens)


def _length(tokens: Sequence[Token]) -> float:
    return sum(one.width for one in tokens) + _BETWEEN * (len(tokens) - 1)


def names(name: str, room: float) -> list[Token]:
    """Return a primitive's name, in as many lines as it needs."""
    lines = lines_of(cleaned(name), room, CODE)
    return [
        Token(
            width_of(one, CODE, mono=True),
            text(0, 4, one, "name", CODE, mono=True),
            breaks=True,
        )
        for one in lines
    ]


def option(words: str, room: float) -> Token:
    """Return an option such as `max_retries=3`; its middle is cut if it is long."""
    fitting = int(room / width_of("0", SMALL, mono=True))
    shown = cut(cleaned(words), max(min(_MOST, fitting), _LEAST))
    width = width_of(shown, SMALL, mono=True)
    return Token(width, text(0, 4, shown, "option", SMALL, mono=True))


def soft(words: str, *, breaks: bool = False) -> Token:
    """Return words that are less important than a name."""
    shown = cut(cleaned(words), _MOST)
    return Token(width_of(shown, SANS), text(0, 4, shown, "soft", SANS), breaks)


def chip(one: Chip, room: float, *, breaks: bool = False) -> Token:
    """Return a chip; its words are cut if they are wider than the room."""
    shown = cut(cleaned(one.words), _MOST)
    while width_of(shown, SANS) + 28 > room and len(shown) > 4:  # noqa: PLR2004 - still a word
        shown = cut(cleaned(one.words), len(shown) - 1)
    width = width_of(shown, SANS) + 28
    words = {"full": "on", "pale": "word", "void": "word", "flat": "struck"}[one.look]
    back = box(0, -_CHIP / 2, width, _CHIP, f"chip {one.look}", _CHIP / 2)
    kind = "sign on" if one.look == "full" else "sign"
    sign = f'<path class="{kind}" d="{_SIGNS[one.sign]}"/>'
    drawn = back + sign + text(20, 4, shown, words, SANS)
    svg = f'<g class="{one.tone}">{tip(one.tip)}{drawn}</g>'
    return Token(width, svg, breaks, _CHIP_ROW)


_SIGNS = {
    "tick": "M8 0L11 3L16 -3.5",
    "ring": "M8.5 0A3.5 3.5 0 1 0 15.5 0A3.5 3.5 0 1 0 8.5 0",
    "cross": "M9 -3L15 3M15 -3L9 3",
    "bar": "M8.5 0H15.5",
}
