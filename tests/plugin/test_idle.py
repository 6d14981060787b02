"""Without --tta and our fixtures a session is as if the plugin were not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin import foreign
from tests.plugin.foreign import compare

if TYPE_CHECKING:
    from pathlib import Path

# What loading the plugin may add to a session.
LOADED = ["pytest_tta", "pytest_tta.names", "pytest_tta.plugin"]
ASYNCIO = ("-p", "asyncio", "-Werror", "-rA")
STRICT = ("-o", "asyncio_default_fixture_loop_scope=function")


def files(pytester: pytest.Pytester, **sources: str) -> Path:
    """Write the probe and the tests, and return where."""
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(foreign.PROBE)
    pytester.makepyfile(**sources)
    return pytester.path


def everything(pytester: pytest.Pytester) -> Path:
    """Write a suite that uses whatever pytest-asyncio and anyio offer."""
    folder = files(
        pytester,
        test_plain=foreign.PLAIN,
        test_asyncio=foreign.ASYNCIO,
        test_policy=foreign.POLICY,
        test_uvloop=foreign.UVLOOP,
        test_anyio=foreign.ANYIO,
    )
    own = pytester.mkpydir("own")
    for name, source in {
        "conftest": foreign.FACTORIES,
        "test_factories": foreign.IN_A_LOOP,
    }.items():
        made = pytester.makepyfile(**{f"{name}_": source})
        made.rename(own / f"{name}.py")
    return folder


def check(told: tuple[foreign.Told, foreign.Told]) -> foreign.Told:
    """Expect the same session but for the modules of the plugin itself."""
    without, beside = told
    assert "INTERNALERROR" not in "\n".join(without.output)
    assert beside.output == without.output
    assert beside.code == without.code
    for worker, facts in beside.facts.items():
        modules = without.facts[worker].pop("modules")
        assert facts.pop("modules") == sorted([*modules, *LOADED]), worker
    assert beside.facts == without.facts
    return beside


def test_a_plain_suite_is_untouched(pytester: pytest.Pytester) -> None:
    """Ids, order, output, time functions and modules stay, and warnings are none."""
    folder = files(pytester, test_plain=foreign.PLAIN)
    told = check(compare(folder, ["-Werror", "-rA", "-v"]))
    assert told.code == 0
    assert told.facts["main"]["functions"][:4] == [True, True, True, []]


def test_every_kind_of_loop_is_untouched(pytester: pytest.Pytester) -> None:
    """Loops of all scopes, factories, policies, uvloop, anyio and unittest stay."""
    folder = everything(pytester)
    told = check(compare(folder, [*ASYNCIO, *STRICT, "-p", "anyio"]))
    assert told.code == 0
    loops = {
        value
        for report in told.facts["main"]["reports"]
        for name, value in report[3]
        if name == "loop"
    }
    assert not any("Virtual" in loop for loop in loops)
    assert {"own.conftest.OwnLoop", "own.conftest.OtherLoop"} <= loops


NEIGHBOURS = {
    "pytest_timeout": ("-p", "timeout", "--timeout=50"),
    "pytest_cov": ("-p", "pytest_cov", "--cov=test_plain", "--cov-report=term"),
    "pytest_randomly": ("-p", "randomly", "--randomly-seed=4"),
    "looptime": ("-p", "looptime_plugin", "--looptime"),
    "xdist": ("-p", "xdist", "-n1"),
}


def beside(pytester: pytest.Pytester, *names: str) -> foreign.Told:
    """Run a suite beside the neighbours of these names, and expect no change."""
    for name in names:
        pytest.importorskip(name, reason=f"{name} is not installed")
    folder = files(pytester, test_asyncio=foreign.ASYNCIO, test_plain=foreign.PLAIN)
    options = [option for name in names for option in NEIGHBOURS[name]]
    arguments = ["-p", "asyncio", "-rA", "--asyncio-mode=auto", *STRICT]
    told = compare(folder, [*arguments, *options], unordered="xdist" in names)
    return check(told)


def test_all_neighbours_together_are_untouched(pytester: pytest.Pytester) -> None:
    """In a worker of xdist, with timeout, cov, randomly and looptime, all stays."""
    assert sorted(beside(pytester, *NEIGHBOURS).facts) == ["gw0", "main"]


@pytest.mark.long
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_each_neighbour_is_untouched(pytester: pytest.Pytester, name: str) -> None:
    """Beside each neighbour alone nothing changes, not even the order of tests."""
    assert beside(pytester, name).facts


@pytest.mark.long
def test_two_workers_are_untouched(pytester: pytest.Pytester) -> None:
    """Two workers share the tests as they would without the plugin."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    folder = files(pytester, test_asyncio=foreign.ASYNCIO, test_plain=foreign.PLAIN)
    workers = ["-p", "xdist", "-n2", "--dist=loadfile"]
    without, beside = compare(folder, [*ASYNCIO, *STRICT, *workers], unordered=True)
    assert sorted(beside.facts) == sorted(without.facts) == ["gw0", "gw1", "main"]
    told = check((by_their_files(without), by_their_files(beside)))
    assert sorted(told.facts) == ["main", "test_asyncio.py", "test_plain.py"]


def by_their_files(told: foreign.Told) -> foreign.Told:
    """Name the workers by what they ran: which of them is the quicker is chance."""
    facts = {
        found["tests"][0][0].partition("::")[0] if found["tests"] else worker: found
        for worker, found in told.facts.items()
    }
    return told._replace(facts=facts)


OPTIONS = [
    (),
    ("-q",),
    ("-qq",),
    ("-v",),
    ("-rA",),
    ("--no-header",),
    ("--no-summary",),
    ("--collect-only",),
    ("--collect-only", "-q"),
    ("--setup-show",),
    ("--setup-plan",),
    ("--lf",),
    ("--durations=0", "--durations-min=100"),
    ("--doctest-modules",),
    ("--junitxml=report.xml",),
    ("--strict-markers", "--strict-config", "-Werror"),
    ("-k", "method"),
    ("-x", "--tb=short"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_output_is_untouched(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    """What pytest prints is the same to the letter, whatever it was asked to print."""
    pytester.makepyfile(test_plain=foreign.PLAIN, test_fails="def test_no(): assert 0")
    pytester.makefile(".txt", test_doc=">>> 1 + 1\n2\n")
    pytester.runpytest_inprocess()  # So that --lf finds what failed last.
    without = pytester.runpytest_inprocess(*options)
    with_it = pytester.runpytest_inprocess("-p", "pytest_tta.plugin", *options)
    assert told(with_it) == told(without)


def told(result: pytest.RunResult) -> tuple[object, ...]:
    """Return how a session ended and what it printed."""
    lines = [foreign.without_chance(line) for line in result.outlines]
    return result.ret, lines, result.stderr.lines


def test_what_the_plugin_offers_is_listed(pytester: pytest.Pytester) -> None:
    """--fixtures, --markers and --help describe ours, each with a sentence."""
    loaded = ("-p", "pytest_tta.plugin")
    fixtures = pytester.runpytest_inprocess(*loaded, "--fixtures").stdout
    fixtures.fnmatch_lines(
        [
            "tta -- *pytest_tta/plugin.py:*",
            "    Everything a test of a workflow holds: *",
            "tta_clock -- *",
            "    The virtual clock of this test: *",
            "tta_faults -- *",
            "tta_fleet -- *",
            "tta_llm -- *",
            "tta_trace -- *",
        ]
    )
    markers = pytester.runpytest_inprocess(*loaded, "--markers").stdout
    markers.fnmatch_lines(["@pytest.mark.tta(*", "@pytest.mark.tta_clock(*"])
    options = pytester.runpytest_inprocess(*loaded, "--help").stdout
    options.fnmatch_lines(
        [
            "tta: *:",
            "  --tta  *",
            "  --no-tta  *",
            "  --tta-seed=N  *",
            "  tta (bool):*",
        ]
    )


def test_the_plugin_can_be_left_out(pytester: pytest.Pytester) -> None:
    """After `-p no:pytest_tta.plugin` nobody knows --tta, and nothing else differs."""
    pytester.makepyfile(test_plain="def test_passes(): pass")
    left_out = ("-p", "no:pytest_tta.plugin", "-p", "no:tta")
    pytester.runpytest_inprocess(*left_out).assert_outcomes(passed=1)
    refused = pytester.runpytest_inprocess(*left_out, "--tta")
    refused.stderr.fnmatch_lines(["*unrecognized arguments: --tta"])
