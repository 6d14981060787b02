"""A harness returns to a mark: what was made since is dropped, the rest as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pytest_tta import Harness, MockPrimitive
from pytest_tta.faults import first
from pytest_tta.trace import S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tta_primitives import WorkflowPrimitive


class Bank:
    """A double as tests write them, with a list and a number."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.balance = 100


async def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}"


@pytest.fixture
def bare() -> Iterator[Harness]:
    """Enter a harness that nobody verifies at the end."""
    harness = Harness()
    with harness.clock, harness.watching():
        yield harness


def test_what_was_recorded_since_a_mark_is_forgotten(bare: Harness) -> None:
    """What had been recorded before stays; a trace that was handed out keeps all."""
    bare.run(greet, "a")
    mark = bare.mark()
    bare.run(greet, "b")
    before = bare.trace
    bare.rewind(mark)
    assert [span.input for span in bare.trace.spans] == ["a"]
    bare.run(greet, "c")
    assert [span.input for span in bare.trace.spans] == ["a", "c"]
    assert len(before.spans) == 2
    assert bare.runs == 2


def test_what_was_made_since_a_mark_is_made_anew(bare: Harness) -> None:
    """Double, faults, fleet and wire of the body are no longer there."""
    mark = bare.mark()
    made = [bare.llm, bare.faults, bare.fleet, bare.wire]
    bare.llm.reply("never used")
    bare.rewind(mark)
    assert not [one for one in made if one in (bare.llm, bare.faults, bare.fleet)]
    assert bare.verify() == []


def test_a_wire_that_was_made_since_a_mark_answers_no_more(bare: Harness) -> None:
    """What stood in for the network is taken away with it."""
    mark = bare.mark()
    bare.wire.openai.reply("Hello").always()
    bare.rewind(mark)

    async def ask(_: str) -> None:
        """Send a request, which nobody answers now."""
        async with httpx.AsyncClient(transport=httpx.MockTransport(_teapot)) as client:
            answer = await client.post("https://api.openai.com/v1/chat/completions")
            assert answer.status_code == 418

    bare.run(ask, "")


def _teapot(_: httpx.Request) -> httpx.Response:
    return httpx.Response(418)


def _scripted(bare: Harness) -> WorkflowPrimitive[Any, Any]:
    bare.llm.reply("fine").times(2)
    bare.faults.at("greet").fail(TimeoutError(), when=first(1))
    return bare.llm.primitive()


def test_what_was_there_before_a_mark_knows_what_it_knew(bare: Harness) -> None:
    """Scripts that were written before are neither used up nor have they struck."""
    llm = _scripted(bare)
    bare.run(llm, "?")
    mark = bare.mark()
    for _ in range(3):
        assert bare.run(llm, "?") == "fine"
        with pytest.raises(TimeoutError, match=r"^$"):
            bare.run(greet, "x")
        bare.llm.reply("of the body")
        assert len(bare.llm.calls) == 2
        bare.rewind(mark)
        assert len(bare.llm.calls) == 1
    assert bare.verify()[0].endswith("answered 1 of 2 calls: no call was left for it")


def test_promises_and_problems_of_a_body_end_with_it(bare: Harness) -> None:
    """The next execution states its own."""
    bare.problems.append("from a fixture")
    mark = bare.mark()
    bare.always(lambda: False, "never")
    bare.sometimes("reached")
    bare.problems.append("from the body")
    assert bare.reached() == {"reached": True}
    bare.rewind(mark)
    assert bare.verify() == ["from a fixture"]
    assert bare.reached() == {}


def test_doubles_of_the_test_itself_are_rewound_if_asked_for(bare: Harness) -> None:
    """A double that a fixture made is as it was when the body began."""
    bank, mock = Bank(), MockPrimitive("pay", return_value=1)
    mark = bare.mark(keep=[bare, bank, mock, "text", 7])
    bank.charges.append("x")
    bank.balance = 0
    bare.run(mock, "x")
    bare.rewind(mark)
    assert bank.charges == []
    assert bank.balance == 100
    assert mock.call_count == 0


def test_a_harness_can_go_on_after_it_was_rewound(bare: Harness) -> None:
    """A trace equals its pattern as in any test."""
    mark = bare.mark()
    bare.run(greet, "a")
    bare.rewind(mark)
    bare.run(greet, "b")
    assert bare.trace == S("greet", output="Hello, b")
