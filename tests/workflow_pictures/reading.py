"""Read a picture of a workflow: which boxes and words it has, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from tta_primitives.picture.style import CODE, SANS, SMALL
from tta_primitives.picture.words import width_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Box", "Word", "boxes", "chips", "nodes", "read", "words"]

_SPACE = "{http://www.w3.org/2000/svg}"
_PLACE = re.compile(r"translate\((-?[\d.]+) (-?[\d.]+)\)")
# Coordinates are written to a tenth of a pixel, each time that they are added up.
NEAR = 1.0


@dataclass
class Box:
    """A rectangle, with the boxes and words of the same primitive below it."""

    kind: str
    left: float
    top: float
    width: float
    height: float
    title: str = ""
    below: list[Box] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    chips: list[Box] = field(default_factory=list)

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def holds(self, other: Box | Word) -> bool:
        """Tell whether another lies inside."""
        return (
            self.left - NEAR <= other.left
            and other.right <= self.right + NEAR
            and self.top - NEAR <= other.top
            and other.bottom <= self.bottom + NEAR
        )

    def touches(self, other: Box) -> bool:
        """Tell whether two have a common part."""
        beside = other.right <= self.left + NEAR or self.right <= other.left + NEAR
        apart = other.bottom <= self.top + NEAR or self.bottom <= other.top + NEAR
        return not (beside or apart)


@dataclass
class Word:
    """A line of text, as wide as it is at most."""

    text: str
    kind: str
    left: float
    right: float
    top: float
    bottom: float


def read(svg: str) -> Box:
    """Return the picture as a box with all others below it."""
    root = ET.fromstring(svg)
    top = Box("picture", 0, 0, float(root.get("width")), float(root.get("height")))
    for child in root:
        _read(child, 0, 0, top)
    return top


def _read(element: ET.Element, x: float, y: float, above: Box) -> None:
    tag, kind = element.tag.removeprefix(_SPACE), element.get("class", "")
    if found := _PLACE.match(element.get("transform", "")):
        x, y = x + float(found[1]), y + float(found[2])
    if tag == "text":
        above.words.append(_word(element, kind, x, y))
    if tag == "rect" and kind.startswith("chip"):
        above.chips.append(_box(element, kind, x, y))
    if kind == "node":
        rect = element.find(f"{_SPACE}rect")
        box = _box(rect, rect.get("class"), x, y)
        box.title = element.findtext(f"{_SPACE}title")
        above.below.append(box)
        above = box
    for child in element:
        _read(child, x, y, above)


def _box(rect: ET.Element, kind: str, x: float, y: float) -> Box:
    left, top, width, height = (
        float(rect.get(name)) for name in ("x", "y", "width", "height")
    )
    return Box(kind, x + left, y + top, width, height)


def _word(element: ET.Element, kind: str, x: float, y: float) -> Word:
    size = {"name": CODE, "option": SMALL}.get(kind, SANS)
    left, base = x + float(element.get("x")), y + float(element.get("y"))
    width = width_of(element.text or "", size, mono=kind in {"name", "option"})
    # A fixed width is what a browser gives it.
    width = float(element.get("textLength", width))
    return Word(element.text or "", kind, left, left + width, base - size, base + 3)


def boxes(top: Box) -> Iterator[Box]:
    """Yield all boxes, each before those below it."""
    for box in top.below:
        yield box
        yield from boxes(box)


def nodes(svg: str) -> list[str]:
    """Return what the boxes of a picture say when the pointer rests on them."""
    return [box.title for box in boxes(read(svg))]


def words(svg: str) -> list[str]:
    """Return all words of a picture, in the order of its elements."""
    found = ET.fromstring(svg).iter(f"{_SPACE}text")
    return [one.text or "" for one in found]


def chips(svg: str) -> list[str]:
    """Return the classes of a picture's chips."""
    found = ET.fromstring(svg).iter(f"{_SPACE}rect")
    kinds = [one.get("class", "") for one in found]
    return [kind for kind in kinds if kind.startswith("chip")]
