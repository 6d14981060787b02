"""Pictures of a workflow: JSON-able data and Mermaid text."""

from __future__ import annotations

import functools
import json
from datetime import timedelta

import pytest

from tests.core.tools import Tag
from tta_primitives import ConditionalPrimitive, ParallelPrimitive, step
from tta_primitives.description import mermaid, plain
from tta_primitives.recovery import FallbackPrimitive, SagaPrimitive


@step
async def fetch(value):
    return value


class Client:
    def __call__(self, value):
        return value


TREE = (Tag("T") >> fetch >> (str | fetch)).named("answer")


def test_case_93_describe_is_a_tree_in_execution_order() -> None:
    """Type, name, options and children of each primitive, JSON-able."""

    def leaf(name):
        return {"type": "StepPrimitive", "name": name, "options": {}, "children": []}

    described = TREE.describe()
    assert described == {
        "type": "SequentialPrimitive",
        "name": "answer",
        "options": {},
        "children": [
            {
                "type": "Tag",
                "name": "tag",
                "options": {"tag": "T"},
                "children": [leaf("fetch")],
            },
            {
                "type": "ParallelPrimitive",
                "name": "parallel",
                "options": {},
                "children": [leaf("str"), leaf("fetch")],
            },
        ],
    }
    assert json.loads(json.dumps(described)) == described


def test_a_mermaid_flowchart_shows_the_same_tree() -> None:
    """Parents stand above their children, with name, kind and options."""
    assert TREE.to_mermaid() == (
        "flowchart TD\n"
        '    n0["answer<br/>Sequential"]\n'
        "    n1[\"tag<br/>Tag<br/>tag='T'\"]\n"
        '    n2["fetch<br/>Step"]\n'
        "    n1 --> n2\n"
        "    n0 --> n1\n"
        '    n3["parallel<br/>Parallel"]\n'
        '    n4["str<br/>Step"]\n'
        "    n3 --> n4\n"
        '    n5["fetch<br/>Step"]\n'
        "    n3 --> n5\n"
        "    n0 --> n3\n"
    )


def test_mermaid_escapes_what_would_end_a_label() -> None:
    """Quotes, angle brackets and hashes of a name are shown, not obeyed."""
    described = fetch.named('a "b" <i>&').describe()
    assert mermaid(described) == (
        'flowchart TD\n    n0["a #34;b#34; #60;i#62;#38;<br/>Step"]\n'
    )


def test_mermaid_has_no_line_and_no_comment_of_a_name() -> None:
    """Control characters and what begins a comment are shown, not obeyed."""
    described = fetch.named("a\n%%{init}\x1b[31m").describe()
    assert mermaid(described) == (
        'flowchart TD\n    n0["a\\n#37;#37;{init}\\x1b[31m<br/>Step"]\n'
    )


def test_mermaid_says_when_a_way_is_taken() -> None:
    """Ways of a choice, and what stands for another, have a label."""
    saga = SagaPrimitive([(fetch, abs)])
    conditional = ConditionalPrimitive(bool, FallbackPrimitive(fetch, [saga]), len)
    edges = [line for line in conditional.to_mermaid().splitlines() if "-->" in line]
    assert edges == [
        "    n1 --> n2",
        "    n3 --> n4",
        '    n3 -->|"undoes fetch"| n5',
        '    n1 -->|"if it fails"| n3',
        '    n0 -->|"then"| n1',
        '    n0 -->|"else"| n6',
    ]


def test_mermaid_cuts_what_no_label_has_room_for() -> None:
    """A value of ten megabytes leaves a picture that still can be drawn."""
    flowchart = FallbackPrimitive(fetch, ["x" * 10_000_000]).to_mermaid()
    assert len(flowchart) < 1_000
    assert "…" in flowchart


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("text", "text"),
        (timedelta(minutes=2), 120.0),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"b", "a"}, ["a", "b"]),
        ({1: fetch._function}, {"1": f"{__name__}.fetch"}),
        (ValueError, "ValueError"),
        (Client, f"{__name__}.Client"),
        (Client(), "Client"),
        (functools.partial(len), "len"),
        (object(), "<object>"),
    ],
)
def test_options_become_plain_data(value, expected) -> None:
    """Functions and classes by their names, never with an address in memory."""
    assert plain(value) == expected


def test_only_options_that_differ_are_shown() -> None:
    """A plain primitive has a plain description."""
    assert ParallelPrimitive(str, abs).options() == {}
    assert ParallelPrimitive(str, abs, min_success=1, isolate=True).options() == {
        "min_success": 1,
        "isolate": True,
    }
