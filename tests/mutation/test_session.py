"""A session with --tta-mutate: which tests are used, the report, the exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_tta.mutation.ledger import Fate, Ledger
from pytest_tta.mutation.operators import Mutant
from pytest_tta.mutation.oracle import later_calls
from pytest_tta.mutation.report import is_too_low, score_line
from tta_primitives import step
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import CircuitBreakerPrimitive, RateLimitPrimitive

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

SHOP = """
import pytest
from pytest_tta.faults import first
from tta_primitives import WorkflowPrimitive, step
from tta_primitives.recovery import CircuitBreakerPrimitive, RetryPrimitive

@step
async def load(text):
    return text

def make():
    return RetryPrimitive(load, max_retries=1, initial_delay=1, jitter="none")

"""
WEAK = """
def test_weak(tta):
    assert tta.run(make(), "x") == "x"
"""
STRONG = """
def test_strong(tta):
    tta.faults.at("load").fail(ConnectionError(), when=first(1))
    assert tta.run(make(), "x") == "x"
    assert tta.elapsed == 1
"""
MUTATE = ("--tta-mutate=retry", "-p", "no:randomly", "-q")


def test_the_table_names_each_change_and_who_noticed(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Survivors come first; what makes no difference is left out of the score."""
    pytester.makepyfile(SHOP + WEAK + STRONG)
    run(*MUTATE).stdout.fnmatch_lines(
        [
            "*= tta mutation =*",
            "workflow retry@*",
            "  retry-attempts * max_retries 1 -> 2 * survived",
            "  retry-drop *gone *killed by test_strong: ConnectionError",
            "mutation score *: * killed, * survived* (* executions)",
            "2 passed*",
        ]
    )


def test_nothing_happens_unless_it_is_asked_for(
    pytester: pytest.Pytester, run_apart: Run
) -> None:
    """Nothing is imported, and nothing is run again."""
    pytester.makepyfile(
        SHOP
        + WEAK
        + """
def test_nothing_is_imported():
    import sys
    assert not [name for name in sys.modules if name.startswith("pytest_tta.mutation")]
"""
    )
    result = run_apart("--tta")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*mutation*")


def test_the_ini_file_can_ask(pytester: pytest.Pytester, run: Run) -> None:
    """As the command line does."""
    pytester.makeini("[pytest]\ntta_mutate = retry-drop\ntta_mutate_fail_under = 50\n")
    pytester.makepyfile(SHOP + WEAK)
    result = run()
    result.stdout.fnmatch_lines(
        ["*retry-drop*survived", "*score is below --tta-mutate-fail-under=50"]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(("least", "code"), [("60", 0), ("100", 1)])
def test_a_low_score_fails_the_session(
    pytester: pytest.Pytester, run: Run, least: str, code: int
) -> None:
    """Also if every test is green."""
    pytester.makepyfile(SHOP + WEAK + STRONG)
    assert run(*MUTATE, f"--tta-mutate-fail-under={least}").ret == code


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--tta-mutate=tests", "*--tta-mutate=tests: 'tests' is no operator*"),
        ("--tta-mutate-fail-under=x", "*fail-under=x: must be a percentage*"),
        ("--tta-mutate-depth=9", "*depth=9: must be how many faults at once, 0 to 3*"),
    ],
)
def test_a_wrong_option_is_named(
    pytester: pytest.Pytester, run: Run, option: str, said: str
) -> None:
    """With its value, and what could be there."""
    pytester.makepyfile(SHOP + WEAK)
    result = run("--tta-mutate", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_test_that_cannot_be_repeated_is_named(
    pytester: pytest.Pytester, run: Run
) -> None:
    """It would seem to notice every change."""
    pytester.makepyfile(
        SHOP
        + """
ran = []

def test_once(tta):
    ran.append(tta.run(make(), "x"))
    assert len(ran) == 1
"""
    )
    result = run(*MUTATE)
    result.stdout.fnmatch_lines(
        [
            "note: *::test_once is not used, for it fails when it is run again with*",
            "mutation score: no mutant that a test could notice*",
        ]
    )


def test_what_cannot_be_copied_is_named(pytester: pytest.Pytester, run: Run) -> None:
    """Nothing is guessed about a primitive that hides its children."""
    pytester.makepyfile(
        SHOP
        + """
class Hiding(WorkflowPrimitive):
    def __init__(self, inner):
        self.get = lambda: inner

    def children(self):
        return (self.get(),)

    async def execute(self, input_data, context, /):
        return await self.get().execute(input_data, context)

def test_hiding(tta):
    assert tta.run(Hiding(make()), "x") == "x"
"""
    )
    said = "note: *Hiding 'hiding' keeps its children in a way that is not known here*"
    run(*MUTATE).stdout.fnmatch_lines([said])


def test_only_green_tests_are_used(pytester: pytest.Pytester, run: Run) -> None:
    """One that fails, skips or is expected to fail says nothing about a change."""
    pytester.makepyfile(
        SHOP
        + """
def test_red(tta):
    assert tta.run(make(), "x") == "y"

@pytest.mark.xfail(strict=False)
def test_expected(tta):
    assert tta.run(make(), "x") == "x"

def test_skipped(tta):
    tta.run(make(), "x")
    pytest.skip("later")

def test_other():
    pass
"""
    )
    result = run(*MUTATE)
    result.assert_outcomes(failed=1, xpassed=1, skipped=1, passed=1)
    result.stdout.no_fnmatch_line("*tta mutation*")


def test_fixtures_of_the_test_are_made_anew(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Those of the module are kept, and end once."""
    pytester.makepyfile(
        SHOP
        + """
made = []

@pytest.fixture(scope="module")
def house():
    made.append("house")
    yield
    made.append("house ended")

@pytest.fixture
def workflow(tta, house):
    made.append("workflow")
    tta.faults.at("load").fail(ConnectionError(), when=first(1))
    yield make()
    made.append("workflow ended")

def test_it(tta, workflow):
    assert tta.run(workflow, "x") == "x"

def test_after(house):
    assert made.count("house") == 1
    assert "house ended" not in made
    assert made.count("workflow") == made.count("workflow ended") > 5
"""
    )
    run(*MUTATE).assert_outcomes(passed=2)


def test_a_workflow_of_the_module_has_no_memory(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Each execution begins with a closed breaker, and the test can look at its own."""
    pytester.makepyfile(
        SHOP
        + """
BREAKER = CircuitBreakerPrimitive(load, failure_threshold=1)

def test_it(tta):
    tta.faults.at("load").fail(ConnectionError(), when=first(1))
    with pytest.raises(ConnectionError):
        tta.run(BREAKER, "x")
    assert BREAKER.state == "open"
"""
    )
    result = run("--tta-mutate=breaker", "-q")
    result.stdout.fnmatch_lines(
        [
            "*breaker-drop*gone*killed by test_it: *: assert 'closed' == 'open'",
            "1 passed*",
        ]
    )


def test_a_change_is_looked_for_until_it_is_noticed(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A change that a test has noticed is not made for the tests after it."""
    pytester.makepyfile(
        SHOP
        + STRONG
        + """
ran = []

def test_later(tta):
    ran.append(tta.run(make(), "x"))

def test_once():
    assert len(ran) == 1
"""
    )
    run("--tta-mutate=retry-drop,retry-backoff", *MUTATE[1:]).assert_outcomes(passed=3)


def test_warnings_of_changed_workflows_are_not_shown(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Only those of the test itself are."""
    pytester.makepyfile(
        SHOP
        + """
import warnings

ran = []

def test_it(tta):
    ran.append(tta.run(make(), "x"))
    warnings.warn(f"run {len(ran)}")
"""
    )
    result = run(*MUTATE, "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*UserWarning: run 1"])


def test_changed_workflows_are_neither_explored_nor_counted(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Exploration and coverage are of the workflow as it is."""
    pytester.makepyfile(
        SHOP
        + """
from tta_primitives.recovery import TimeoutPrimitive

def test_bounded(tta):
    assert tta.run(TimeoutPrimitive(make(), timeout_seconds=60), "x") == "x"
"""
    )
    options = ("--tta-explore", "--tta-cov", "-o", "tta_failures=none")
    alone = run(*options, "-q")
    both = run(*options, *MUTATE)
    both.stdout.fnmatch_lines(["mutation score*"])
    assert counted(both) == counted(alone) != []


def counted(result: pytest.RunResult) -> list[str]:
    """Return what coverage has counted."""
    return [line for line in result.outlines if line.startswith("outcomes: ")]


def test_workers_add_up(pytester: pytest.Pytester, run_apart: Run) -> None:
    """With pytest-xdist the table is that of one process."""
    pytest.importorskip("xdist")
    pytester.makepyfile(test_weak=SHOP + WEAK, test_strong=SHOP + STRONG)
    alone = run_apart(*MUTATE)
    shared = run_apart(*MUTATE, "-p", "xdist", "-n2", "--dist=loadfile")
    assert table(shared) == table(alone) != []


def table(result: pytest.RunResult) -> list[str]:
    """Return the changes and what became of them, without who was first."""
    return sorted(line for line in result.outlines if line.startswith("  retry-"))


ONE = Mutant("shop@1", "retry-drop", "retry", "gone")
OTHER = Mutant("shop@1", "cache-drop", "cache", "gone")


def test_a_ledger_travels_as_json() -> None:
    """What one process has found out is known to all."""
    here, there = Ledger(), Ledger()
    here.add(ONE, Fate())
    here.add(OTHER, Fate())
    there.add(ONE, Fate("test_x", "AssertionError"))
    there.add(OTHER, Fate(is_apart=True))
    there.note("a note")
    here.merge(json.loads(json.dumps(there.to_data())))
    assert [fate.state for fate in here.fates.values()] == ["killed", "survived"]
    assert here.notes == ["a note"]
    assert here.score == 50.0
    assert is_too_low(here, 51)
    assert not is_too_low(here, 50)


def test_equivalent_changes_have_no_part_in_the_score() -> None:
    """Nobody can notice what makes no difference."""
    ledger = Ledger()
    ledger.add(ONE, Fate("test_x", "AssertionError"))
    ledger.add(OTHER, Fate())
    assert ledger.score == 100.0
    assert score_line(ledger, depth=2) == (
        "mutation score 100 %: 1 killed, 0 survived; "
        "1 equivalent within 2 faults left out (0 executions)"
    )


def test_what_shows_later_is_no_equivalent(pytester: pytest.Pytester, run: Run) -> None:
    """Workflows are called again after the times that they have options for."""
    pytester.makepyfile(
        SHOP
        + """
from tta_primitives.performance import CachePrimitive

def test_cache(tta):
    assert tta.run(CachePrimitive(load, ttl=3600), "x") == "x"

def test_breaker(tta):
    breaker = CircuitBreakerPrimitive(load, failure_threshold=3, recovery_timeout=90)
    assert tta.run(breaker, "x") == "x"
"""
    )
    asked = "--tta-mutate=cache-ttl,cache-errors,cache-key,breaker"
    run(asked, "-p", "no:randomly", "-q").stdout.fnmatch_lines(
        [
            "workflow cache@*",
            "  cache-ttl     cache  ttl -> 0         survived",
            "  cache-ttl     cache  ttl -> for ever  survived",
            "  cache-errors  cache  errors are kept  survived",
            "  cache-key     cache  one key for all  equivalent",
            "workflow circuit_breaker@*",
            "  breaker-threshold * failure_threshold 3 -> 4 * survived",
            "  breaker-threshold * failure_threshold 3 -> 2 * survived",
            "  breaker-recovery * recovery_timeout x10 * survived",
            "  breaker-recovery * never recovers * survived",
            "  breaker-cancellation * cancellations count as failures * equivalent",
        ]
    )


def test_workflows_are_called_again_as_often_and_as_late_as_they_have_options() -> None:
    """At once as often as a breaker counts, then after each time in turn."""
    load = step(str)
    breaker = CircuitBreakerPrimitive(load, failure_threshold=2, recovery_timeout=5)
    cache = CachePrimitive(breaker, ttl=60, stale_ttl=30)
    limit = RateLimitPrimitive(load, rate=1, period=10)
    assert later_calls([cache, limit]) == [0, 0, 0, 5.001, 10.001, 60.001, 90.001]
    assert later_calls([load]) == [0]
