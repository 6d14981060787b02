"""A plan on one line, and what is said about a line that is none."""

from __future__ import annotations

import base64
import shlex
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tta.explore.line import from_line, to_line
from pytest_tta.explore.plan import Cancellation, FaultAt, Plan, Schedule

TEXTS = st.text(st.characters(codec=None), min_size=1)  # Surrogates too.
NUMBERS = st.integers(0, 10**6)
DEVIATIONS = st.dictionaries(NUMBERS, st.integers(1, 1000), max_size=200).map(
    lambda found: tuple(found.items())
)
SCHEDULES = st.builds(
    Schedule,
    st.sampled_from(["op", "burst", "harsh"]),
    st.sampled_from(["oldest", "sticky"]),
    DEVIATIONS,
    st.integers(0, 3),
)
PLANS = st.builds(
    Plan,
    st.lists(st.builds(FaultAt, TEXTS, st.integers(1, 10**6), TEXTS)).map(tuple),
    st.none() | st.builds(Cancellation, TEXTS, NUMBERS),
    SCHEDULES,
    st.integers(),
    st.text(),
    st.none() | st.integers(0, 2**32 - 1),
    st.text(max_size=64),
    version=st.just(1),
)


@given(PLANS)
def test_a_plan_survives_the_line(plan: Plan) -> None:
    """Whatever sites and tasks are called: from_line takes back what to_line gave."""
    assert from_line(to_line(plan)) == plan


@given(PLANS)
def test_a_line_survives_a_shell(plan: Plan) -> None:
    """Between single quotes the line is one word of printable ASCII."""
    line = to_line(plan)
    assert shlex.split(f"pytest --tta-replay='{line}'") == [
        "pytest",
        f"--tta-replay={line}",
    ]
    assert line.isascii()
    assert line.isprintable()


def test_the_plainest_plan_is_its_version() -> None:
    """What is as by default is left out."""
    assert to_line(Plan()) == "tta1"


def test_all_parts_of_a_line() -> None:
    """The line of a plan with everything in it."""
    plan = Plan(
        (FaultAt("load/1:Retry", 2, "lost-ack"), FaultAt("httpx:GET h/p", 1, "hang")),
        Cancellation("main", 3),
        Schedule("burst", "sticky", ((0, 1), (5, 2)), 1),
        seed=7,
        input="AXic",
        hash_seed=0,
        tree="3fa9c1d2",
    )
    line = (
        "tta1 f=load/1:Retry#2:lost-ack,httpx:GET%20h/p#1:hang c=main@3"
        " s=burst.sticky.e1:0>1,5>2 r=7 x=AXic h=0 t=3fa9c1d2"
    )
    assert to_line(plan) == line


def test_a_line_may_be_quoted_still() -> None:
    """Quotes and blanks that were copied with the line do no harm."""
    assert from_line(" 'tta1 r=3' \n") == Plan(seed=3)


def test_long_lists_of_deviations_are_packed() -> None:
    """A thousand deviations of a schedule that nobody has shrunk fit on a screen."""
    deviations = tuple((point, point % 3 + 1) for point in range(1000))
    plan = Plan(schedule=Schedule("op", "sticky", deviations))
    line = to_line(plan)
    assert line.startswith("tta1 s=op.sticky~")
    assert len(line) < 1000
    assert from_line(line) == plan


def test_the_alphabet_of_packing_needs_no_escapes() -> None:
    """Each packed list is taken back from what base64 for addresses writes."""
    for most in range(40, 120):
        deviations = tuple((p * p, p * 7 % most + 1) for p in range(most))
        plan = Plan(schedule=Schedule("op", "oldest", deviations))
        assert from_line(to_line(plan)) == plan


def test_another_version_is_not_written() -> None:
    """A plan of a format that this release does not know is refused."""
    with pytest.raises(ValueError, match="a plan of version 2 cannot be written as 1"):
        to_line(Plan(version=2))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "must begin with 'tta1'"),
        ("f=load#1:error", "must begin with 'tta1'"),
        ("tta2 r=1", "'tta2' was written by another release"),
        ("tta1 q=1", "there is no part 'q=1', only f, c, s, r, x, h, t"),
        ("tta1 r", "there is no part 'r'"),
        ("tta1 r=1 r=2", "the part r= stands there twice"),
        ("tta1 r=one", "a seed must be a whole number, not 'one'"),
        ("tta1 h=-1", "the seed of hashes must be a number from 0, not '-1'"),
        ("tta1 f=", "a fault is <site>#<call>:<kind>, not ''"),
        ("tta1 f=load:error", "a fault is <site>#<call>:<kind>, not 'load:error'"),
        ("tta1 f=load#0:error", "the call must be a number from 1, not '0'"),
        ("tta1 f=lo%2#1:error", "'%2' is no escape such as %20"),
        ("tta1 f=lo%FF#1:error", "'lo%FF' is not UTF-8 after its escapes"),
        ("tta1 c=main", "a cancellation is <task>@<moment of rest>, not 'main'"),
        ("tta1 c=main@x", "the moment of rest must be a number from 0, not 'x'"),
        ("tta1 s=slow.oldest", "the mode is one of op, burst, harsh, not 'slow'"),
        ("tta1 s=op.new", "the order is one of oldest, sticky, not 'new'"),
        ("tta1 s=op.oldest.3", "behind the order stands e and a number, not '3'"),
        ("tta1 s=op.oldest:", "a deviation is <choice>><index>, not ''"),
        ("tta1 s=op.oldest:3", "a deviation is <choice>><index>, not '3'"),
        ("tta1 s=op.oldest:3>0", "an index must be a number from 1, not '0'"),
        ("tta1 s=op.oldest:3>1,3>2", "choice 3 deviates twice"),
        ("tta1 s=op.oldest~AAAA", "the packed deviations 'AAAA' are damaged"),
        ("tta1 s=op.oldest~ä", "the packed deviations 'ä' are damaged"),
        ("tta1 s=op.oldest~", "the packed deviations '' are damaged"),
    ],
)
def test_what_is_no_line_is_said(line: str, why: str) -> None:
    """The error shows the line, and which part of it is wrong."""
    with pytest.raises(ValueError, match="is no line to replay") as caught:
        from_line(line)
    assert why in str(caught.value)
    assert repr(line) in str(caught.value)


@given(st.text(), st.sampled_from("fcsrxht"))
def test_any_text_is_read_or_refused(text: str, key: str) -> None:
    """No text raises anything but the error that says what is wrong."""
    try:
        plan = from_line(f"tta1 {key}={text}")
    except ValueError as error:
        assert "is no line to replay" in str(error)  # noqa: PT017 - either may happen
    else:
        assert from_line(to_line(plan)) == plan


@given(st.binary(max_size=40))
def test_damaged_packs_are_read_or_refused(data: bytes) -> None:
    """What was cut while it was copied raises the same error, and fills no memory."""
    text = base64.urlsafe_b64encode(zlib.compress(data)).rstrip(b"=").decode()
    try:
        from_line(f"tta1 s=op.oldest~{text}")
    except ValueError as error:
        assert "is no line to replay" in str(error)  # noqa: PT017 - either may happen
