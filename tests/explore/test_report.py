"""What is told of a finding, and at the end of a session."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest

from pytest_tta.clock.choices import Choice, Unit
from pytest_tta.explore.differences import first_difference
from pytest_tta.explore.outcome import CallSeen, Outcome, Verdict
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule
from pytest_tta.explore.report import finding_lines, plan_in_words, said_of
from pytest_tta.explore.summary import summary_lines
from pytest_tta.explore.witness import Witness

READ = Unit("op", 1, "read", 1, 1)
WRITE = Unit("op", 2, "write", 2, 2)
LIMIT = Unit("deadline", 3, "pay", 0, 3)
TIMER = Unit("timer", 3, "backoff", 0, 3)


def call(site: str, number: int = 1, *, struck: bool = False) -> CallSeen:
    """Return a call at a site."""
    return CallSeen(site, number, ("error",), struck)


def test_a_verdict_is_one_line() -> None:
    """Its kind, the first line of its text, and the user's line."""
    verdict = Verdict("assertion", "2 charges\nassert 2 <= 1", "test_pay.py:12")
    assert said_of(verdict) == "assertion: 2 charges (test_pay.py:12)"
    assert said_of(Verdict("deadlock", "")) == "deadlock"
    stuck = Verdict("deadlock", "all wait", "test_pay.py:12")
    assert said_of(stuck) == "deadlock: all wait (run from test_pay.py:12)"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("returned", "(a check of the plugin's own: the test itself passed; @*)"),
        ("told", "(a check of the plugin's own; @*)"),
    ],
)
def test_a_check_of_our_own_is_no_assertion_of_the_test(ended: str, words: str) -> None:
    """It says whose it is, and how to leave a test out; of an assertion nothing."""
    verdict = Verdict("permit not returned", "a lock was never released", "test.py:1")
    found = Outcome(Plan(), verdict, ended=ended)
    (line,) = _below_headline(found)
    assert fnmatch(line, f"  {words}")
    other = found._replace(verdict=verdict._replace(kind="assertion"))
    assert _below_headline(other) == []


def _below_headline(found: Outcome) -> list[str]:
    lines = list(finding_lines(found, None, "test.py::test"))
    return lines[1 : lines.index("what it takes:")]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FaultAt("pay", 2, "error"), "call 2 of pay fails before it has any effect"),
        (
            FaultAt("pay", 1, "lost-ack"),
            "call 1 of pay has its effect, and then fails: the answer is lost",
        ),
        (
            FaultAt("pay", 1, "hang"),
            "call 1 of pay never answers, and has no effect",
        ),
        (
            FaultAt("pay", 1, "late"),
            "call 1 of pay has its effect, and never answers",
        ),
        (
            FaultAt("pay", 1, "fatal"),
            "call 1 of pay is refused for good, before it has any effect",
        ),
        (
            FaultAt("pay", 3, "outage"),
            "every call of pay fails, from call 3 of pay on",
        ),
        (FaultAt("pay", 1, "own"), "call 1 of pay: own"),
    ],
)
def test_a_fault_is_a_sentence(fault: FaultAt, words: str) -> None:
    """It says what the caller sees and what has happened."""
    assert plan_in_words(Outcome(Plan((fault,)), None)) == [words]


def test_a_cancellation_is_a_sentence() -> None:
    """It says who, and at which moment of rest, counted from one."""
    main = Plan(cancellation=Cancellation("main", 0))
    other = Plan(cancellation=Cancellation("main.2", 4))
    assert plan_in_words(Outcome(main, None)) == [
        "what the test runs is cancelled while everything waits for time 1"
    ]
    assert plan_in_words(Outcome(other, None)) == [
        "task main.2 is cancelled while everything waits for time 5"
    ]


def test_orders_are_told_where_the_oldest_was_overtaken() -> None:
    """What asyncio would have done anyway is left out."""
    choices = (
        Choice((READ, WRITE), 0, -1),
        Choice((READ, WRITE), 1, 1),
        Choice((READ, LIMIT), 1, 2),
        Choice((READ, TIMER), 1, 2),
    )
    plan = Plan(schedule=Schedule(mode="burst"))
    assert plan_in_words(Outcome(plan, None, choices=choices)) == [
        "write@2 completes before read",
        "the time limit of pay runs out before read",
        "the timer of backoff fires before read",
        "events come in mode burst",
    ]


def test_what_follows_from_another_order_is_left_out() -> None:
    """A task asks in turn: if its third call came first, so did those before."""
    names = ("menu", 1), ("price", 1), ("read", 2)
    units = [Unit("op", 2, label, number, 2) for label, number in names]
    choices = [Choice((READ, unit), 1, -1) for unit in units]
    of_another = Choice((READ, Unit("op", 3, "mail", 1, 4)), 1, -1)
    outcome = Outcome(Plan(), None, choices=(*choices[:2], of_another, choices[2]))
    assert plan_in_words(outcome) == [
        "mail completes before read",
        "read@2 completes before read",
    ]
    witness = Witness()
    witness.needed = 3
    assert plan_in_words(outcome, witness) == [
        "mail completes before read",
        "call 2 of read begins before call 1 has answered",
    ]
    witness.needed = 1
    assert plan_in_words(outcome, witness) == ["menu completes before read"]


def test_what_needs_nothing_says_so() -> None:
    """A plan without faults, in the order in which things come anyway."""
    assert plan_in_words(Outcome(Plan(), None)) == [
        "nothing: no fault, and the oldest event comes first"
    ]


def test_many_orders_are_shortened() -> None:
    """The beginning and the end are shown."""
    choices = tuple(
        Choice((READ._replace(number=number), WRITE), 1, -1) for number in range(40)
    )
    lines = plan_in_words(Outcome(Plan(), None, choices=choices))
    assert len(lines) == 13
    assert lines[6] == "... 28 more ..."


@pytest.mark.parametrize(
    ("found", "plain", "difference"),
    [
        ((), (), ""),
        (
            ((READ, WRITE), 1),
            ((READ, WRITE), 0),
            "at choice 1 write@2 completes, and there read completes",
        ),
    ],
)
def test_the_first_choice_that_differs_is_told(
    found: Any, plain: Any, difference: str
) -> None:
    """What came here, and what came where all went well."""
    one, other = (
        Outcome(Plan(), None, choices=(Choice(*made, -1),) if made else ())
        for made in (found, plain)
    )
    assert first_difference(one, other) == difference


@pytest.mark.parametrize(
    ("found", "plain", "difference"),
    [
        (["mail", "pay"], ["mail", "mail"], "call 2: pay, and there mail"),
        (["pay"], ["pay", "mail"], "after call 1: it ends, and there mail"),
        (["pay", "mail"], ["pay"], "after call 1: mail, and there it ends"),
        (["pay"], ["pay"], ""),
    ],
)
def test_the_first_call_that_differs_is_told(
    found: list[str], plain: list[str], difference: str
) -> None:
    """Where choices do not differ, or there were none."""
    one, other = (
        Outcome(Plan(), None, calls=tuple(map(call, sites))) for sites in (found, plain)
    )
    assert first_difference(one, other) == difference


def test_a_finding_is_told_from_verdict_to_line() -> None:
    """What broke, what it takes, the calls, the difference and the line to paste."""
    verdict = Verdict("assertion", "2 charges\n  assert 2 <= 1", "test_pay.py:12")
    plan = Plan((FaultAt("pay", 1, "lost-ack"),), tree="3fa9c1d2")
    found = Outcome(
        plan, verdict, calls=(call("pay", struck=True), call("pay", 2)), seconds=1.5
    )
    plain = Outcome(Plan(), None, calls=(call("pay"),))
    lines = finding_lines(found, plain, "test_pay.py::test[a b]", notes=["by chance"])
    assert list(lines) == [
        "found while exploring: assertion: 2 charges (test_pay.py:12)",
        "    assert 2 <= 1",
        "what it takes:",
        "  call 1 of pay has its effect, and then fails: the answer is lost",
        "what happened, in 1.5 virtual seconds:",
        "  pay  <- struck",
        "  pay@2",
        "where all goes well, pay@2 is not called",
        (
            "if that is right after such a fault, let the test accept it, as in "
            "`assert answer in {'paid', 'try later'}`;"
        ),
        "  or choose what is tried: @pytest.mark.tta_sweep(faults=[...], sites=[...])",
        "by chance",
        "to reproduce it:",
        (
            "pytest 'test_pay.py::test[a b]' "
            "--tta-replay='tta1 f=pay#1:lost-ack t=3fa9c1d2'"
        ),
        (
            "run it again after the fix: it should pass; after larger changes explore "
            "again"
        ),
    ]


NOTHING = {
    "executions": 1200,
    "all_orders": None,
    "replay": "",
    "failures": [],
    "not_judged": 0,
    "unreached": [],
    "never": [],
    "verdict": None,
    "line": None,
}


def test_the_summary_counts_and_tells_what_is_to_be_known() -> None:
    """A test of which there is nothing to tell has no line."""
    kept = {"state": "fixed", "line": "tta1 c=main@0", "path": "x.json"}
    told = {
        **NOTHING,
        "replay": "holds now",
        "failures": [kept],
        "not_judged": 3,
        "all_orders": True,
        "unreached": ["mail:error"],
        "never": ["stale served"],
    }
    assert list(summary_lines({"a": NOTHING, "b": told})) == [
        "2 tests explored in 2,400 executions",
        "b: replay: holds now",
        "b: fixed: tta1 c=main@0",
        (
            "b: its own assertions had no say in 3 executions, where a fallback or a "
            "kept answer stood in, or a part was cancelled"
        ),
        "b: all orders of events were tried",
        "b: not reached: mail:error",
        "b: never so: stale served",
    ]


def test_the_summary_repeats_the_line_of_a_finding() -> None:
    """What the search had no time for after it is no news."""
    found = {
        **NOTHING,
        "executions": 1,
        "unreached": ["mail:error"],
        "verdict": {"kind": "deadlock"},
        "line": "tta1 f=pay#1:hang",
    }
    assert list(summary_lines({"c": found})) == [
        "1 test explored in 1 execution",
        "c: deadlock: --tta-replay='tta1 f=pay#1:hang'",
    ]
