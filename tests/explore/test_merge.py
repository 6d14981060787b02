"""Files of several machines, joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.__main__ import main
from pytest_tta.explore.campaign import Records
from pytest_tta.explore.merge import replay_command

if TYPE_CHECKING:
    from pathlib import Path

FOUND = {
    "executions": 70,
    "verdict": {"kind": "assertion", "where": "test_a.py:3"},
    "line": "tta1 f=pay#1:error",
}


@pytest.fixture
def written(tmp_path: Path):
    """Return a function that writes a file of records and returns its name."""

    def write(name: str, *records: tuple[str, dict[str, Any]]) -> str:
        path = tmp_path / name
        file = Records(path)
        for test, found in records:
            file.write(test, found)
        return str(path)

    return write


def test_executions_are_summed_and_findings_listed(
    written, capsys: pytest.CaptureFixture[str]
) -> None:
    """What two machines found of one test is one finding."""
    a = written("a.jsonl", ("test_a.py::test", FOUND), ("test_b", {"executions": 930}))
    b = written("b.jsonl", ("test_a.py::test", FOUND))
    assert main(["merge", a, b]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "2 tests explored, 1,070 executions",
        "test_a.py::test: assertion at test_a.py:3",
        "  pytest test_a.py::test --tta-replay='tta1 f=pay#1:error'",
    ]


def test_nothing_found_is_said(written, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is that of a success."""
    name = written("a.jsonl", ("test_a", {"executions": 1, "verdict": None}))
    assert main(["merge", name]) == 0
    assert capsys.readouterr().out.endswith("nothing was found\n")


def test_unreached_is_what_no_machine_has_reached(
    written, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site that one of two has reached is reached."""
    a = written("a.jsonl", ("test", {"executions": 1, "unreached": ["pay", "mail"]}))
    b = written("b.jsonl", ("test", {"executions": 1, "unreached": ["pay"]}))
    assert main(["merge", a, b]) == 0
    assert "not reached in test: pay\n" in capsys.readouterr().out


def test_half_a_last_line_is_left_out(
    written, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A machine that was stopped while it wrote has told of the tests before."""
    name = written("a.jsonl", ("test", {"executions": 5}))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"format": "tta-ex')
    assert main(["merge", name]) == 0
    assert capsys.readouterr().out.startswith("1 test explored, 5 executions\n")


@pytest.mark.parametrize("text", ["{}", "no", '{"format": "tta-exploration/9"}'])
def test_another_file_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """The sentence names file and line, and the exit status is 2."""
    path = tmp_path / "a.jsonl"
    path.write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["merge", str(path)])
    sentence = (
        f"merge: {path}:1 is no record of --tta-out in the form tta-exploration/1"
    )
    assert sentence in capsys.readouterr().err


def test_a_missing_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the file."""
    with pytest.raises(SystemExit, match="2"):
        main(["merge", str(tmp_path / "none.jsonl")])
    assert "none.jsonl" in capsys.readouterr().err


def test_the_line_for_a_shell_is_quoted_where_it_must_be() -> None:
    """Names with brackets and blanks are quoted, plain ones are not."""
    line = replay_command("test_a.py::test[a b]", "tta1")
    assert line == "pytest 'test_a.py::test[a b]' --tta-replay='tta1'"
