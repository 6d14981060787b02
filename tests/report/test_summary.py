"""The table of a session: workflows, and what came of their runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_tta.report.summary import lines_for, width_of

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


class Report:
    """What the table reads of a report."""

    def __init__(self, duration: float, *totals: dict[str, object]) -> None:
        self.duration = duration
        self.tta: dict[str, object] = {"totals": list(totals)}


def total(workflow: str, **numbers: float) -> dict[str, object]:
    """Return what one test says of one workflow."""
    usual = {"runs": 1, "failed": 0, "retries": 0, "faults": 0, "virtual_seconds": 0.5}
    return {"workflow": workflow, **usual, **numbers}


def texts(
    *reports: object,
    width: int = 80,
    shows_all: bool = False,
    ratios: dict[str, tuple[int, int]] | None = None,
) -> list[str]:
    """Return the lines of the table."""
    lines = lines_for(reports, ratios, width=width, shows_all=shows_all)
    return [line.text for line in lines]


def test_each_workflow_has_a_row_and_all_have_a_sum() -> None:
    """What failed comes first, then what was retried most; a test counts once."""
    reports = [
        Report(0.25, total("plan_trip", runs=12, retries=4, virtual_seconds=36.1)),
        Report(
            0.5,
            total("answer", failed=1, faults=3, retries=9, virtual_seconds=1182),
            total("plan_trip"),
        ),
        object(),
        Report(9.0),
    ]
    assert texts(*reports) == [
        "workflow   runs  failed  retries  faults     virtual    real",
        "answer        1       1        9       3  1,182.00 s  0.50 s",
        "plan_trip    13       0        4       0     36.60 s  0.75 s",
        "------------------------------------------------------------",
        "TOTAL        14       1       13       3  1,218.60 s  0.75 s",
    ]


def test_one_workflow_needs_no_sum() -> None:
    """A sum of one row says nothing new."""
    assert texts(Report(0.5, total("answer"))) == [
        "workflow  runs  failed  retries  faults  virtual    real",
        "answer       1       0        0       0   0.50 s  0.50 s",
    ]


def test_what_exploring_did_is_not_counted_which_is_said() -> None:
    """Of a finding the report tells of faults that the table knows nothing of."""
    found, fine = Report(0.5, total("answer")), Report(0.5, total("answer"))
    found.tta["exploration"] = {"verdict": {"kind": "error"}}
    fine.tta["exploration"] = {"verdict": None}
    assert texts(fine, found)[2:] == [
        "counted: each test's own run, not the executions of exploring"
    ]
    assert texts(fine)[2:] == []


def test_without_a_workflow_there_is_no_table() -> None:
    """Tests that run no workflow leave no line."""
    assert texts(Report(0.5), object()) == []


def test_no_more_than_ten_rows_are_shown_unless_asked_for() -> None:
    """The rest is counted, and in the sum."""
    reports = [Report(0.1, total(f"w{number:02}")) for number in range(24)]
    lines = texts(*reports)
    assert lines[1].startswith("w00 ")
    assert lines[10].startswith("w09 ")
    assert lines[11:] == [
        "... and 14 more, -v shows them",
        "--------------------------------------------------------",
        "TOTAL       24       0        0       0  12.00 s  2.40 s",
    ]
    assert len(texts(*reports, shows_all=True)) == 27


def test_failures_come_first_then_retries_then_what_is_slow() -> None:
    """What a reader looks for is never among what is hidden."""
    reports = [
        Report(0.1, total("quick")),
        Report(0.9, total("slow")),
        Report(0.1, total("retried", retries=2)),
        Report(0.1, total("broken", failed=1)),
    ]
    lines = texts(*reports)
    names = [line.split()[0] for line in lines[1:5]]
    assert names == ["broken", "retried", "slow", "quick"]


def test_coverage_is_a_column_if_it_is_counted() -> None:
    """A percentage is 100 only if nothing is missing; what is not counted has none."""
    reports = [Report(0.1, total(name)) for name in ("a", "b", "c")]
    assert texts(*reports, ratios={"a": (999, 1000), "b": (4, 4)}) == [
        "workflow  runs  failed  retries  faults  virtual    real  covered",
        "a            1       0        0       0   0.50 s  0.10 s      99%",
        "b            1       0        0       0   0.50 s  0.10 s     100%",
        "c            1       0        0       0   0.50 s  0.10 s        -",
        "-----------------------------------------------------------------",
        "TOTAL        3       0        0       0   1.50 s  0.30 s      99%",
    ]


def test_long_names_lose_their_middle_and_wide_ones_are_aligned() -> None:
    """Columns stand below each other whatever a name is made of."""
    reports = [
        Report(0.3, total("a_long_name_of_a_workflow_that_goes_on_and_on_for_ever")),
        Report(0.2, total("\u56de\u7b54\u7528\u5de5\u4f5c\u6d41")),
        Report(0.1, total("e\u0301te\u0301\x1b[2J\n")),
    ]
    lines = texts(*reports, width=72)
    numbers = "   1       0        0       0   0.50 s"
    assert lines[:4] == [
        "workflow                 runs  failed  retries  faults  virtual    real",
        f"a_long_nam...n_for_ever  {numbers}  0.30 s",
        f"\u56de\u7b54\u7528\u5de5\u4f5c\u6d41             {numbers}  0.20 s",
        f"e\u0301te\u0301\\x1b[2J\\n             {numbers}  0.10 s",
    ]
    assert {width_of(line) for line in lines} == {width_of(lines[0])}


def test_a_narrow_terminal_has_fewer_columns() -> None:
    """Lines do not wrap; what is known from elsewhere is left out first."""
    name = "an_ordinary_name_of_a_workflow"
    for width in (40, 50, 60, 70, 80):
        lines = texts(Report(0.1, total(name)), Report(0.1, total("b")), width=width)
        assert max(map(len, lines)) < width
    assert texts(Report(0.1, total(name)), width=60) == [
        "workflow             runs  failed  retries  faults  virtual",
        "an_ordin...workflow     1       0        0       0   0.50 s",
    ]


SESSION = """
import asyncio
from pytest_tta.faults import first
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive

@step
async def llm(text):
    await asyncio.sleep(1)
    return text

answer = RetryPrimitive(llm, max_retries=2, jitter="none").named("answer")

async def test_retried(tta):
    tta.faults.at("llm").fail(ConnectionError("reset"), when=first(2))
    await answer.execute("q", WorkflowContext())

async def test_plain():
    await answer.execute("q", WorkflowContext())

async def test_of_no_workflow():
    pass
"""


def between(result: pytest.RunResult) -> list[str]:
    """Return the lines of the table, the time of the wall made equal."""
    lines = result.outlines
    start = next((i for i, line in enumerate(lines) if " tta ===" in line), None)
    if start is None:
        return []
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith("==="))
    return [line.rstrip() for line in lines[start + 1 : end]]


TABLE = [
    "workflow  runs  failed  retries  faults  virtual    real",
    "answer       2       0        2       2   3.50 s  0.00 s",
]


def table_of(result: pytest.RunResult) -> list[str]:
    """Return the lines of the table, without the time that passed on the wall."""
    return [re.sub(r"\d\.\d\d s$", "0.00 s", line) for line in between(result)]


@pytest.fixture
def _session(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    pytester.makepyfile(SESSION)


@pytest.mark.usefixtures("_session")
def test_a_session_ends_with_the_table(run: Run) -> None:
    """It comes of all tests, with the fixture or without."""
    assert table_of(run("--tta")) == TABLE


@pytest.mark.usefixtures("_session")
def test_workers_make_no_difference(run_apart: Run) -> None:
    """What reports of workers say is added up where they arrive."""
    assert table_of(run_apart("--tta", "-n2")) == TABLE


@pytest.mark.usefixtures("_session")
@pytest.mark.parametrize(
    "options",
    [
        ("--tta", "-q"),
        ("--tta", "--no-summary"),
        (),
        ("--no-tta",),
        ("--tta", "-k", "no_workflow"),
    ],
    ids=" ".join,
)
def test_there_is_no_table(run: Run, options: tuple[str, ...]) -> None:
    """It is for those who asked for it, and have run a workflow."""
    result = run(*options)
    assert between(result) == []
    result.stdout.no_fnmatch_line("*retries*")


@pytest.mark.usefixtures("_session")
def test_it_fits_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit beside the name is left out."""
    monkeypatch.setenv("COLUMNS", "46")
    assert table_of(run("--tta")) == [
        "workflow  runs  failed  retries  virtual",
        "answer       2       0        2   0.00 s",
    ]


@pytest.mark.usefixtures("_session")
def test_it_needs_no_signs_beyond_ascii(
    pytester: pytest.Pytester, run_apart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that the terminal cannot show are written as escapes, and aligned."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    pytester.makepyfile(SESSION.replace('"answer"', '"größe"'))
    lines = table_of(run_apart("--tta", "-p", "no:xdist"))
    assert lines == [
        "workflow     runs  failed  retries  faults  virtual    real",
        "gr\\xf6\\xdfe     2       0        2       2   3.50 s  0.00 s",
    ]


FAILING = """
from tta_primitives import WorkflowContext, step

@step
async def broken(text):
    raise ValueError

@step
async def whole(text):
    return text

async def test_it():
    await whole.execute("q", WorkflowContext())
    await broken.execute("q", WorkflowContext())
"""


def test_colour_is_pytests_own(pytester: pytest.Pytester, run: Run) -> None:
    """What failed is red and the sum is bold, where pytest has colours."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    pytester.makepyfile(FAILING)
    red = run("--tta", "--color=yes").stdout.str()
    assert "\x1b[31mbroken       1       1 " in red
    assert "\x1b[1mTOTAL        2       1 " in red
    plain = run("--tta", "--color=no").stdout.str()
    assert "\x1b[" not in plain
    assert "\nbroken       1       1 " in plain


@pytest.mark.usefixtures("_session")
def test_coverage_is_in_the_table(run: Run) -> None:
    """With --tta-cov each workflow says how much of it was reached."""
    lines = between(run("--tta", "--tta-cov", "--tta-cov-report=json:c.json"))
    assert [line.split()[-1] for line in lines] == ["covered", "36%"]


@pytest.mark.usefixtures("_session")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "tta: clock=virtual, seed=0"),
        (("--tta-seed=7",), "tta: clock=virtual, seed=7"),
        (("-o", "tta_clock=real", "--tta-cov"), "tta: clock=real, seed=0, cov"),
        (
            ("--tta-explore",),
            "tta: clock=virtual, seed=0, explore, hashes=random",
        ),
        (
            ("--tta-budget=1", "--tta-shard=1/2"),
            "tta: clock=virtual, seed=0, explore, budget=1, shard=1/2, hashes=random",
        ),
        (
            ("--tta-mutate=retry",),
            "tta: clock=virtual, seed=0, mutate=retry",
        ),
        (
            ("-o", "tta_mutate=all"),
            "tta: clock=virtual, seed=0, mutate=all",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_first_line_says_what_is_on(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    line: str,
) -> None:
    """One line has all that the session can be repeated with."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    result = run("--tta", "-k", "no_workflow", *options)
    assert [one for one in result.outlines if one.startswith("tta: ")] == [line]


@pytest.mark.usefixtures("_session")
def test_hashes_that_are_set_are_not_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PYTHONHASHSEED the next session has the same order of sets."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    result = run("--tta", "--tta-explore", "-k", "no_workflow")
    assert "tta: clock=virtual, seed=0, explore" in result.outlines
