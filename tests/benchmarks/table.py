"""The rows of the benchmark: what is measured, against what, and how it came out."""

from __future__ import annotations

import json
import platform
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.benchmarks.measure import Pace

__all__ = [
    "Figures",
    "NoReferenceError",
    "Outcome",
    "Row",
    "Rows",
    "as_json",
    "measured",
    "missed",
    "unbuilt",
    "written",
]

_INDENT = 6

Status: TypeAlias = Literal["met", "missed", "not built yet", "no reference", "broken"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a measurement found.

    Attributes:
        value: Ours, in the unit of the row.
        peers: Theirs, in the same unit; None for one that is not installed.
        note: What else the reader should know.
    """

    value: float
    peers: dict[str, float | None] = field(default_factory=dict)
    note: str = ""


class NoReferenceError(Exception):
    """There is nothing here to compare with; the text says what is missing."""


def measured(value: float | None, of: str) -> float:
    """Return a figure that must be there: taken for nought it would meet most targets.

    Raises:
        RuntimeError: It is missing.
    """
    if value is None:
        msg = f"{of} could not be measured"
        raise RuntimeError(msg)
    return value


Measure: TypeAlias = "Callable[[Pace], Figures]"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure with its target.

    Attributes:
        key: A short name, for the command line and the JSON.
        what: What is measured.
        unit: What the figures count: `x bare`, `ms`, `KiB`.
        limit: The target.
        is_floor: Whether the figure must reach the limit instead of keeping below it.
        measure: How; None for what is not built yet.
        needs: The public name that will exist when it is built, `package.module:Name`.
        because: What stands in the way where it misses, in figures that were measured.
    """

    key: str
    what: str
    unit: str
    limit: float
    is_floor: bool = False
    measure: Measure | None = None
    needs: str = ""
    because: str = ""

    @property
    def target(self) -> str:
        """The target as a reader sees it."""
        return f"{'>=' if self.is_floor else '<='} {self.limit:g} {self.unit}"

    def is_met_by(self, value: float) -> bool:
        """Return whether a figure meets the target."""
        return value >= self.limit if self.is_floor else value <= self.limit


class Rows(list[Row]):
    """The rows of one section, each declared over the function that measures it."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def row(
        self,
        key: str,
        what: str,
        unit: str,
        limit: float,
        *,
        is_floor: bool = False,
        because: str = "",
    ) -> Callable[[Measure], Measure]:
        """Add a row measured by the function below."""

        def add(measure: Measure) -> Measure:
            row = Row(key, what, unit, limit, is_floor, measure, because=because)
            self.append(row)
            return measure

        return add


def unbuilt(
    key: str, what: str, unit: str, limit: float, needs: str, *, is_floor: bool = False
) -> Row:
    """Return the row of something that is still to be built."""
    return Row(key, what, unit, limit, is_floor, needs=needs)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row and what was found, if anything was.

    Attributes:
        section: The title of its section.
        row: The row.
        figures: What was found.
        problem: Why nothing could be found.
        absent: What is missing to measure it, where that is why.
    """

    section: str
    row: Row
    figures: Figures | None = None
    problem: str = ""
    absent: str = ""

    @property
    def status(self) -> Status:
        """How it stands."""
        if self.problem:
            return "broken"
        if self.absent:
            return "no reference"
        if self.figures is None:
            return "not built yet"
        return "met" if self.row.is_met_by(self.figures.value) else "missed"


def missed(outcomes: Iterable[Outcome]) -> list[str]:
    """Return a line for each row that does not meet its target, and the reason."""
    return [
        f"{one.row.key}: {one.problem or _figure(one)}, wanted {one.row.target}"
        + _reason(one)
        for one in outcomes
        if one.status in {"missed", "broken"}
    ]


def _reason(one: Outcome) -> str:
    """Say why a row has missed, in lines below its own."""
    if one.status != "missed" or not one.row.because:
        return ""
    indent = " " * _INDENT
    return "\n" + textwrap.fill(
        one.row.because, 88, initial_indent=indent, subsequent_indent=indent
    )


def as_json(outcomes: Iterable[Outcome]) -> str:
    """Return everything, for machines."""
    rows = [_data(one) for one in outcomes]
    about = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    return json.dumps({**about, "rows": rows}, indent=1) + "\n"


def _data(one: Outcome) -> dict[str, Any]:
    figures = one.figures or Figures(float("nan"))
    return {
        "section": one.section,
        "key": one.row.key,
        "what": one.row.what,
        "unit": one.row.unit,
        "limit": one.row.limit,
        "is_floor": one.row.is_floor,
        "status": one.status,
        "value": None if one.figures is None else figures.value,
        "peers": figures.peers,
        "note": _note(one),
        "because": one.row.because if one.status == "missed" else "",
    }


def written(outcomes: Iterable[Outcome]) -> str:
    """Return the table, a section at a time."""
    sections: dict[str, list[Outcome]] = {}
    for one in outcomes:
        sections.setdefault(one.section, []).append(one)
    return "\n".join(_section(title, rows) for title, rows in sections.items())


def _section(title: str, outcomes: list[Outcome]) -> str:
    cells = [_cells(one) for one in outcomes]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                row[4],
            ]
        ).rstrip()
        for row in cells
    ]
    return "\n".join([title, "-" * len(title), *lines, ""])


def _cells(one: Outcome) -> tuple[str, str, str, str, str]:
    mark = {"met": "ok", "missed": "MISSED", "broken": "BROKEN"}.get(one.status, "-")
    beside = ", ".join(_peer(name, value) for name, value in _peers(one).items())
    note = _note(one)
    rest = "; ".join(filter(None, [beside, note]))
    return (mark, one.row.what, _figure(one), one.row.target, rest)


def _note(one: Outcome) -> str:
    return (
        one.absent or one.problem or ("" if one.figures is None else one.figures.note)
    )


def _peers(one: Outcome) -> dict[str, float | None]:
    return {} if one.figures is None else one.figures.peers


def _figure(one: Outcome) -> str:
    return one.status if one.figures is None else _number(one.figures.value)


def _peer(name: str, value: float | None) -> str:
    return f"{name} not installed" if value is None else f"{name} {_number(value)}"


def _number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value != 0 and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
