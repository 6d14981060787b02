"""The benchmark itself: its rows are complete, and its verdicts are right."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks import children, exploring, measure, on_redis, peers, table
from tests.benchmarks.table import Figures, Outcome, Row, measured

KEYS = [
    "step",
    "chain",
    "retry",
    "retry-failures",
    "fallback",
    "timeout",
    "timeout-suspended",
    "breaker",
    "breaker-rate",
    "bulkhead",
    "rate-limit",
    "cache-hit",
    "cache-hit-dict",
    "stack",
    "parallel-10",
    "parallel-1000",
    "map",
    "observer-none",
    "observer-no-op",
    "observer-recorder",
    "prometheus",
    "context",
    "misses-loads",
    "misses-values",
    "otel",
    "otel-unsampled",
    "redis-hit",
    "redis-hits",
    "redis-connections",
    "fastapi",
    "fastapi-uvicorn",
    "flask",
    "flight-retry",
    "flight-fallback",
    "flight-timeout",
    "flight-breaker",
    "flight-bulkhead",
    "flight-rate-limit",
    "flight-hedge",
    "cache-entry",
    "garbage",
    "import-time",
    "import-memory",
    "import-modules",
    "jumps-trio",
    "jumps-looptime",
    "backoff-day",
    "clock",
    "wall",
    "properties",
    "sweep",
    "sweep-looptime",
    "exploration",
    "exploration-simloop",
    "simulation",
    "plugin-off",
    "plugin-modules",
    "plugin-on",
    "scan",
    "test",
]
ROWS = [row for rows in program.SECTIONS for row in rows]
PACE = measure.Pace(rounds=3, turn=1e-9, processes=2, count=1)


def outcome(value, *, limit=3, is_floor=False, **found):
    row = Row("step", "one step", "x bare", limit, is_floor)
    return Outcome("Runtime", row, Figures(value, **found))


UNBUILT = Outcome("Runtime", table.unbuilt("otel", "some span", "x bare", 5, "a:B"))
BROKEN = Outcome("Runtime", Row("map", "a map", "x", 1), problem="ValueError: no")
ABSENT = Outcome("Runtime", Row("jumps", "jumps", "x", 1), absent="trio not installed")


def test_every_target_has_its_row() -> None:
    """No row is lost or doubled."""
    assert [row.key for row in ROWS] == KEYS


def test_what_is_built_is_measured() -> None:
    """A row may stay empty only as long as its subject does not exist."""
    empty = [row for row in ROWS if row.measure is None]
    assert [row.key for row in empty if is_there(row.needs)] == []


def is_there(subject: str) -> bool:
    module, _, name = subject.partition(":")
    try:
        return hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(
    ("value", "is_floor", "status"),
    [
        (2.9, False, "met"),
        (3, False, "met"),
        (3.01, False, "missed"),
        (2.9, True, "missed"),
        (3, True, "met"),
        (3.01, True, "met"),
    ],
)
def test_a_row_is_met_up_to_its_limit(value, is_floor, status) -> None:
    """The limit itself still counts, from below or from above."""
    assert outcome(value, is_floor=is_floor).status == status


def test_a_figure_that_is_missing_is_not_taken_for_nought() -> None:
    """Nought would meet most targets, and is a figure like any other."""
    assert measured(0.0, "a call") == 0.0
    with pytest.raises(RuntimeError, match=r"^a call could not be measured$"):
        measured(None, "a call")


def test_only_what_was_measured_can_miss() -> None:
    """What is not built or has no reference is no miss; what breaks is one."""
    rows = [outcome(2), outcome(4), UNBUILT, BROKEN, ABSENT]
    assert [one.status for one in rows] == [
        "met",
        "missed",
        "not built yet",
        "broken",
        "no reference",
    ]
    assert table.missed(rows) == [
        "step: 4, wanted <= 3 x bare",
        "map: ValueError: no, wanted <= 1 x",
    ]


def test_a_row_that_misses_says_what_stands_in_its_way() -> None:
    """Below its line, and to machines; one that is met has nothing to explain."""
    row = Row(
        "map", "a map", "x", 1, because="Half of it is the loop's own, and stays. " * 3
    )
    bad, good = (Outcome("Runtime", row, Figures(value)) for value in (2, 1))
    (told,) = table.missed([bad, good])
    first, *rest = told.splitlines()
    assert first == "map: 2, wanted <= 1 x"
    assert len(rest) == 2
    assert all(line.startswith(" " * 6) for line in rest)
    assert " ".join(map(str.strip, rest)) == row.because.strip()
    reasons = [one["because"] for one in json.loads(table.as_json([bad, good]))["rows"]]
    assert reasons == [row.because, ""]


def test_the_table_shows_ours_the_target_and_the_peers() -> None:
    """One line for each row, in columns, with what is missing said."""
    rest = "hyx 1,234, trio not installed; in 2 ms"
    one = outcome(3.14159, peers={"hyx": 1234.5, "trio": None}, note="in 2 ms")
    assert table.written([one, UNBUILT, BROKEN, ABSENT]).splitlines() == [
        "Runtime",
        "-------",
        "MISSED  one step   3.14           <= 3 x bare  " + rest,
        "-       some span  not built yet  <= 5 x bare",
        "BROKEN  a map      broken         <= 1 x       ValueError: no",
        "-       jumps      no reference   <= 1 x       trio not installed",
    ]


def test_json_holds_the_same() -> None:
    """Machines read the status, the figures and the peers."""
    data = json.loads(table.as_json([outcome(2.5, peers={"trio": None}), UNBUILT]))
    met, unbuilt = data["rows"]
    assert (met["status"], met["value"], met["peers"]) == ("met", 2.5, {"trio": None})
    assert (unbuilt["status"], unbuilt["value"]) == ("not built yet", None)


def test_ratios_are_taken_within_rounds() -> None:
    """A round that was disturbed as a whole does not change a median ratio."""
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 40.0, "b": 10.0}, {"a": 9.0, "b": 3.0}]
    times = measure.Times(rounds)
    assert times.ratio("a", "b") == 3
    assert times.seconds("a") == 9
    assert times.extra("a", "b") == 6
    assert times.extra_ratio("a", "b", "b") == 2
    assert "a" in times
    assert "c" not in times


def test_a_race_gives_each_its_turn_in_each_round() -> None:
    """Turns are interleaved; a first one warms up, then the count is found."""
    turns = []

    def block(name):
        def turn(count):
            turns.append(name)
            return count * 1.0

        return turn

    measure.race({"a": block("a"), "b": block("b")}, PACE)
    assert "".join(turns) == "aa" + "bb" + "ababab"


def test_a_race_awaits_and_calls() -> None:
    """Coroutines run in the race's loop, plain calls outside of any."""
    seen = []

    async def one(value):
        seen.append((value, bool(asyncio.get_running_loop())))

    async def two(value, other):
        seen.append((value, other))

    blocks = {
        "one": measure.awaiting(one, 1),
        "two": measure.awaiting(two, 2, 3),
        "call": measure.calling(seen.append, "called"),
    }
    times = measure.race(blocks, PACE)
    assert {*seen} == {(1, True), (2, 3), "called"}
    assert min(times.seconds(name) for name in blocks) >= 0


def test_what_remains_is_done_in_the_same_loop() -> None:
    """Connections that contestants opened can be closed where they belong."""
    raced, closed = set(), []

    async def contestant(_value):
        raced.add(asyncio.get_running_loop())

    async def close():
        closed.append(asyncio.get_running_loop())

    blocks = {"one": measure.awaiting(contestant, 1)}
    measure.race(blocks, PACE, afterwards=close)
    assert closed == [*raced]


def test_a_peer_that_is_missing_is_told() -> None:
    """It is shown as absent, and the others are raced."""

    async def same(value):
        return value

    def missing(_function):
        raise ImportError

    figures = peers.compared(
        measure.awaiting(same, 1),
        measure.awaiting(same, 1),
        {"here": lambda function: function, "gone": missing},
        same,
        1,
        measure.Pace(rounds=3, turn=1e-6, processes=1, count=1),
    )
    assert list(figures.peers) == ["here", "gone"]
    assert figures.peers["gone"] is None
    assert figures.peers["here"] is not None


def test_children_answer_by_turns() -> None:
    """Each prints one JSON object; what cannot be imported answers None."""
    codes = {
        "one": "print('noise'); print('{\"ms\": 1}')",
        "gone": "import a_module_that_nobody_has",
    }
    found = children.answers(codes, PACE)
    assert found == {"one": [{"ms": 1}, {"ms": 1}], "gone": [None, None]}
    assert (
        children.middle(found["one"], "ms"),
        children.lowest(found["one"], "ms"),
    ) == (1, 1)
    assert children.middle(found["gone"], "ms") is None


def test_a_child_that_fails_is_an_error() -> None:
    """Its last line says why."""
    with pytest.raises(RuntimeError, match="a child process failed: ValueError: odd"):
        children.answers({"one": "raise ValueError('odd')"}, PACE)


@pytest.fixture
def sections(monkeypatch):
    def use(**values):
        rows = table.Rows("Runtime")
        for key, value in values.items():
            rows.row(key, key, "x", 1)(lambda _pace, value=value: value())
        monkeypatch.setattr(program, "SECTIONS", (rows,))

    return use


def no_trio() -> None:
    msg = "No module named 'trio'"
    raise ModuleNotFoundError(msg, name="trio")


def test_check_fails_for_a_miss(sections, capsys, tmp_path) -> None:
    """The exit status is 1 only with --check; misses are listed, JSON is written."""
    sections(good=lambda: Figures(1), bad=lambda: Figures(2), odd=lambda: 1 / 0)
    path = tmp_path / "found.json"
    assert program.main(["--check", "--json", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "Missed:",
        "  bad: 2, wanted <= 1 x",
        "  odd: ZeroDivisionError: division by zero, wanted <= 1 x",
    ]
    assert len(json.loads(path.read_text("utf-8"))["rows"]) == 3
    assert program.main([]) == 0
    assert program.main(["--check", "--only", "go"]) == 0


def no_server() -> None:
    msg = "no Redis server at 127.0.0.1:1"
    raise table.NoReferenceError(msg)


def test_check_passes_without_a_reference(sections, capsys) -> None:
    """Whoever lacks a peer or a server cannot miss a target that is a ratio to it."""
    sections(jumps=no_trio, hits=no_server)
    assert program.main(["--check"]) == 0
    output = capsys.readouterr().out
    assert "trio not installed" in output
    assert "no Redis server at 127.0.0.1:1" in output


def test_a_row_beside_simloop_needs_an_interpreter_that_has_it(monkeypatch) -> None:
    """It says how to name one, since simloop does not run on every interpreter."""
    monkeypatch.setattr(exploring, "find_spec", lambda _name: None)
    monkeypatch.delenv("TTA_SIMLOOP_PYTHON", raising=False)
    with pytest.raises(
        table.NoReferenceError, match=r"write in TTA_SIMLOOP_PYTHON which"
    ):
        exploring.exploration_over_simloop(PACE)


def test_what_fails_in_another_interpreter_is_an_error() -> None:
    """Its last words are told: the row does not stay empty."""
    module = "tests.benchmarks.no_such_module"
    with pytest.raises(RuntimeError, match=r"failed: .*No module named"):
        exploring._answered_by(Path(sys.executable), module, PACE)


def test_rows_on_redis_need_a_server(monkeypatch) -> None:
    """Where nobody listens they say so, instead of failing."""
    monkeypatch.setenv("TTA_REDIS_ADDRESS", "127.0.0.1:1")
    for row in on_redis.ROWS:
        with pytest.raises(table.NoReferenceError, match=r"at 127\.0\.0\.1:1"):
            row.measure(PACE)


@pytest.mark.long
def test_a_quick_run_measures_every_row(tmp_path) -> None:
    """Each row that is built gets a figure, and none breaks."""
    path = tmp_path / "found.json"
    assert program.main(["--quick", "--json", str(path)]) == 0
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert [row["key"] for row in rows] == KEYS
    assert [row for row in rows if row["status"] == "broken"] == []
    unbuilt = {row["key"] for row in rows if row["status"] == "not built yet"}
    assert unbuilt == {row.key for row in ROWS if row.measure is None}
