"""Sessions that collect coverage: what they print, write and judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.coverage.conftest import Run

SHOP = """
from tta_primitives import step
from tta_primitives.recovery import RetryPrimitive

@step
async def pay(order):
    return order

def make():
    return RetryPrimitive(pay, max_retries=1, respect_retry_after=False).named("till")
"""
TESTS = """
import asyncio
from pytest_tta.faults import first
from shop import make
from tta_primitives import WorkflowContext

def test_plain(tta):
    tta.run(make(), 1)

def test_second(tta):
    tta.faults.at("pay").fail(ConnectionError(), when=first(1))
    tta.run(make(), 1)

def test_without_any_fixture():
    asyncio.run(make().execute(1, WorkflowContext()))
"""
SWEEP = """
import asyncio
import pytest
from pytest_tta.coverage import collector
from shop import make

class Down:
    async def execute(self, call, proceed):
        if call.primitive.name == "pay":
            raise ConnectionError
        return await proceed()

@pytest.fixture
def sweep(request, tta):
    yield
    found = collector.current()
    if found is not None:
        with found.observing(request.node.nodeid, "sweep"):
            tta.faults.at("pay").fail(ConnectionError())
            with pytest.raises(ConnectionError):
                tta.run(make(), 1)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Make a workflow and its tests."""
    pytester.makepyfile(shop=SHOP, test_shop=TESTS)
    return pytester


@pytest.mark.usefixtures("project")
def test_table_shows_what_is_missing(run: Run) -> None:
    """Each node has a line with both figures and the outcomes that nobody reached."""
    result = run("--tta-cov")
    result.stdout.fnmatch_lines(
        [
            "*- tta resilience coverage -*",
            "till (shop.py:9, tree ????????)",
            "node   tests  with sweep  missing",
            "till     2/6         2/6  exhausted, not retried, cancelled in attempt, *",
            "  pay    2/3         2/3  cancelled",
            "outcomes: tests 4/9 44%, with sweep 4/9 44%",
        ]
    )
    assert result.ret == 0


@pytest.mark.parametrize(("options", "is_shown"), [(["-q"], True), (["-qq"], False)])
@pytest.mark.usefixtures("project")
def test_quiet_sessions(run: Run, options: list[str], *, is_shown: bool) -> None:
    """Who asks for coverage sees it under -q; -qq is silent."""
    text = run("--tta-cov", *options).stdout.str()
    assert ("tta resilience coverage" in text) == is_shown


def test_sweep_has_a_column_of_its_own(project: pytest.Pytester, run: Run) -> None:
    """What only a sweep has reached is named, and `tests` leaves it out."""
    project.makeconftest(SWEEP)
    project.makepyfile(
        test_shop="from shop import make\n"
        "def test_one(tta, sweep):\n    tta.run(make(), 1)"
    )
    both = run("--tta-cov", "--tta-fail-under=44").stdout
    both.fnmatch_lines(
        [
            "till     1/6         2/6  ok@2, not retried, *; sweep only:",
            "* exhausted",
            "  pay    1/3         2/3  cancelled; sweep only: failed",
            "outcomes: tests 2/9 22%, with sweep 4/9 44%",
        ]
    )
    alone = run("--tta-cov", "--tta-cov-via=tests", "--tta-fail-under=44")
    alone.stdout.fnmatch_lines(
        [
            "node   tests  missing",
            "  pay    1/3  failed, cancelled",
            "outcomes: tests 2/9 22%",
            "FAIL tta resilience coverage of 22.22% is under the required 44%",
        ]
    )
    assert alone.ret == 1


@pytest.mark.parametrize(("least", "code"), [("44", 0), ("45", 1)])
@pytest.mark.usefixtures("project")
def test_session_fails_under_a_percentage(run: Run, least: str, code: int) -> None:
    """The exit status says so, and a line why."""
    result = run(f"--tta-fail-under={least}")
    assert result.ret == code
    assert ("is under the required 45%" in result.stdout.str()) == bool(code)


def test_ini_file_says_the_same(project: pytest.Pytester, run: Run) -> None:
    """Every option has a setting."""
    project.makeini(
        """
        [pytest]
        tta_cov = true
        tta_cov_report =
            json:cov/found.json
        tta_cov_via = tests
        tta_fail_under = 50
        tta_cov_exclude =
            till/pay
            till: cancelled*, not retried
        """
    )
    result = run()
    assert result.ret == 0
    assert "outcomes:" not in result.stdout.str()
    plain = json.loads((project.path / "cov" / "found.json").read_text("utf-8"))
    assert plain["totals"] == {"outcomes": 3, "tests": 2, "with_sweep": 2}


def test_file_is_replaced_as_a_whole(project: pytest.Pytester, run: Run) -> None:
    """Whoever reads the earlier file meanwhile never sees half of another."""
    path, held = project.path / "found.json", project.path / "held.json"
    path.write_text("before", "utf-8")
    held.hardlink_to(path)
    run("--tta-cov", "--tta-cov-report=json:found.json")
    assert held.read_text("utf-8") == "before"
    assert json.loads(path.read_text("utf-8"))["totals"]["outcomes"] > 0


def test_comment_leaves_out(project: pytest.Pytester, run: Run) -> None:
    """`# tta: no cover` takes a node out of the figures, or some of its outcomes."""
    shop = SHOP.replace('named("till")', 'named("till")  # tta: no cover(exhausted)')
    shop = shop.replace("@step", "@step  # tta: no cover")
    project.makepyfile(shop=shop)
    run("--tta-cov").stdout.fnmatch_lines(
        ["till     2/5         2/5  not retried, *", "  pay      -           -"]
    )


def test_workflow_that_is_left_out_has_no_lines(
    project: pytest.Pytester, run: Run
) -> None:
    """Else the trees that a property makes would be screens of dashes."""
    shop = SHOP.replace('named("till")', 'named("till")  # tta: no cover')
    project.makepyfile(shop=shop.replace("@step", "@step  # tta: no cover"))
    result = run("--tta-cov")
    result.stdout.fnmatch_lines(["outcomes: *0/0 100%"])
    result.stdout.no_fnmatch_line("till *")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tta-cov-report=xml", "*--tta-cov-report='xml' must be 'term-missing' or *"),
        ("--tta-cov-via=sweep", "*tta_cov_via = 'sweep' must be 'tests' or 'all'*"),
        ("--tta-fail-under=high", "*tta_fail_under = 'high' must be a percentage *"),
        ("--tta-fail-under=101", "*tta_fail_under = '101' must be a percentage *"),
    ],
)
@pytest.mark.usefixtures("project")
def test_wrong_options_are_said_plainly(run: Run, option: str, message: str) -> None:
    """Before any test runs."""
    result = run("--tta-cov", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.usefixtures("pytester")
def test_session_without_workflows(run: Run, pytester: pytest.Pytester) -> None:
    """There is nothing to miss."""
    pytester.makepyfile("def test_nothing(): pass")
    result = run("--tta-cov", "--tta-fail-under=100")
    result.stdout.fnmatch_lines(["no workflow has run"])
    assert result.ret == 0


def test_figures_are_the_same_with_workers(
    project: pytest.Pytester, run_apart: Run
) -> None:
    """What pytest-xdist's workers collect is joined, whoever ran which test."""
    found = []
    for workers in ("-n0", "-n2"):
        report = f"--tta-cov-report=json:{workers}.json"
        result = run_apart(workers, "--tta", "--tta-fail-under=45", report)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["FAIL tta resilience coverage of 44.44% *"])
        found.append((project.path / f"{workers}.json").read_text("utf-8"))
    assert found[0] == found[1]


def test_sessions_that_do_not_ask_import_nothing(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Not even the modules are loaded."""
    pytester.makepyfile(
        "import sys\n"
        "from tta_primitives.primitive import WorkflowPrimitive\n"
        "def test_idle(tta):\n"
        "    found = [one for one in sys.modules if 'pytest_tta.coverage' in one]\n"
        "    assert found == []\n"
        "    assert WorkflowPrimitive.__new__ is object.__new__\n"
    )
    assert run_apart("--tta").ret == 0
