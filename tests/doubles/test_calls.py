"""The log of a double: calls by number, by place, by time, and as a person reads it."""

from __future__ import annotations

import asyncio

import pytest

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.doubles import MockPrimitive
from tta_primitives import WorkflowContext


@pytest.fixture
def mock():
    """Return a double that was called with "a" at 0 s, "b" at 2 s and "c" at 4 s."""
    mock = MockPrimitive("llm", return_value="x")

    async def main():
        for text in ("a", "b", "c"):
            await mock.execute(text, WorkflowContext())
            await asyncio.sleep(2)

    VirtualClock().run(main())
    return mock


def test_a_log_is_a_sequence(mock):
    """It has a length, and a part of it is a log again."""
    assert len(mock.calls) == 3
    assert [one.input for one in mock.calls] == ["a", "b", "c"]
    assert mock.calls[-1].input == "c"
    assert mock.calls[1:].inputs == ["b", "c"]
    assert mock.calls[:1].once.input == "a"


def test_calls_have_the_times_of_the_virtual_clock(mock):
    """From the first on, in seconds."""
    first, *_ = mock.calls.times
    assert [at - first for at in mock.calls.times] == [0.0, 2.0, 4.0]


def test_a_log_equals_what_has_the_same_calls(mock):
    """Another log or a list, and nothing else."""
    assert mock.calls[1:] == mock.calls[-2:]
    assert mock.calls[1:] != mock.calls[:2]
    assert mock.calls[:1] == [mock.calls[0]]
    assert mock.calls[:1] != [mock.calls[1]]
    assert mock.calls[:1] != (mock.calls[0],)


def test_a_log_keeps_up_with_its_double(mock):
    """It is a view; a part of it stays as it was taken."""
    calls, part = mock.calls, mock.calls[:]
    VirtualClock().run(mock.execute("d", WorkflowContext()))
    assert (len(calls), len(part)) == (4, 3)


def test_a_log_shows_all_of_its_calls(mock):
    """Place, time and input of each."""
    begin = mock.calls[0].at
    assert repr(mock.calls[:2]) == (
        f"<CallLog 2 calls:\n  1. llm at {begin:g} s: 'a'\n"
        f"  2. llm at {begin + 2:g} s: 'b'>"
    )
    assert repr(mock.calls[:1]).startswith("<CallLog 1 call:")
    assert repr(mock.calls[:0]) == "<CallLog no calls>"
