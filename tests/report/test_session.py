"""Sessions whose reports go into files, and what other plugins find in reports."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

# What a session in this process finds imported is imported once, as in `tests.plugin`.
import pytest_tta.report.runs
import pytest_tta.report.session  # noqa: F401

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

HEAD = """
import asyncio, os, pytest
from pytest_tta.faults import first
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive

@step
async def llm(question):
    await asyncio.sleep(1)
    return "42"

def make():
    retry = RetryPrimitive(llm, max_retries=1, initial_delay=2, jitter="none")
    return retry.named("answer")
"""
GOOD = """
def test_good(tta):
    assert tta.run(make(), "q") == "42"
"""
BAD = """
def test_bad(tta):
    tta.faults.at("llm").fail(TimeoutError("late"), when=first(1))
    assert tta.run(make(), "q") == "43"
"""
PLAIN = """
def test_plain():
    assert True
"""


def needs(module: str) -> None:
    """Skip a test whose neighbour is not installed."""
    pytest.importorskip(module, reason=f"{module} is not installed")


def read(pytester: pytest.Pytester, name: str = "r.json") -> dict[str, Any]:
    """Return what is in a report."""
    found: dict[str, Any] = json.loads((pytester.path / name).read_text("utf-8"))
    return found


def outcomes(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which tests a report has, and what came of them."""
    return [
        (one["node_id"].partition("::")[2], one["outcome"]) for one in record["tests"]
    ]


def timeless(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tests of a report without what differs from run to run."""
    tests: list[dict[str, Any]] = sorted(record["tests"], key=lambda t: t["node_id"])
    for one in tests:
        del one["real_seconds"]
    return tests


def test_a_report_has_every_test_with_what_came_of_it(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Passed, failed, skipped, expected and broken ones; those that use us say more."""
    pytester.makepyfile(
        HEAD
        + GOOD
        + BAD
        + PLAIN
        + """
@pytest.fixture
def gone():
    raise OSError("no disk")

def test_without_set_up(gone): ...

@pytest.mark.skip(reason="not now")
def test_skipped(): ...

@pytest.mark.xfail(reason="known")
def test_expected(): assert False

def test_ends_badly(request):
    request.addfinalizer(lambda: 1 / 0)
"""
    )
    result = run("--tta-json=r.json")
    record = read(pytester)
    assert outcomes(record) == [
        ("test_good", "passed"),
        ("test_bad", "failed"),
        ("test_plain", "passed"),
        ("test_without_set_up", "error"),
        ("test_skipped", "skipped"),
        ("test_expected", "skipped"),
        ("test_ends_badly", "error"),
    ]
    good, bad, plain, *_ = record["tests"]
    assert good["tta"]["totals"][0]["virtual_seconds"] == 1.0
    assert "run" not in good["tta"]
    assert bad["tta"]["run"]["of"] == "the test"
    assert [one["status"] for one in bad["tta"]["run"]["spans"]] == [
        *("ok", "failed", "ok"),
    ]
    assert "assert '42' == '43'" in bad["failure"]
    assert bad["replay"] == f"pytest {bad['node_id']}"
    assert plain["tta"] is None
    assert (good["failure"], good["replay"]) == ("", "")
    assert good["line"] == HEAD.count("\n") + 1
    path = pytester.path / "r.json"
    result.stdout.fnmatch_lines([f"*- generated tta report: {path} -*"])


def test_the_command_of_a_failure_has_the_options_of_the_session(
    pytester: pytest.Pytester, run: Run
) -> None:
    """--tta and the seed are part of what brings a failure back."""
    name = pytester.makepyfile(HEAD + BAD).name
    run("--tta", "--tta-seed=5", "--tta-json=r.json")
    (test,) = read(pytester)["tests"]
    assert test["replay"] == f"pytest {name}::test_bad --tta --tta-seed=5"
    assert test["tta"]["seed"] == 5


def test_every_run_is_shown_if_asked_for(pytester: pytest.Pytester, run: Run) -> None:
    """--tta-runs=all shows the calls of tests that pass, too."""
    pytester.makepyfile(HEAD + GOOD)
    run("--tta-json=r.json", "--tta-runs=all")
    (test,) = read(pytester)["tests"]
    assert [one["path"] for one in test["tta"]["run"]["spans"]] == [
        "answer",
        "answer/llm",
    ]


KEEPS_REPORTS = """
import json
import pytest

class Keeper:
    def __init__(self):
        self.told = {}

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "tta"):
            self.told[report.nodeid] = report.tta

    def pytest_sessionfinish(self, session):
        if not hasattr(session.config, "workerinput"):
            text = json.dumps(self.told, sort_keys=True, indent=1)
            session.config.rootpath.joinpath("told.json").write_text(text)

def pytest_configure(config):
    config.pluginmanager.register(Keeper())
"""


def test_other_plugins_are_told_the_same_with_workers(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """`report.tta` is the same serially and with two workers, and has no run."""
    needs("xdist")
    pytester.makeconftest(KEEPS_REPORTS)
    pytester.makepyfile(test_a=HEAD + GOOD + PLAIN, test_b=HEAD + BAD)
    told = []
    for workers in ("-n0", "-n2"):
        run_apart(workers).assert_outcomes(passed=2, failed=1)
        told.append(read(pytester, "told.json"))
    assert told[0] == told[1]
    told_of = ("a", "good", 0, 1.0), ("b", "bad", 1, 3.0)
    assert told[0] == {
        f"test_{file}.py::test_{name}": {
            "version": 1,
            "seed": 0,
            "virtual_seconds": seconds,
            "workflows": ["answer"],
            "totals": [
                {
                    "workflow": "answer",
                    "runs": 1,
                    "failed": 0,
                    "calls": 2 + retries,
                    "retries": retries,
                    "faults": retries,
                    "virtual_seconds": seconds,
                }
            ],
        }
        for file, name, retries, seconds in told_of
    }


def test_other_plugins_find_nothing_without_us(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """With -p no:… reports have no `tta`, and the session is as any."""
    pytester.makeconftest(KEEPS_REPORTS)
    pytester.makepyfile(PLAIN)
    result = run_apart("-p", "no:pytest_tta.plugin")
    result.assert_outcomes(passed=1)
    assert read(pytester, "told.json") == {}


def test_a_report_is_the_same_with_workers(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Two workers, one report: every call of a failing test crosses over."""
    needs("xdist")
    pytester.makepyfile(test_a=HEAD + GOOD + PLAIN, test_b=HEAD + BAD)
    told = []
    for workers in ("-n0", "-n2"):
        run_apart(workers, "--tta-json=r.json")
        told.append(timeless(read(pytester)))
    assert told[0] == told[1]
    assert len(told[0][2]["tta"]["run"]["spans"]) == 3


def test_a_worker_that_dies_is_in_the_report(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """The test that took its worker along has failed; the others are there."""
    needs("xdist")
    pytester.makepyfile(HEAD + GOOD + "\ndef test_dies(tta):\n    os._exit(3)\n")
    run_apart("-n1", "--tta-json=r.json")
    record = read(pytester)
    assert dict(outcomes(record)) == {"test_good": "passed", "test_dies": "failed"}
    dead = record["tests"][1]
    assert "crashed while running" in dead["failure"]
    assert dead["tta"] is None


def test_a_session_that_stops_early_has_its_report(
    pytester: pytest.Pytester, run: Run
) -> None:
    """With -x the report ends with the failure."""
    pytester.makepyfile(HEAD + BAD + GOOD)
    run("-x", "--tta-json=r.json")
    assert outcomes(read(pytester)) == [("test_bad", "failed")]


def test_an_interrupted_session_has_its_report(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """What was over before Ctrl-C is written; what was not, has no outcome."""
    pytester.makepyfile(
        HEAD + GOOD + "\ndef test_stopped(tta):\n    raise KeyboardInterrupt\n"
    )
    result = run_apart("--tta-json=r.json")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert outcomes(read(pytester)) == [("test_good", "passed")]


def test_what_failed_last_is_reported_again(
    pytester: pytest.Pytester, run: Run
) -> None:
    """With --lf the report has the tests of that session alone."""
    pytester.makepyfile(HEAD + GOOD + BAD)
    lasting = ("-p", "cacheprovider", "--tta-json=r.json")
    run(*lasting)
    run(*lasting, "--lf")
    assert outcomes(read(pytester)) == [("test_bad", "failed")]


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_each_attempt_of_a_test_is_in_the_report(
    pytester: pytest.Pytester, run_apart: Run, workers: str
) -> None:
    """What pytest-rerunfailures runs again is there as often as it ran."""
    needs("xdist")
    needs("pytest_rerunfailures")
    pytester.makepyfile(
        HEAD
        + """
tries = []

def test_third_time_lucky(tta):
    tries.append(tta.run(make(), "q"))
    assert len(tries) == 3
"""
    )
    run_apart("-p", "rerunfailures", "--reruns=2", workers, "--tta-json=r.json")
    tests = read(pytester)["tests"]
    assert [(one["attempt"], one["outcome"]) for one in tests] == [
        (1, "failed"),
        (2, "failed"),
        (3, "passed"),
    ]
    assert ["run" in one["tta"] for one in tests] == [True, True, False]


def test_a_file_that_cannot_be_collected_is_in_the_report(
    pytester: pytest.Pytester, run: Run
) -> None:
    """An error before any test is no reason for an empty report."""
    pytester.makepyfile("import nothing_of_that_name")
    run("--tta-json=r.json")
    (test,) = read(pytester)["tests"]
    assert test["outcome"] == "error"
    assert "No module named 'nothing_of_that_name'" in test["failure"]


def test_a_test_that_leaves_a_task_shows_its_run(
    pytester: pytest.Pytester, run: Run
) -> None:
    """What is found at the tear-down is shown as well as what the body finds."""
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.asyncio
async def test_leaves(tta):
    await llm.execute("q", WorkflowContext())
    asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
"""
    )
    run("--tta-json=r.json")
    (test,) = read(pytester)["tests"]
    assert test["outcome"] == "error"
    assert "left running: task" in test["failure"]
    assert [one["path"] for one in test["tta"]["run"]["spans"]] == ["llm"]


EXPLORED = """
def test_explored(tta):
    done = []

    async def charge(order):
        done.append(order)
        return order

    workflow = RetryPrimitive(step(charge), max_retries=2, jitter="none")
    tta.always(lambda: len(done) <= 1, "an order is paid once")
    tta.run(workflow.named("pay"), 7)
"""


def test_what_exploring_found_is_shown_as_it_was(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The run is that of the smallest execution that fails, with the fault in it."""
    name = pytester.makepyfile(HEAD + EXPLORED).name
    run("--tta", "--tta-explore", "--tta-failures=none", "--tta-json=r.json")
    (test,) = read(pytester)["tests"]
    explored, shown = test["tta"]["exploration"], test["tta"]["run"]
    assert shown["of"] == "what exploring found"
    told = [(one["path"], one["status"], one["fault"]) for one in shown["spans"]]
    assert told == [
        ("pay", "ok", ""),
        ("pay/charge", "failed", "lost-ack at call 1 of pay/charge"),
        ("pay/charge", "ok", ""),
    ]
    line = explored["line"]
    assert test["replay"] == f"pytest {name}::test_explored --tta-replay='{line}'"
    assert explored["verdict"]["kind"] == "invariant"


def test_what_exploring_found_has_no_secrets(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Other plugins send `report.tta` wherever they like."""
    key = "sk-" + "proj-0123456789abcdef"
    pytester.makeconftest(KEEPS_REPORTS)
    broken = EXPLORED.replace("an order is paid once", f"paid once with {key}")
    pytester.makepyfile(HEAD + broken)
    run_apart("--tta", "--tta-explore", "--tta-failures=none")
    (told,) = read(pytester, "told.json").values()
    text = told["exploration"]["verdict"]["text"]
    assert "paid once with <redacted>" in text
    assert key not in text


def test_coverage_is_part_of_the_report(pytester: pytest.Pytester, run: Run) -> None:
    """With --tta-cov the report has each workflow with its outcomes."""
    pytester.makepyfile(HEAD + GOOD)
    run("--tta-cov", "--tta-json=r.json")
    covered = read(pytester)["coverage"]
    assert 0 < covered["covered"] < covered["total"]
    (workflow,) = covered["workflows"]
    assert workflow["name"] == "answer"
    assert workflow["tree"]["children"][0]["name"] == "llm"
    by = {one["name"]: one["by"] for one in workflow["nodes"]["answer"]["outcomes"]}
    assert by["exhausted"] == ""
    assert "tests" in by.values()


def test_coverage_of_tests_alone_is_that_of_the_terminal(
    pytester: pytest.Pytester, run: Run
) -> None:
    """With --tta-cov-via=tests the sum leaves out what only sweeps have reached."""
    pytester.makepyfile(
        HEAD + "\n@pytest.mark.tta_sweep" + GOOD.replace(' == "42"', "")
    )
    covered = {}
    for via in ("all", "tests"):
        options = ("--tta-failures=none", "--tta-json=r.json")
        run("--tta-cov", f"--tta-cov-via={via}", *options)
        covered[via] = read(pytester)["coverage"]["covered"]
    assert 0 < covered["tests"] < covered["all"]


def test_a_test_in_the_first_line_has_that_line(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Lines count from 1, and 0 means that nobody knows."""
    pytester.path.joinpath("test_first.py").write_text("def test_first(): ...\n")
    run("--tta-json=r.json")
    (test,) = read(pytester)["tests"]
    assert test["line"] == 1


# --- where the files go ---------------------------------------------------------


def test_paths_are_read_as_those_of_junit(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables are filled in, folders are made, and all is below where pytest is."""
    pytester.makepyfile(PLAIN)
    monkeypatch.setenv("WHERE", "deep/down")
    run("--tta-json=$WHERE/r.json").assert_outcomes(passed=1)
    assert outcomes(read(pytester, "deep/down/r.json")) == [("test_plain", "passed")]


def test_nothing_is_said_when_quiet(pytester: pytest.Pytester, run: Run) -> None:
    """At -q the file is written, and no line says so."""
    pytester.makepyfile(PLAIN)
    run("-q", "--tta-json=r.json").stdout.no_fnmatch_line("*tta report*")
    assert outcomes(read(pytester)) == [("test_plain", "passed")]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--tta-json=.", "*--tta-json must be a filename, given: '.'"),
        ("--tta-html=", "*--tta-html must be a filename, given: ''"),
        ("--tta-json=a.txt/r.json", "*--tta-json='*r.json' cannot be written: *"),
        ("--tta-runs=some", "*--tta-runs: invalid choice: 'some'*"),
    ],
    ids=["folder", "empty", "below-a-file", "runs"],
)
def test_a_wrong_option_ends_the_session_before_any_test(
    pytester: pytest.Pytester, run: Run, option: str, sentence: str
) -> None:
    """A path that cannot be is told at once, in one sentence."""
    pytester.makefile(".txt", a="")
    pytester.makepyfile("raise RuntimeError('collected')")
    result = run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert "Traceback" not in result.stderr.str()
    assert "collected" not in result.stdout.str()


def test_a_report_that_cannot_be_written_in_the_end_is_told(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A green session whose report got lost is not green."""
    pytester.makepyfile("""
        import pathlib

        def test_takes_the_place():
            pathlib.Path("r.json").mkdir()
    """)
    result = run("--tta-json=r.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["tta report not written: *r.json*"])


def test_an_earlier_report_stays_until_the_new_one_is_whole(
    pytester: pytest.Pytester, run: Run
) -> None:
    """The session looks whether it may write, and does not empty the file."""
    pytester.makepyfile("""
        import pathlib

        def test_reads():
            assert pathlib.Path("r.json").read_text() == "before"
    """)
    (pytester.path / "r.json").write_text("before")
    run("--tta-json=r.json").assert_outcomes(passed=1)
    assert outcomes(read(pytester)) == [("test_reads", "passed")]
    assert [path.name for path in pytester.path.glob(".tta-*")] == []


@pytest.mark.parametrize("before", [None, "before"])
def test_a_link_stays_and_what_it_leads_to_is_written(
    pytester: pytest.Pytester, run: Run, before: str | None
) -> None:
    """Also if there is nothing yet at its other end."""
    pytester.makepyfile(PLAIN)
    link, target = pytester.path / "r.json", pytester.path / "kept.json"
    link.symlink_to(target)
    if before is not None:
        target.write_text(before)
    run("--tta-json=r.json").assert_outcomes(passed=1)
    assert link.is_symlink()
    assert outcomes(read(pytester, "kept.json")) == [("test_plain", "passed")]


# --- other reporters --------------------------------------------------------------


def test_junit_has_properties_of_tests_that_use_us(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Seed, virtual time, workflows, retries and faults; nothing for other tests."""
    pytester.makepyfile(HEAD + BAD + PLAIN)
    run("--junitxml=j.xml")
    cases = ET.parse(pytester.path / "j.xml").getroot().iter("testcase")
    told = {
        case.get("name"): {
            one.get("name"): one.get("value") for one in case.iter("property")
        }
        for case in cases
    }
    assert told == {
        "test_bad": {
            "tta_seed": "0",
            "tta_virtual_seconds": "3",
            "tta_workflows": "answer",
            "tta_calls": "3",
            "tta_retries": "1",
            "tta_faults": "1",
        },
        "test_plain": {},
    }


def test_junit_has_what_exploring_found(pytester: pytest.Pytester, run: Run) -> None:
    """The verdict and the command that brings it back are properties, too."""
    name = pytester.makepyfile(HEAD + EXPLORED).name
    run("--tta", "--tta-explore", "--tta-failures=none", "--junitxml=j.xml")
    root = ET.parse(pytester.path / "j.xml").getroot()
    told = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert told["tta_verdict"].startswith("invariant: ")
    assert told["tta_replay"].startswith(f"pytest {name}::test_explored --tta-replay='")


def test_pytest_html_shows_our_sections(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """It prints the sections of reports by itself, ours among them."""
    needs("pytest_html")
    pytester.makepyfile(HEAD + BAD)
    plugins = ("-p", "pytest_metadata.plugin", "-p", "pytest_html.plugin")
    result = run_apart(*plugins, "--html=h.html", "--self-contained-html")
    result.assert_outcomes(failed=1)
    page = (pytester.path / "h.html").read_text("utf-8")
    assert "tta trace" in page
    assert "tta clock" in page


# --- hostile content ----------------------------------------------------------------

HOSTILE = """
KEY = "sk-" + "proj-0123456789abcdef"
TEXT = (
    "<script>alert(1)</script> ]]> \\x1b[2J\\x07 \\x00 \\u202eabc \\ud800 \\ufffe "
    f"::error::x\\r\\n%0A {KEY} password=hunter22 https://ada:hunter22@example.com/"
)

@pytest.mark.parametrize("text", [TEXT], ids=["<b>\\x1b[2J\\u202e&,:%" + KEY])
def test_hostile(tta, text):
    async def echo(given):
        return given

    hostile = step(echo).named("<i>\\x1b[1m\\u202e")
    tta.llm.at("model").reply("<img onerror=x> \\x1b[2J" + KEY)
    tta.run(hostile, {"headers": {"Authorization": f"Bearer {KEY}"}, "text": text})
    tta.run(hostile, "x" * 10_000_000)
    tta.run(tta.llm.primitive("model"), [{"role": "user", "content": text}])
    # pytest-xdist itself cannot send the traceback of an error with half a character.
    raise ValueError(text.replace("\\ud800", ""))
"""
RAW = ("\x1b", "\x07", "\x00", "\u202e", "\ufffe", "0123456789abcdef", "hunter22")


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_nothing_hostile_gets_raw_into_a_report(
    pytester: pytest.Pytester, run_apart: Run, workers: str
) -> None:
    """Neither escapes nor secrets nor ten megabytes, in JSON and in JUnit."""
    needs("xdist")
    pytester.makepyfile(HEAD + HOSTILE)
    result = run_apart(workers, "--tta-json=r.json", "--junitxml=j.xml")
    result.assert_outcomes(failed=1)
    written = (pytester.path / "r.json").read_text("utf-8")
    assert [one for one in RAW if one in written] == []
    assert len(written) < 50_000
    (test,) = json.loads(written)["tests"]
    spans = test["tta"]["run"]["spans"]
    assert spans[0]["name"] == "<i>\\x1b[1m\\u202e"
    assert spans[2]["messages"][1]["text"] == "<img onerror=x> \\x1b[2J<redacted>"
    properties = ET.parse(pytester.path / "j.xml").getroot().iter("property")
    told = {one.get("name"): one.get("value") for one in properties}
    assert told["tta_workflows"] == "<i>\\x1b[1m\\u202e, model"
