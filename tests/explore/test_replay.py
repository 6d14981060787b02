"""A plan is executed again where hashes are as they were when it was found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_tta.explore.plan import Plan
from pytest_tta.explore.replay import hash_seed_here, plan_to_replay, tree_note

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

HASHED = """
    import os, pytest

    async def nothing(_):
        pass

    def test_hashed(tta):
        tta.run(nothing, None)
        print("hashed with", os.environ.get("PYTHONHASHSEED"))
"""

HANGS = """
    from pytest_tta import op

    async def load(_):
        await op("late")

    def test_hangs(tta):
        tta.run(load, None)
"""


@pytest.mark.parametrize(
    ("written", "seed"), [("7", 7), ("0", 0), ("random", None), ("", None)]
)
def test_the_seed_of_hashes_is_known_if_it_was_set(
    monkeypatch: pytest.MonkeyPatch, written: str, seed: int | None
) -> None:
    """One that chance has chosen cannot be found out."""
    if not sys.flags.hash_randomization:
        pytest.skip("this interpreter was started without random hashes")
    monkeypatch.setenv("PYTHONHASHSEED", written)
    assert hash_seed_here() == seed


def test_a_line_is_a_plan() -> None:
    """What is none is a wrong option."""
    assert plan_to_replay("tta1 h=7").hash_seed == 7
    with pytest.raises(pytest.UsageError, match="--tta-replay: 'x' is no line"):
        plan_to_replay("x")
    with pytest.raises(pytest.UsageError, match="no fault 'foo'; there are error, "):
        plan_to_replay("tta1 f=late#1:foo")


def test_a_line_for_a_site_that_is_gone_says_so(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Or a plan that strikes nothing would look like one that is mended."""
    pytester.makepyfile(test_hash=HASHED)
    result = run("--tta-replay=tta1 f=nowhere#1:error")
    result.stdout.fnmatch_lines(["*holds now; no call came to nowhere, so that*"])


@pytest.mark.parametrize(
    ("found", "now", "says"), [("a", "b", True), ("a", "a", False), ("", "b", False)]
)
def test_another_tree_is_said(found: str, now: str, says: bool) -> None:
    """A plan without a digest, as one that was written by hand, is for any tree."""
    assert bool(tree_note(Plan(tree=found), now)) is says


def test_other_hashes_are_those_of_a_child(
    pytester: pytest.Pytester, run_apart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session runs once, in an interpreter with the seed of the plan."""
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    pytester.makepyfile(test_hash=HASHED)
    for line, seed in (("tta1 h=11", "11"), ("tta1 h=5", "5"), ("tta1", "5")):
        result = run_apart("-rA", f"--tta-replay={line}")
        result.assert_outcomes(passed=1)
        assert result.stdout.str().count("hashed with") == 1
        result.stdout.fnmatch_lines([f"hashed with {seed}", "*replay: holds now"])


def test_the_line_names_the_seed_of_hashes(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if somebody has set it, since only then can it be set again."""
    pytester.makepyfile(test_hash=HANGS)
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    result = run("--tta-explore", "--tta-failures=none")
    result.stdout.fnmatch_lines(["pytest * --tta-replay='tta1 f=late#1:hang h=5 t=*'"])
    monkeypatch.delenv("PYTHONHASHSEED")
    result = run("--tta-explore", "--tta-failures=none", "--tta-seed=9")
    line = "pytest * --tta-replay='tta1 f=late#1:hang r=9 t=*'"
    result.stdout.fnmatch_lines([line])


def test_a_line_for_several_tests_is_refused_in_workers_too(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Each test says so, instead of a worker that is gone."""
    pytest.importorskip("xdist")
    pytester.makepyfile(test_hash=HASHED, test_hang=HANGS)
    result = run_apart("-p", "xdist.plugin", "-n2", "--tta-replay=tta1")
    result.stdout.fnmatch_lines(["*executes one test, and 2 are selected*"])
    result.assert_outcomes(errors=2)


TWO_WORKFLOWS = """
    from pytest_tta import op
    from tta_primitives import step

    async def load(_):
        await op("db")

    @step
    async def mail(_):
        pass

    def test_both(tta):
        try:
            tta.run(step(load) >> str, None)
        except ConnectionError:
            assert False, "not handled"
        tta.run(mail >> str, None)
"""


def test_a_fault_that_stops_the_test_changes_no_workflow(
    pytester: pytest.Pytester, run: Run
) -> None:
    """After it fewer of them run, which is no reason to doubt the line."""
    pytester.makepyfile(test_two=TWO_WORKFLOWS)
    found = run("--tta-explore", "--tta-failures=none").stdout.str()
    (line,) = {part.split("'")[1] for part in found.split("--tta-replay=")[1:]}
    assert " t=" in line
    replayed = run(f"--tta-replay={line}")
    replayed.assert_outcomes(failed=1)
    replayed.stdout.fnmatch_lines(["*still fails*"])
    replayed.stdout.no_fnmatch_line("*have changed since*")
