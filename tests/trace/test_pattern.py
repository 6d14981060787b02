"""Patterns of traces: what matches, and what a mismatch says."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from dirty_equals import IsInt, IsStr

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.trace import (
    S,
    Trace,
    TraceRecorder,
    alignment,
    any_order,
    explain,
    no,
    tree_diff,
)
from pytest_tta.trace.diff import Difference
from tta_primitives import StepPrimitive, WorkflowContext
from tta_primitives.door import listening
from tta_primitives.recovery import TimeoutPrimitive
from tta_primitives.recovery.retry import RetryPrimitive


def record(*runs):
    """Return the trace of these workflows, each run with the input "q"."""
    recorder = TraceRecorder()

    async def main():
        for workflow in runs:
            with contextlib.suppress(ValueError, TimeoutError):
                await workflow.execute("q", WorkflowContext())

    with listening(observers=(recorder,)):
        VirtualClock().run(main())
    return recorder.trace


def step(name):
    """Return a step that appends its name."""
    return StepPrimitive(lambda text: f"{text}{name}", name=name)


def flaky(times, name="llm"):
    """Return a step that fails so often before it answers."""
    left = [times]

    async def llm(text):
        left[0] -= 1
        if left[0] >= 0:
            raise ValueError("busy")
        return text.upper()

    return StepPrimitive(llm, name=name)


def chain(*names):
    """Return a chain of steps with these names, which is named `answer`."""
    first, *others = map(step, names)
    workflow = first
    for one in others:
        workflow = workflow >> one
    return workflow.named("answer")


def answer():
    """Return a workflow with a retry, two branches and a step."""
    retry = RetryPrimitive(flaky(2), max_retries=2, jitter="none")
    return (retry >> (step("a") | step("b")) >> step("end")).named("answer")


ABC = chain("a", "b", "c")


def test_a_trace_equals_the_pattern_of_what_happened():
    """Names, attempts, branches in any order and absence in one assertion."""
    trace = record(answer())
    assert trace == S(
        "answer",
        S("retry", attempts=3, duration=1.5),
        S("parallel", any_order(S("b"), S("a"))),
        S("end", status="ok"),
    )
    assert trace == S("answer", no("end", status="failed"), ...)


@pytest.mark.parametrize(
    "children",
    [
        (S("a"), S("b"), S("c")),
        (...,),
        (S("a"), ...),
        (..., S("c")),
        (S("a"), ..., S("c")),
        (..., S("b"), ...),
        (..., S("a"), ..., S("b"), ..., S("c"), ...),
        (any_order(S("c"), S("a"), S("b")),),
        (S("a"), any_order(S("c"), S("b"))),
        (any_order(S("b"), S("a")), S("c")),
        (..., any_order(S("c"), S("b"))),
        (S("*"), S("?"), S("answer/c")),
        (no("a", status="failed"), S("a"), ...),
        (no("a", status="failed"),),
        (),
    ],
    ids=repr,
)
def test_h36_children_match_in_order_with_dots_and_any_order(children):
    """All children match in order; dots stand for any run, groups have no order."""
    assert record(ABC) == S("answer", *children)


@pytest.mark.parametrize(
    "children",
    [
        (S("a"), S("b")),
        (S("b"), S("c")),
        (S("a"), S("c"), S("b")),
        (S("a"), S("b"), S("c"), S("c")),
        (S("b"), ...),
        (..., S("b")),
        (..., S("c"), ..., S("a"), ...),
        (any_order(S("a"), S("b")),),
        (any_order(S("a"), S("a"), S("b")),),
        (any_order(S("a"), S("c")), S("b")),
        (any_order(S("a"), S("b"), S("c"), S("*")),),
        (no("b"),),
        (..., no("b")),
        (S("a", S("*")), ...),
    ],
    ids=repr,
)
def test_h36_children_that_are_missing_or_too_many_or_elsewhere_do_not_match(children):
    """What is left over on either side is a difference."""
    assert record(ABC) != S("answer", *children)


def test_h36_any_order_gives_each_pattern_a_span_of_its_own():
    """A pattern that would take another's only span leaves it to that one."""
    trace = record(chain("a", "ab"))
    assert trace == S("answer", any_order(S("a*"), S("a")))
    assert trace == S("answer", any_order(S("a"), S("a*")))
    assert trace != S("answer", any_order(S("a"), S("a")))
    assert trace == S("answer", any_order(S("*"), S("*")))


def test_h36_no_holds_for_the_whole_subtree():
    """What must not run is looked for below the children too, and nowhere else."""
    trace = record(answer())
    assert trace != S("answer", no("llm"))
    assert trace != S("answer", S("retry", no("llm")), ...)
    assert trace == S("answer", S("retry"), S("parallel", no("llm")), S("end"))


def test_h36_attributes_are_compared_with_equals():
    """Whatever defines == can stand for a value."""
    trace = record(ABC)
    assert trace == S("answer", input=IsStr(), output="qabc", duration=0.0)
    assert trace == S("answer", S("a", execution=IsInt(gt=0)), ...)
    assert trace != S("answer", output=IsStr(regex="x+"))


def test_an_error_is_given_as_a_class_or_as_an_example():
    """A class stands for its instances, an instance for its arguments."""
    trace = record(flaky(1))
    assert trace == S("llm", error=ValueError)
    assert trace == S("llm", error=Exception)
    assert trace == S("llm", error=ValueError("busy"))
    assert trace != S("llm", error=KeyError)
    assert trace != S("llm", error=ValueError("idle"))
    assert trace != S("llm", error=None)


def test_a_name_without_a_number_is_also_that_of_the_second_sibling():
    """Siblings of one name may be told apart, and need not be."""
    trace = record(chain("a", "a"))
    assert trace == S("answer", S("a"), S("a"))
    assert trace == S("answer", S("a"), S("a#2"))
    assert trace != S("answer", S("a#2"), S("a"))


def test_several_runs_equal_a_list():
    """Each run has its pattern, in the order in which they began."""
    trace = record(ABC, step("x"))
    assert trace == [S("answer"), S("x")]
    assert trace != [S("x"), S("answer")]
    assert trace != S("answer")
    assert record() == []


def test_a_span_equals_its_pattern():
    """A part of a trace is compared on its own, from either side."""
    span = record(answer()).find("retry")
    assert span == S("retry", S("llm"), S("llm"), S("llm"))
    assert S("retry", attempts=3) == span
    assert span != S("retry", attempts=2)
    assert span == span  # noqa: PLR0124 - a span equals itself
    assert len({span, span}) == 1


def test_a_trace_equals_nothing_else():
    """Text, numbers and lists of other things are not patterns."""
    trace = record(ABC)
    assert trace != "answer"
    assert trace != [1]
    assert trace != None  # noqa: E711 - compared on purpose
    assert isinstance(trace, Trace)


def test_a_pattern_prints_as_code():
    """What a failure shows can be pasted into a test."""
    text = (
        "S('a', S('b', error=ValueError), any_order(S('c'), S('d')), ..., "
        "no('e', status='ok'), attempts=3)"
    )
    names = {"S": S, "any_order": any_order, "no": no, "ValueError": ValueError}
    pattern = eval(text, names)
    assert repr(pattern) == text
    assert eval(repr(pattern), names) == pattern
    assert hash(eval(repr(pattern), names)) == hash(pattern)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S(3), "name=3 must be text, not int"),
        (lambda: S(""), "name='' must be labels"),
        (lambda: S("a", "b"), r"'b' cannot stand among the children of S\('a'\)"),
        (lambda: S("a", statsu="ok"), "no attribute 'statsu'; nearest: 'status'"),
        (any_order, r"any_order\(...\) takes one or more S"),
        (lambda: any_order(S("a"), no("b")), r"any_order\(...\) takes one or more S"),
        (lambda: no("a@2"), "names one execution"),
    ],
)
def test_a_wrong_pattern_fails_where_it_is_written(make, message):
    """Nothing that could never match gets as far as a comparison."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_absence_of_an_unknown_name_is_no_success():
    """A misspelt name would be absent from everything; the nearest name is shown."""
    trace = record(ABC)
    assert trace != S("answer", no("bb"))
    assert explain(trace, S("answer", no("bb"))) == [
        (
            "trace differs: answer: no('bb') cannot be decided, nothing in this "
            "workflow has that name; nearest: 'b'"
        ),
        "~ answer 0s",
        (
            "~   ^ no('bb') cannot be decided, nothing in this workflow has that name; "
            "nearest: 'b'"
        ),
        "    a 0s",
        "    b 0s",
        "    c 0s",
    ]


def test_absence_of_a_position_that_was_not_reached_holds():
    """A name that the workflow has and that did not run is absent."""
    trace = record((flaky(1) >> step("end")).named("answer"))
    assert trace == S("answer", S("llm"), no("end"))
    assert trace != S("answer", S("llm"), no("ends"))


def test_attempts_of_what_wraps_nothing_is_no_success():
    """A step has no attempts; the message says where to ask."""
    trace = record(ABC)
    assert trace != S("answer", S("a", attempts=1), ...)
    (line, *_) = explain(trace, S("answer", S("a", attempts=1), ...))
    assert line == (
        "trace differs: answer/a: attempts cannot be counted, a StepPrimitive wraps "
        "nothing; ask the retry around it, or for execution="
    )


def test_a_mismatch_names_each_difference_and_shows_the_tree():
    """The first line is the summary, then come the others, then the marked tree."""
    trace = record(ABC)
    pattern = S("answer", S("a", output="x"), S("guard"), S("c"), output="qabc")
    assert explain(trace, pattern) == [
        "trace differs in 3 places: answer/a: output is 'qa', expected 'x'",
        (
            "  answer: S('guard') was expected here and did not run; there are 'a', "
            "'answer', 'b' and 1 more"
        ),
        "  answer/b was not expected here",
        "  answer 0s",
        "~   a 0s",
        "~     ^ output is 'qa', expected 'x'",
        "-   S('guard')   <- expected, did not run",
        "+   b 0s   <- not expected",
        "    c 0s",
    ]


def test_a_mismatch_in_a_group_pairs_what_has_the_same_name():
    """In a group the nearest pattern is shown, not two left-overs."""
    trace = record((step("a") | step("b")).named("both"))
    pattern = S("both", any_order(S("b", output="x"), S("a")))
    assert tree_diff(trace, pattern) == [
        "  both 0s",
        "    a 0s",
        "~   b 0s",
        "~     ^ output is 'qb', expected 'x'",
    ]


def test_a_group_with_a_missing_member_leaves_its_neighbours_alone():
    """What follows a group still finds its own span."""
    pattern = S("answer", any_order(S("b"), S("a"), S("x")), S("c"))
    assert tree_diff(record(ABC), pattern) == [
        "  answer 0s",
        "    a 0s",
        "    b 0s",
        "-   S('x')   <- expected, did not run",
        "    c 0s",
    ]


def test_many_differences_are_counted():
    """A failure stays short enough to be read."""
    trace = record(chain(*"abcdefghij"))
    lines = explain(trace, S("answer", S("z")))
    assert lines[0].startswith("trace differs in 11 places: ")
    assert lines[7] == "  ... and 4 more"
    assert len(tree_diff(trace, S("answer", S("z")))) == 12


def test_a_matching_trace_is_explained_as_such():
    """There is nothing to show when nothing differs."""
    assert explain(record(ABC), S("answer")) == ["the trace matches"]


def test_a_comparison_with_something_else_says_what_is_allowed():
    """A trace is not compared with its outline by mistake."""
    (line,) = explain(record(ABC), "answer")
    assert re.match(r"a trace equals S\(\.\.\.\), or a list .* with 'answer'", line)


def test_a_trace_without_runs_says_so():
    """A pattern of something that never ran tells that nothing did."""
    (line, _) = explain(record(), S("answer"))
    assert line == (
        "trace differs: S('answer') was expected here and did not run; "
        "no workflow has run"
    )


def test_hundreds_of_equal_children_are_compared_quickly():
    """The search does not look at each pair of 400 attempts."""
    retry = RetryPrimitive(
        flaky(399), max_retries=399, jitter="none", initial_delay=0.001
    )
    trace = record(retry)
    attempts = [S("llm") for _ in range(400)]
    assert trace == S("retry", *attempts, attempts=400)
    assert trace == S("retry", any_order(*attempts))
    assert trace != S("retry", any_order(*attempts, S("llm")))


def test_a_long_value_is_shown_from_where_it_differs():
    """What two long texts have in common says nothing."""
    trace = record(StepPrimitive(lambda _: "x" * 1000 + "cat" + "y" * 500, name="a"))
    (line, *_) = explain(trace, S("a", output="x" * 1000 + "dog" + "y" * 500))
    tail = "y" * 137
    common = "... [981 characters] ..." + "x" * 20
    assert line.startswith(f"trace differs: a: output is {common}cat")
    _, row = tree_diff(trace, S("a", output="x" * 1000 + "dog"))
    assert row == (
        f"~   ^ output is {common}cat{tail}... [364 characters], expected {common}dog'"
    )


def test_what_did_not_end_well_is_told_in_words():
    """Cancelled, timed-out, failed and unfinished spans are seen in the tree."""

    async def forever(_):
        await asyncio.sleep(1000)

    slow = StepPrimitive(forever, name="slow")
    limited = TimeoutPrimitive(slow, timeout_seconds=5).named("limited")
    workflow = (limited >> step("end")).named("answer")
    trace = record(workflow, flaky(1))
    late = "timed out: TimeoutExceededError: answer/limited/slow took longer than 5 s"
    assert tree_diff(trace, [S("answer", duration=4), S("llm", status="ok")]) == [
        f"~ answer 5s {late}",
        "~   ^ duration is 5.0, expected 4",
        f"    limited 5s {late}",
        "      slow 5s cancelled",
        "~ llm 0s failed: ValueError: busy",
        "~   ^ status is 'failed', expected 'ok'",
    ]


def test_what_did_not_end_is_told_in_words():
    """A trace that is looked at while something runs says so."""
    recorder = TraceRecorder()
    seen = []
    look = StepPrimitive(
        lambda _: seen.extend(tree_diff(recorder.trace, S("answer", S("a")))), name="b"
    )

    async def main():
        await (step("a") >> look).named("answer").execute("q", WorkflowContext())

    with listening(observers=(recorder,)):
        VirtualClock().run(main())
    assert seen == [
        "  answer unfinished",
        "    a 0s",
        "+   b unfinished   <- not expected",
    ]


def test_of_a_big_tree_what_is_as_expected_is_left_out():
    """One difference among hundreds of spans is seen on one screen."""
    names = [f"s{number:03}" for number in range(200)]
    trace = record(chain(*names), ABC)
    wanted = [S(name, output="x") if name == "s100" else S(name) for name in names]
    difference = Difference(trace, [S("answer", *wanted), S("answer")])
    assert [line[:40] for line in difference.tree()] == [
        "  answer 0s",
        "    ... 99 spans as expected",
        "    s099 0s",
        "~   s100 0s",
        "~     ^ output is 'qs000s001s002s003s004",
        "    s101 0s",
        "  ... 102 spans as expected",
    ]
    assert len(difference.tree(whole=True)) == 206


def test_of_too_many_differences_the_rest_is_counted():
    """A failing test of thousands of calls does not fill the terminal."""
    names = [f"s{number:03}" for number in range(700)]
    tree = Difference(record(chain(*names)), S("answer", S("z"))).tree()
    assert len(tree) == 303
    assert tree[-1] == "    ... 400 more lines, of which 400 differ"


def test_the_lines_of_an_assertion_are_as_short_as_pytest_shows_them():
    """Neither eight lines nor 640 characters are exceeded, whatever values are long."""
    trace = record(chain(*"abcdefghij"))
    patterns = [S(name, input="x" * 100) for name in "abcdefghij"]
    lines = Difference(trace, S("answer", *patterns)).few_lines()
    assert len(lines) == 5
    assert sum(map(len, lines)) < 640
    assert lines[0].startswith("trace differs in 10 places: answer/a: input is 'q'")
    assert lines[-1] == "  ... and 6 more"


def test_a_comparison_of_thousands_with_thousands_ends(monkeypatch):
    """What has nothing in common is compared in order before it takes for ever."""
    looks = [0]
    fits = S.fits

    def counted(pattern, path):
        looks[0] += 1
        return fits(pattern, path)

    monkeypatch.setattr(S, "fits", counted)
    monkeypatch.setattr(alignment, "_MOST_EFFORT", 5_000)
    retry = RetryPrimitive(
        flaky(1999), max_retries=1999, jitter="none", initial_delay=0.001
    )
    trace = record(retry)
    wanted = [S("llm", execution=number) for number in range(2000, 0, -1)]
    difference = Difference(trace, S("retry", *wanted))
    assert difference.count > 1900
    assert difference.tree()[-1] == (
        "  too much differs to compare everything with everything: the rest is "
        "compared in order"
    )
    assert trace != S("retry", any_order(*wanted[1:], S("llm", execution=0)))
    assert looks[0] < 60_000
