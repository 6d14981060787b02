"""Words in a picture: clean, measured, broken into lines, and cut.

What a text will be drawn with is not known, so its width is that of the widest of the
usual fonts: words fit their box everywhere, and have a little more room in most.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_plain", "lines_of", "width_of"]

# Widths of characters in ems, of the wider of DejaVu Sans and Arial, rounded up.
_SANS = {
    character: width
    for width, characters in (
        (0.28, "'Iijl"),
        (0.34, " ,./:;\\|"),
        (0.41, "!()-[]frt"),
        (0.46, '"'),
        (0.56, "?L_"),
        (0.58, "*Jcksz`"),
        (0.62, "FTaeovxy"),
        (0.64, "$0123456789bdghnpqu{}"),
        (0.69, "ABCDEKPRSUVXYZ"),
        (0.79, "GHNOQ&"),
        (0.84, "#+<=>^w~"),
        (1.02, "%@MWm"),
    )
    for character in characters
}
_SANS |= dict.fromkeys("CDRU", 0.77)
_MONO = 0.62
# Of a letter that neither table has; of a character as wide as two; of what only
# changes the one before it.
_OTHER, _WIDE, _NONE = 0.75, 1.05, 0.0
_LATIN = "\u0250"
_ELLIPSIS = "…"
_LOOKED_AT = 600
# Names are broken behind a sign, or where a hump begins.
_PIECES = re.compile(r"[^_.\-: ,=]*[_.\-: ,=]+|[^_.\-: ,=]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_plain(text: str) -> bool:
    """Tell whether all fonts have about these characters, so that widths are known."""
    return all(c < _LATIN or c == _ELLIPSIS for c in text)


def width_of(text: str, size: float, *, mono: bool = False) -> float:
    """Return how wide a text is at most.

    Args:
        text: A clean text.
        size: Of the font, in pixels.
        mono: Whether all its characters are equally wide.
    """
    return size * sum(_width(c, mono=mono) for c in text)


def _width(character: str, *, mono: bool) -> float:
    if character in _SANS:
        return _MONO if mono else _SANS[character]
    if unicodedata.combining(character):
        return _NONE
    if unicodedata.east_asian_width(character) in {"W", "F"}:
        return _WIDE
    if mono and (character < _LATIN or character == _ELLIPSIS):
        return _MONO
    return 1.0 if character == _ELLIPSIS else _OTHER


def lines_of(text: str, room: float, size: float, *, most: int = 3) -> list[str]:
    """Break a name in monospace into lines, behind a sign if there is one.

    Args:
        text: A clean text.
        room: How wide a line may be.
        size: Of the font, in pixels.
        most: How many lines there may be; the last one ends in a sign if there is more.
    """
    lines = [""]
    # No three lines are longer than this, and a text may have megabytes.
    for piece in _pieces(text[:_LOOKED_AT], room, size):
        if lines[-1] and width_of(lines[-1] + piece, size, mono=True) > room:
            lines.append("")
        lines[-1] += piece
    if len(lines) <= most:
        return [line.strip() for line in lines]
    last = lines[most - 1].strip()
    while last and width_of(last + _ELLIPSIS, size, mono=True) > room:
        last = last[:-1]
    return [*(line.strip() for line in lines[: most - 1]), last + _ELLIPSIS]


def _pieces(text: str, room: float, size: float) -> Iterator[str]:
    """Yield parts of a text that are no wider than a line."""
    for found in _PIECES.finditer(text):
        for hump in _HUMPS.split(found[0]):
            rest = hump
            while width_of(rest, size, mono=True) > room and len(rest) > 1:
                end = _fitting(rest, room, size)
                yield rest[:end]
                rest = rest[end:]
            yield rest


def _fitting(text: str, room: float, size: float) -> int:
    """Return how many characters fit into a line, at least one."""
    width, end = 0.0, 0
    while end < len(text):
        width += size * _width(text[end], mono=True)
        if width > room:
            break
        end += 1
    return max(end, 1)
