"""What markers, options and the ini file ask for, and what is said of wrong ones."""

from __future__ import annotations

import re

import pytest

from pytest_tta.explore.options import (
    KINDS,
    ExploreSettings,
    SchedulesAsked,
    SweepAsked,
    Wanted,
    parse_budget,
    parse_shard,
    wanted_of,
)

ON = ExploreSettings(on=True)
OFF = ExploreSettings()


def wanted(pytester: pytest.Pytester, marks: str, settings: ExploreSettings = OFF):
    """Return what is asked for by a test with these markers."""
    lines = "\n".join(f"@pytest.mark.{mark}" for mark in marks.split(" & ") if mark)
    item = pytester.getitem(f"import pytest\n{lines}\ndef test_it(): pass", "test_it")
    return wanted_of(item, settings)


def test_nothing_is_asked_for_by_itself(pytester: pytest.Pytester) -> None:
    """A test without a marker is not explored, and is with --tta-explore."""
    assert wanted(pytester, "") is None
    assert wanted(pytester, "", ON) == Wanted(False, SweepAsked(), SchedulesAsked())


@pytest.mark.parametrize(
    ("marks", "sweep", "schedules"),
    [
        ("tta_sweep", SweepAsked(), None),
        ("tta_sweep(2)", SweepAsked(depth=2), None),
        ("tta_sweep(faults='error hang')", SweepAsked(1, ("error", "hang")), None),
        ("tta_sweep(faults=['late'])", SweepAsked(faults=("late",)), None),
        ("tta_sweep(sites='a b')", SweepAsked(sites=("a b",)), None),
        ("tta_sweep(sites=['a', 'b*'])", SweepAsked(sites=("a", "b*")), None),
        ("tta_sweep(strict=True, budget=9)", SweepAsked(strict=True, budget=9), None),
        ("tta_schedules", None, SchedulesAsked()),
        ("tta_schedules(50)", None, SchedulesAsked(count=50)),
        ("tta_schedules(mode='burst')", None, SchedulesAsked(mode="burst")),
        (
            "tta_schedules(exhaustive=True, early=0)",
            None,
            SchedulesAsked(exhaustive=True, early=0),
        ),
        ("tta_schedules(pure='a*')", None, SchedulesAsked(pure=("a*",))),
        ("tta_sweep & tta_schedules(5)", SweepAsked(), SchedulesAsked(5)),
    ],
)
def test_markers_ask(
    pytester: pytest.Pytester,
    marks: str,
    sweep: SweepAsked | None,
    schedules: SchedulesAsked | None,
) -> None:
    """Each asks for its own search, with what it was given."""
    assert wanted(pytester, marks) == Wanted(True, sweep, schedules)


@pytest.mark.parametrize(
    ("asked", "executions"),
    [
        (SchedulesAsked(), 200),
        (SchedulesAsked(50), 50),
        (SchedulesAsked(exhaustive=True), 10_000),
        (SchedulesAsked(50, exhaustive=True), 50),
    ],
)
def test_all_orders_may_take_longer(asked: SchedulesAsked, executions: int) -> None:
    """Unless the marker says how many executions there may be."""
    assert asked.executions == executions


def test_markers_override_the_defaults(pytester: pytest.Pytester) -> None:
    """Under --tta-explore a marker changes its own search, and 0 switches it off."""
    asked = wanted(pytester, "tta_sweep(depth=2) & tta_schedules(0)", ON)
    assert asked == Wanted(True, SweepAsked(depth=2), None)


@pytest.mark.parametrize(
    "marks",
    [
        "tta_no_explore",
        "tta_no_explore & tta_sweep(3)",
        "tta_sweep(0) & tta_schedules(0)",
    ],
)
def test_a_test_may_be_left_out(pytester: pytest.Pytester, marks: str) -> None:
    """It is not explored, also under --tta-explore."""
    assert wanted(pytester, marks, ON) is None


def test_the_closest_marker_wins_argument_by_argument(
    pytester: pytest.Pytester,
) -> None:
    """What the test does not say, its module says."""
    item = pytester.getitem(
        "import pytest\n"
        "pytestmark = pytest.mark.tta_sweep(depth=2, strict=True)\n"
        "@pytest.mark.tta_sweep(depth=3)\n"
        "def test_it(): pass",
        "test_it",
    )
    asked = wanted_of(item, OFF)
    assert asked == Wanted(True, SweepAsked(depth=3, strict=True), None)
    assert asked.strict


NAMES = ", ".join(KINDS)


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("tta_sweep(-1)", "tta_sweep depth=-1 must be a whole number from 0"),
        ("tta_sweep(True)", "tta_sweep depth=True must be a whole number from 0"),
        ("tta_sweep(1, 2)", "tta_sweep takes one argument without a name, got (1, 2)"),
        ("tta_sweep(1, depth=2)", "tta_sweep got depth twice"),
        (
            "tta_sweep(dept=2)",
            "tta_sweep does not know 'dept'; it takes depth, faults, sites, strict, b",
        ),
        (
            "tta_sweep(faults='slow')",
            f"tta_sweep faults='slow' has no fault 'slow'; there are {NAMES}",
        ),
        ("tta_sweep(faults=[])", "faults=[] must be a text, or several in a list"),
        ("tta_sweep(sites=3)", "sites=3 must be a text, or several in a list"),
        ("tta_sweep(strict=1)", "strict=1 must be True or False"),
        ("tta_sweep(budget=0)", "budget=0 must be a whole number from 1"),
        ("tta_schedules('x')", "tta_schedules count='x' must be a whole number from 0"),
        ("tta_schedules(mode='x')", "mode='x' must be one of op, burst, harsh"),
        ("tta_schedules(exhaustive=0)", "exhaustive=0 must be True or False"),
        ("tta_schedules(early=None)", "early=None must be a whole number from 0"),
        ("tta_no_explore(1)", "tta_no_explore takes no arguments"),
    ],
)
def test_a_wrong_argument_is_named(
    pytester: pytest.Pytester, mark: str, sentence: str
) -> None:
    """The sentence names the test, the marker, the value and what is allowed."""
    with pytest.raises(pytest.fail.Exception, match=re.escape(sentence)) as refused:
        wanted(pytester, mark)
    assert "::test_it: mark.tta_" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("45s", 45), ("10m", 600), ("1h30m", 5400), ("1h2m3s", 3723)],
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    """Hours, minutes and seconds, or seconds alone."""
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "ten", "-5", "1.5h", "5m1h", "10 m"])
def test_a_wrong_length_is_refused(text: str) -> None:
    """The sentence shows what is allowed."""
    with pytest.raises(ValueError, match="such as 90, 45s, 10m or 1h30m"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "shard"), [("1/1", (0, 1)), ("1/8", (0, 8)), ("8/8", (7, 8))]
)
def test_a_shard_is_counted_from_one(text: str, shard: tuple[int, int]) -> None:
    """As people and CI systems count machines."""
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "a/b", "1/0", "-1/4"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    """The sentence shows what is allowed."""
    with pytest.raises(ValueError, match="counted from 1, such as 2/8"):
        parse_shard(text)
