"""Draw what wraps what: a box for each primitive, with what it wraps inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.pictures.svg import WIDTH, box, picture, text

if TYPE_CHECKING:
    from tests.pictures.svg import Shape

__all__ = ["Layer", "Nesting"]

_EDGE = 20
_STEP = 13
_ROW = 31


@dataclass(frozen=True)
class Layer:
    """One primitive.

    Attributes:
        name: What it is.
        note: What it does at this place.
        tone: Its colour; those that act at the same time have the same.
    """

    name: str
    note: str
    tone: str


@dataclass(frozen=True)
class Nesting:
    """A picture of primitives in each other.

    Attributes:
        title: What it shows.
        code: The line of code that made them.
        layers: From the outside to the inside.
    """

    title: str
    code: str
    layers: tuple[Layer, ...]

    def drawn(self) -> str:
        """Return the file."""
        count = len(self.layers)
        total = count * (_ROW + _STEP) + 4
        shapes = [text(20, 28, self.code, "code soft")]
        for depth, layer in enumerate(self.layers):
            shapes += self._layer(layer, depth, total)
        told = [f"{one.name}: {one.note}." for one in self.layers]
        tale = "From the outside to the inside. " + " ".join(told)
        return picture(shapes, 44 + total + 20, self.title, tale)

    def _layer(self, layer: Layer, depth: int, total: float) -> list[Shape]:
        x, y = _EDGE + depth * _STEP, 44 + depth * _ROW
        height = total - depth * (_ROW + _STEP)
        is_last = depth == len(self.layers) - 1
        kind = f"{layer.tone} {'full' if is_last else 'veil'}"
        words, note = ("on", "on") if is_last else ("code strong", "soft small")
        base = y + (height / 2 + 4 if is_last else 20)
        right = WIDTH - x - 14
        place = (x, y, WIDTH - 2 * x, height)
        return [
            # What is around it does not shine through.
            box(*place, "paper-only", 8),
            box(*place, kind, 8),
            text(x + 12, base, layer.name, words),
            text(right, base, layer.note, note, "end"),
        ]
