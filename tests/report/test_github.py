"""What GitHub Actions is told: annotations, and a summary of the job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.report import github
from pytest_tta.report.collecting import Spot
from tests.report.test_session import BAD, EXPLORED, GOOD, HEAD, HOSTILE, PLAIN, RAW

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


@pytest.fixture
def on_github(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file for the job's summary; the session runs on GitHub."""
    path = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def commands(result: pytest.RunResult) -> list[str]:
    """Return the lines that the runner reads."""
    return [line for line in result.outlines if line.startswith("::")]


def test_a_failure_is_annotated_where_it_is(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """File and line of what failed, what broke, the faults, and how to see it again."""
    name = pytester.makepyfile(HEAD + GOOD + BAD + PLAIN).name
    line = (HEAD + GOOD + BAD).strip().count("\n") + 1
    (command,) = commands(run("--tta"))
    assert command == (
        f"::error file={name},line={line},title=tta%3A {name}%3A%3Atest_bad::"
        "AssertionError: assert '42' == '43'%0A  %0A  - 43%0A  + 42%0A"
        "faults in answer: 1%0A"
        f"again: pytest {name}::test_bad --tta"
    )


def test_what_exploring_found_is_annotated_with_its_command(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """The whole finding is there, and the line that replays it."""
    name = pytester.makepyfile(HEAD + EXPLORED).name
    (command,) = commands(run("--tta", "--tta-explore", "--tta-failures=none"))
    assert command.startswith(f"::error file={name},line=")
    assert "an order is paid once" in command
    assert f"pytest {name}::test_explored --tta-replay='" in command


def test_other_failures_are_left_to_others(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """A test in which no workflow ran is no finding of ours."""
    pytester.makepyfile("def test_plain():\n    assert 1 == 2\n")
    assert commands(run("--tta")) == []
    assert commands(run()) == []


def test_nothing_is_said_at_other_places(pytester: pytest.Pytester, run: Run) -> None:
    """Without GitHub's variable there is no annotation and no plugin for it."""
    pytester.makepyfile(HEAD + BAD)
    assert commands(run("--tta")) == []


def test_the_ini_file_switches_it_off(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """`tta_github = false` is for who has another reporter."""
    pytester.makepyfile(HEAD + BAD)
    assert commands(run("--tta", "-o", "tta_github=false")) == []
    assert not on_github.exists()
    result = run("-o", "tta_github=perhaps")
    result.stderr.fnmatch_lines(["*tta_github must be true or false: *'perhaps'*"])


def test_the_runner_is_told_also_when_people_are_not(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """At -q the annotation is there all the same: it is for the runner."""
    pytester.makepyfile(HEAD + BAD)
    assert len(commands(run("-q"))) == 1


def test_one_annotation_with_workers(
    pytester: pytest.Pytester, run_apart: Run, on_github: Path
) -> None:
    """Only the process that has all reports speaks."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makepyfile(test_a=HEAD + BAD, test_b=HEAD + GOOD)
    assert len(commands(run_apart("-n2"))) == 1
    assert on_github.read_text("utf-8").count("## tta") == 1


def test_the_summary_is_a_table_and_what_was_found(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """The job's page shows workflows, and each failure with its command."""
    on_github.write_text("# Before\n", "utf-8")
    name = pytester.makepyfile(
        HEAD
        + GOOD
        + BAD
        + "\ndef test_other(tta):\n    tta.run(llm, 'q')\n    raise ValueError('<b>')\n"
    ).name
    run("--tta")
    lines = on_github.read_text("utf-8").splitlines()
    assert lines[:9] == [
        "# Before",
        "## tta",
        "",
        "| workflow | runs | failed | retries | faults | virtual time |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
        "| <code>answer</code> | 2 | 0 | 1 | 1 | 4 s |",
        "| <code>llm</code> | 1 | 0 | 0 | 0 | 1 s |",
        "| **total** | 3 | 0 | 1 | 1 | 5 s |",
        "",
    ]
    titles = [line for line in lines if line.startswith("### ")]
    assert titles == [
        f"### <code>{name.replace('_', '&#95;')}&#58;&#58;test&#95;{test}</code>"
        for test in ("bad", "other")
    ]
    assert not any("<b>" in line for line in lines)
    assert f"<pre>pytest {name}".replace("_", "&#95;") in "\n".join(lines)


def test_a_summary_that_cannot_be_written_is_told(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """The session ends as it would have, with a line more."""
    on_github.mkdir()
    pytester.makepyfile(HEAD + GOOD)
    result = run("--tta")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["tta summary not written: *summary.md*"])


def test_hostile_content_neither_ends_a_command_nor_is_shown(
    pytester: pytest.Pytester, run: Run, on_github: Path
) -> None:
    """No error's text makes a command of its own; secrets and escapes stay out."""
    pytester.makepyfile(HEAD + HOSTILE)
    (command,) = commands(run("--tta"))
    assert command.count("::error ") == 1
    assert "%250A" in command
    summary = on_github.read_text("utf-8")
    assert [one for one in RAW if one in command or one in summary] == []
    assert "<script>" not in summary
    assert "<b>" not in summary


def finding(**changes: Any) -> tuple[Any, Spot]:
    """Return a test that failed, as reports are collected."""
    test = {
        "node_id": "test_a.py::test_a",
        "outcome": "failed",
        "failure": "E   broken",
        "replay": "",
        "tta": None,
        **changes,
    }
    return test, Spot("test_a.py", 3, "broken", is_finding=True)


def test_files_are_below_the_workspace() -> None:
    """A project in a folder of the repository is annotated at the right file."""
    root = Path("/checkout/shop/service")
    (line,) = github.commands([finding()], root, {"GITHUB_WORKSPACE": "/checkout/shop"})
    title = "title=tta%3A test_a.py%3A%3Atest_a"
    assert line == f"::error file=service/test_a.py,line=3,{title}::broken"


def test_annotations_are_not_without_end() -> None:
    """GitHub shows ten of a step; how many the log leaves out is said."""
    many = [finding() for _ in range(300)]
    *shown, last = github.commands(many, Path("/checkout"), {})
    assert len(shown) == 50
    assert last == "::notice title=tta::250 more failures have no annotation"
    *shown, last = github.commands(many[:51], Path("/checkout"), {})
    assert last == "::notice title=tta::1 more failure has no annotation"
    assert len(list(github.commands(many[:50], Path("/checkout"), {}))) == 50


def test_a_folder_that_is_gone_is_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test may remove the folder that the session stands in: files stay named."""
    root = tmp_path / "shop"
    root.mkdir()
    monkeypatch.chdir(root)
    try:
        root.rmdir()
    except OSError:
        pytest.skip("this system keeps a folder that somebody stands in")
    (line,) = github.commands([finding()], root, {})
    assert line.startswith("::error file=test_a.py,line=3,")


def test_no_cell_and_no_block_ends_early() -> None:
    """Markdown and HTML in names and failures are text."""
    name = "a|b`c`<i>*d*\n# e"
    total = {
        "workflow": name,
        "runs": 1,
        "failed": 1,
        "calls": 1,
        "retries": 0,
        "faults": 0,
        "virtual_seconds": 0.0,
    }
    failure = "```\n</pre>\n\n# title [x](y)"
    one = finding(node_id=name, failure=failure, tta={"totals": [total]})
    written = github.summary([one])
    code = "a&#124;b&#96;c&#96;&lt;i&gt;&#42;d&#42; # e"
    assert f"| <code>{code}</code> | 1 | 1 | 0 | 0 | 0 s |" in written
    assert f"### <code>{code}</code>" in written
    block = (
        "<pre>&#96;&#96;&#96;&#10;&lt;/pre&gt;&#10;&#10;# title "
        "&#91;x&#93;&#40;y&#41;</pre>"
    )
    assert block in written


def test_a_session_without_us_has_no_summary() -> None:
    """Tests that do not use the plugin have nothing to be summed up."""
    test, spot = finding()
    assert github.summary([(test, spot._replace(is_finding=False))]) == ""
