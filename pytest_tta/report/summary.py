"""The table at the end of a session: what the workflows of all tests came to."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from pytest_tta.report.sections import fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_tta.coverage.session import CoverageSession

__all__ = ["Line", "lines_for", "ratios_of", "shortened_name", "width_of"]

_MOST_ROWS: Final = 10
_NARROWEST_NAME: Final = 16
_GAP: Final = "  "
# What goes first where a terminal is too narrow for everything.
_LEAST_WANTED: Final = ("real", "faults", "virtual", "retries")
_OWN_RUNS: Final = "counted: each test's own run, not the executions of exploring"

Ratio: TypeAlias = tuple[int, int]


class _Row(NamedTuple):
    """What all runs of one workflow came to.

    Attributes:
        workflow: The path of its root.
        runs: How often it was executed from outside.
        failed: How many of these runs failed.
        retries: How often something was tried again.
        faults: How many injected faults struck.
        virtual_seconds: How long the runs took in the loop's time.
        real_seconds: How long the tests took that ran it, by the clock on the wall.
        covered: How many of its outcomes were reached, of how many; None if nobody
            counted.
    """

    workflow: str
    runs: int = 0
    failed: int = 0
    retries: int = 0
    faults: int = 0
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    covered: Ratio | None = None

    def add(self, total: Mapping[str, Any], real_seconds: float) -> _Row:
        """Return the row with what one more test says.

        Args:
            total: One of the totals in the report of a test.
            real_seconds: How long that test took.
        """
        return self._replace(
            runs=self.runs + total["runs"],
            failed=self.failed + total["failed"],
            retries=self.retries + total["retries"],
            faults=self.faults + total["faults"],
            virtual_seconds=self.virtual_seconds + total["virtual_seconds"],
            real_seconds=self.real_seconds + real_seconds,
        )


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        text: What it says.
        markup: How it looks, in the words of pytest's terminal writer.
    """

    text: str
    markup: Mapping[str, bool] = {}


def _rows_of(reports: Iterable[Any]) -> tuple[list[_Row], _Row]:
    """Return a row for each workflow, and the sum of them.

    Args:
        reports: Of tests; those without `tta` are passed over.
    """
    rows: dict[str, _Row] = {}
    everything = _Row("TOTAL")
    for report in reports:
        totals = getattr(report, "tta", {}).get("totals", ())
        for number, total in enumerate(totals):
            name, real = total["workflow"], report.duration
            rows[name] = rows.get(name, _Row(name)).add(total, real)
            # A test that runs two workflows takes its time once.
            everything = everything.add(total, 0.0 if number else real)
    return list(rows.values()), everything


def ratios_of(collecting: CoverageSession | None) -> dict[str, Ratio] | None:
    """Return how much of each workflow was reached, by name.

    Args:
        collecting: What has collected it; None if nobody has.
    """
    if collecting is None:
        return None
    sweep = not collecting._settings.only_tests
    ratios: dict[str, Ratio] = {}
    for workflow in collecting._data.workflows:
        reached, counted = workflow.ratio(sweep=sweep)
        before = ratios.get(workflow.name, (0, 0))
        ratios[workflow.name] = before[0] + reached, before[1] + counted
    return ratios


def _table(rows: list[_Row], total: _Row, *, width: int, shows_all: bool) -> list[Line]:
    """Return the lines of the table: what failed first, then what was retried most.

    Args:
        rows: One for each workflow.
        total: The sum of them.
        width: Of the terminal, in cells.
        shows_all: Whether to show more rows than ten.
    """
    ordered = sorted(rows, key=_by_interest)
    shown = ordered if shows_all else ordered[:_MOST_ROWS]
    longest = max(width_of(_on_a_line(row.workflow)) for row in [*shown, total])
    columns = _columns([*shown, total], width - min(longest, _NARROWEST_NAME))
    room = width - sum(len(_GAP) + column.width for column in columns)
    # pytest does without the last cell too: some terminals break the line there.
    most = max(room - 1, _NARROWEST_NAME)
    names = [shortened_name(_on_a_line(row.workflow), most) for row in shown]
    first = max(map(width_of, ["workflow", *names]))
    lines = [Line(_padded("workflow", first) + "".join(map(_head, columns)))]
    for row, name in zip(shown, names, strict=True):
        cells = "".join(_GAP + column.cell(row) for column in columns)
        lines.append(Line(_padded(name, first) + cells, {"red": row.failed > 0}))
    hidden = len(rows) - len(shown)
    if hidden:
        lines.append(Line(f"... and {hidden} more, -v shows them"))
    if len(rows) > 1:
        lines.append(Line("-" * width_of(lines[0].text)))
        cells = "".join(_GAP + column.cell(total) for column in columns)
        lines.append(Line(_padded(total.workflow, first) + cells, {"bold": True}))
    return lines


def _by_interest(row: _Row) -> tuple[float, float, float, str]:
    return -row.failed, -row.retries, -row.real_seconds, row.workflow


Shown: TypeAlias = Callable[[_Row], str]

_SHOWN: Final[Mapping[str, Shown]] = {
    "runs": lambda row: f"{row.runs:,}",
    "failed": lambda row: f"{row.failed:,}",
    "retries": lambda row: f"{row.retries:,}",
    "faults": lambda row: f"{row.faults:,}",
    "virtual": lambda row: f"{row.virtual_seconds:,.2f} s",
    "real": lambda row: f"{row.real_seconds:,.2f} s",
    "covered": lambda row: _percent(row.covered),
}


class _Column(NamedTuple):
    name: str
    width: int

    def cell(self, row: _Row) -> str:
        return f"{_SHOWN[self.name](row):>{self.width}}"


def _head(column: _Column) -> str:
    return f"{_GAP}{column.name:>{column.width}}"


def _columns(rows: list[_Row], room: int) -> list[_Column]:
    """Return the columns that there is room for, as wide as what stands in them."""
    counts = any(row.covered is not None for row in rows)
    columns = [
        _Column(name, max(len(name), *(len(shown(row)) for row in rows)))
        for name, shown in _SHOWN.items()
        if counts or name != "covered"
    ]
    for name in _LEAST_WANTED:
        if sum(len(_GAP) + one.width for one in columns) < room:
            break
        columns = [one for one in columns if one.name != name]
    return columns


def _percent(ratio: Ratio | None) -> str:
    if ratio is None or not ratio[1]:
        return "-"
    reached, counted = ratio
    # 100% is said only of what has nothing missing.
    return f"{100 if reached == counted else min(99, round(100 * reached / counted))}%"


def shortened_name(name: str, most: int) -> str:
    """Return a name, with dots in its middle if it takes too many cells.

    Args:
        name: On one line.
        most: So many cells are there for it.
    """
    if width_of(name) <= most:
        return name
    half = (most - 3) // 2
    head, tail = _start(name, most - 3 - half), _start(name[::-1], half)[::-1]
    return f"{head}...{tail}"


def _on_a_line(name: str) -> str:
    return fit([name]).replace("\n", "\\n").replace("\t", "\\t")


def _start(text: str, most: int) -> str:
    """Return as many characters of the beginning as there are cells for."""
    taken = 0
    for i, character in enumerate(text):
        taken += width_of(character)
        if taken > most:
            return text[:i]
    return text


def _padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def width_of(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    Args:
        text: One line, without control characters.
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _is_found_by_exploring(report: Any) -> bool:  # noqa: ANN401 - reports have any attribute
    exploration = getattr(report, "tta", {}).get("exploration") or {}
    return exploration.get("verdict") is not None


def lines_for(
    reports: Iterable[Any],
    ratios: Mapping[str, Ratio] | None,
    *,
    width: int,
    shows_all: bool,
) -> Iterator[Line]:
    """Yield the table of a session; nothing if no workflow has run.

    Args:
        reports: Of all tests.
        ratios: How much of each workflow was reached; None if nobody counted.
        width: Of the terminal, in cells.
        shows_all: Whether to show more rows than ten.
    """
    reports = list(reports)
    rows, total = _rows_of(reports)
    if not rows:
        return
    if ratios is not None:
        rows = [row._replace(covered=ratios.get(row.workflow)) for row in rows]
        sums = [sum(column) for column in zip(*ratios.values(), strict=True)]
        total = total._replace(covered=(sums[0], sums[1]) if sums else None)
    yield from _table(rows, total, width=width, shows_all=shows_all)
    if any(map(_is_found_by_exploring, reports)):
        # The report of what was found tells of faults and seconds that are not here.
        yield Line(_OWN_RUNS)
