"""Draw what happened when: a lane for each who took part, bars, marks and an axis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.pictures.svg import (
    WIDTH,
    box,
    cross,
    dot,
    line,
    picture,
    text,
    tick,
    width_of,
)

if TYPE_CHECKING:
    from tests.pictures.svg import Shape

__all__ = ["Bar", "Curve", "Kind", "Lane", "Mark", "Timing"]

Kind: TypeAlias = Literal[
    "ok",
    "failed",
    "timed_out",
    "cancelled",
    "waiting",
    "running",
    "closed",
    "open",
    "half_open",
    "fresh",
    "stale",
]


@dataclass(frozen=True)
class _Look:
    """How a kind of bar is drawn.

    Attributes:
        tone: Its colour.
        fill: How it is filled.
        word: What it is called.
        over: The pattern over it.
        sign: The sign in it.
    """

    tone: str
    fill: str
    word: str
    over: str = ""
    sign: str = ""


_LOOKS = {
    "ok": _Look("good", "full", "ok", sign="tick"),
    "failed": _Look("bad", "full", "failed", "hatch", "cross"),
    "timed_out": _Look("late", "full", "timed out", "spots", "cross"),
    "cancelled": _Look("gone", "pale dash", "cancelled"),
    "waiting": _Look("plain", "dots", "waits"),
    "running": _Look("calm", "pale", "runs"),
    "closed": _Look("good", "pale", "closed"),
    "open": _Look("bad", "pale", "open", "hatch"),
    "half_open": _Look("late", "pale dash", "half_open"),
    "fresh": _Look("good", "pale", "fresh"),
    "stale": _Look("late", "pale dash", "stale"),
}
_LEFT = 128
_RIGHT = WIDTH - 28
_LANE = 38
_BAR = 22


@dataclass(frozen=True)
class Bar:
    """Something that took time.

    Attributes:
        begin: In seconds of the run.
        end: The same.
        kind: What it was, or how it ended.
        words: What stands in it, or beside it if it is too short.
        is_outer: Whether it is of a wrapper, and the bars of what it wraps follow.
    """

    begin: float
    end: float
    kind: Kind
    words: str = ""
    is_outer: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that took no time.

    Attributes:
        at: In seconds of the run.
        words: What it was.
        tone: `good`, `bad`, `late`, `gone`, `calm` or `plain`.
        sign: What is drawn: a tick, a cross, a dot, or nothing.
        side: On which side the words stand.
    """

    at: float
    words: str
    tone: str = "plain"
    sign: Literal["tick", "cross", "dot", "none"] = "dot"
    side: Literal["right", "above"] = "right"


@dataclass(frozen=True)
class Curve:
    """A quantity over time, drawn from the bottom of its lane.

    Attributes:
        points: Pairs of seconds and the quantity.
        most: The quantity at the top of the lane.
    """

    points: list[tuple[float, float]]
    most: float


@dataclass(frozen=True)
class Lane:
    """A line of the picture.

    Attributes:
        name: Who it is about.
        bars: What took time.
        marks: What took none.
        curve: A quantity.
        is_code: Whether the name is one of code.
    """

    name: str
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    curve: Curve | None = None
    is_code: bool = True

    @property
    def height(self) -> float:
        """How much room it takes."""
        is_marked = any(mark.side == "above" for mark in self.marks)
        return (70 if self.curve else _LANE) + (16 if is_marked else 0)

    def tale(self) -> str:
        """What happened in it, in words."""
        bars = [
            f"{_LOOKS[bar.kind].word} from {_seconds(bar.begin)} to {_seconds(bar.end)}"
            + (f" ({bar.words})" if bar.words else "")
            for bar in self.bars
        ]
        marks = [f"{mark.words} at {_seconds(mark.at)}" for mark in self.marks]
        return f"{self.name}: {', '.join([*bars, *marks])}."


@dataclass(frozen=True)
class Timing:
    """A picture of one run.

    Attributes:
        title: What it shows.
        code: The line of code that made it.
        lanes: From top to bottom.
        end: Where the axis ends, in seconds.
        step: The seconds between two figures of the axis.
        limits: Moments that concern all lanes, with their names.
    """

    title: str
    code: str
    lanes: list[Lane]
    end: float
    step: float
    limits: list[tuple[float, str]] = field(default_factory=list)

    def drawn(self) -> str:
        """Return the file."""
        shapes, top = self._header()
        begin = top
        rows: list[Shape] = []
        for lane in self.lanes:
            rows += self._lane(lane, top)
            top += lane.height
        shapes += self._axis(begin, top)
        tale = " ".join(lane.tale() for lane in self.lanes)
        return picture([*shapes, *rows], top + 40, self.title, tale)

    def _header(self) -> tuple[list[Shape], float]:
        shapes = [text(20, 28, self.code, "code soft")]
        return shapes, (62 if self.limits else 46)

    def _axis(self, begin: float, end: float) -> list[Shape]:
        shapes: list[Shape] = []
        count = round(self.end / self.step)
        for index in range(count + 1):
            x = self._x(index * self.step)
            shapes.append(line([(x, begin), (x, end)], "grid"))
            words = f"{index * self.step:g}" + (" s" if index == count else "")
            shapes.append(text(x, end + 20, words, "soft small", "middle"))
        shapes.append(line([(_LEFT, end), (self._x(self.end), end)], "axis"))
        for at, words in self.limits:
            x = self._x(at)
            shapes.append(line([(x, begin - 8), (x, end)], "edge late dash"))
            shapes.append(text(x, begin - 13, words, "word late small", "middle"))
        return shapes

    def _x(self, seconds: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * seconds / self.end

    def _lane(self, lane: Lane, top: float) -> list[Shape]:
        bottom = top + lane.height
        middle = bottom - (70 if lane.curve else _LANE) / 2
        kind = "code" if lane.is_code else ""
        shapes = [text(_LEFT - 14, middle + 4, lane.name, kind, "end")]
        if lane.curve is not None:
            shapes += self._curve(lane.curve, bottom - 6)
        for bar in lane.bars:
            shapes += self._bar(bar, middle)
        for mark in lane.marks:
            shapes += self._mark(mark, middle)
        return shapes

    def _bar(self, bar: Bar, middle: float) -> list[Shape]:
        look = _LOOKS[bar.kind]
        x, width = self._x(bar.begin), self._x(bar.end) - self._x(bar.begin)
        if look.fill == "dots":
            return _pause(x, x + width, middle, bar.words)
        fill = "pale" if bar.is_outer and look.fill == "full" else look.fill
        place = (x, middle - _BAR / 2, width, _BAR)
        shapes = [box(*place, f"{look.tone} {fill}")]
        if look.over and not bar.is_outer:
            shapes.append(box(*place, look.over))
        is_full = fill == "full"
        begin = x + 8
        if look.sign and width >= 14:
            is_alone = not bar.words or width_of(bar.words, 12) + 28 > width
            at = x + width / 2 if is_alone else x + 13
            kind = "sign" if is_full else f"mark {look.tone}"
            shapes.append((tick if look.sign == "tick" else cross)(at, middle, kind))
            begin = x + 23
        if bar.words and width_of(bar.words, 12) + 6 <= x + width - begin:
            is_clear = bar.is_outer or not look.over
            ground = None if is_clear else f"{look.tone} under"
            shapes += _inside(bar.words, begin, middle, ground, is_full=is_full)
        elif bar.words:
            kind = f"word {look.tone} small"
            shapes.append(text(x + width + 7, middle + 4, bar.words, kind))
        return shapes

    def _mark(self, mark: Mark, middle: float) -> list[Shape]:
        x = self._x(mark.at)
        kind = f"mark {mark.tone}"
        signs = {
            "tick": lambda: [tick(x, middle, kind)],
            "cross": lambda: [cross(x, middle, kind)],
            "dot": lambda: [dot(x, middle, f"head {mark.tone}")],
            "none": list,
        }
        shapes = signs[mark.sign]()
        if not mark.words:
            return shapes
        words = f"word {mark.tone} small"
        if mark.side == "above":
            return [*shapes, text(x, middle - 14, mark.words, words, "middle")]
        return [*shapes, text(x + 9, middle + 4, mark.words, words)]

    def _curve(self, curve: Curve, bottom: float) -> list[Shape]:
        height = 50
        points = [
            (self._x(at), bottom - height * value / curve.most)
            for at, value in curve.points
        ]
        area = [(points[0][0], bottom), *points, (points[-1][0], bottom)]
        top = bottom - height
        return [
            line([(_LEFT, top), (self._x(self.end), top)], "open plain dot"),
            text(_LEFT - 6, top + 4, f"{curve.most:g}", "soft small", "end"),
            line(area, "calm curve"),
            line(points, "edge calm"),
        ]


def _inside(
    words: str, x: float, middle: float, ground: str | None, *, is_full: bool
) -> list[Shape]:
    """Return words in a bar, on a ground of their own where there is a pattern."""
    shapes = [text(x, middle + 4, words, "on" if is_full else "small")]
    if ground is None:
        return shapes
    kind = ground if is_full else "paper-only"
    return [box(x - 3, middle - 8, width_of(words, 12) + 4, 16, kind, 3), *shapes]


def _pause(begin: float, end: float, middle: float, words: str) -> list[Shape]:
    """Return a dotted line between two small ends."""
    shapes = [
        line([(begin + 2, middle), (end - 2, middle)], "edge plain dot"),
        line([(begin + 1, middle - 5), (begin + 1, middle + 5)], "edge plain"),
        line([(end - 1, middle - 5), (end - 1, middle + 5)], "edge plain"),
    ]
    if words:
        at = (begin + end) / 2
        shapes.append(text(at, middle - 6, words, "soft small", "middle"))
    return shapes


def _seconds(value: float) -> str:
    return f"{value:g} s"
