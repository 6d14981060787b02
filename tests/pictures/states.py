"""Draw states and what leads from one to another, laid out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, pi, sin
from typing import TYPE_CHECKING

from tests.pictures.svg import box, line, number, path, picture, text

if TYPE_CHECKING:
    from tests.pictures.svg import Shape

__all__ = ["State", "States", "Step"]

_WIDTH = 150
_HEIGHT = 54


@dataclass(frozen=True)
class State:
    """A state.

    Attributes:
        name: What it is called.
        note: What it means for a call.
        x: Its middle.
        y: The same.
        tone: Its colour.
        pattern: What lies over it, so that the colour is not needed.
        edge: What its frame looks like: "", "dash" or "dot".
    """

    name: str
    note: str
    x: float
    y: float
    tone: str
    pattern: str = ""
    edge: str = ""

    def drawn(self) -> list[Shape]:
        """Return its box and its words."""
        place = (self.x - _WIDTH / 2, self.y - _HEIGHT / 2, _WIDTH, _HEIGHT)
        shapes = [box(*place, f"{self.tone} pale heavy {self.edge}".strip(), 10)]
        if self.pattern:
            shapes.append(box(*place, f"{self.pattern} faint", 10))
        return [
            *shapes,
            text(self.x, self.y - 3, self.name, "strong", "middle"),
            text(self.x, self.y + 15, self.note, "soft small", "middle"),
        ]


@dataclass(frozen=True)
class Step:
    """What leads from one state to another.

    Attributes:
        points: Where it begins, what it bends towards, and where it ends; or only
            where it begins and ends.
        words: What makes it happen, in lines.
        at: Where the words stand.
        anchor: On which side of that place: "", "middle" or "end".
        tale: The step in words, for those who cannot see it.
        kind: "dash" for what a person does.
        leading: From one line of words to the next.
    """

    points: tuple[tuple[float, float], ...]
    words: tuple[str, ...]
    at: tuple[float, float]
    tale: str
    anchor: str = "middle"
    kind: str = ""
    leading: float = 15

    def drawn(self) -> list[Shape]:
        """Return the arrow and its words."""
        *_, before, (x, y) = self.points
        angle = atan2(y - before[1], x - before[0])
        lines = [
            text(
                self.at[0],
                self.at[1] + self.leading * index,
                words,
                "small",
                self.anchor,
            )
            for index, words in enumerate(self.words)
        ]
        return [self._line(angle), _head(x, y, angle), *lines]

    def _line(self, angle: float) -> Shape:
        kind = f"edge plain {self.kind}".strip()
        *rest, (x, y) = self.points
        end = (x - 7 * cos(angle), y - 7 * sin(angle))
        if len(rest) == 1:
            return line([rest[0], end], kind)
        n = number
        (a, b), (c, d) = rest
        return path(
            f"M{n(a)} {n(b)}Q{n(c)} {n(d)} {n(end[0])} {n(end[1])}",
            kind,
        )


def _head(x: float, y: float, angle: float) -> Shape:
    turns = (angle + pi - 0.42, angle + pi + 0.42)
    corners = [(x, y), *((x + 10 * cos(turn), y + 10 * sin(turn)) for turn in turns)]
    steps = "L".join(f"{number(a)} {number(b)}" for a, b in corners)
    return path(f"M{steps}Z", "head plain")


@dataclass(frozen=True)
class States:
    """A picture of states.

    Attributes:
        title: What it shows.
        states: All of them.
        steps: What leads from one to another.
        height: How high the picture is.
    """

    title: str
    states: tuple[State, ...]
    steps: tuple[Step, ...]
    height: float

    def drawn(self) -> str:
        """Return the file."""
        shapes = [shape for step in self.steps for shape in step.drawn()]
        shapes += [shape for state in self.states for shape in state.drawn()]
        names = [f"{state.name}: {state.note}." for state in self.states]
        tale = " ".join([*names, *(f"{step.tale}." for step in self.steps)])
        return picture(shapes, self.height, self.title, tale)
