"""A workflow as SVG: everything is drawn, in its place, and nothing of it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tta.properties import workflows
from tests.workflow_pictures.reading import boxes, nodes, read, words
from tta_primitives import (
    ConditionalPrimitive,
    MapPrimitive,
    ParallelPrimitive,
    RouterPrimitive,
    step,
)
from tta_primitives.performance import CachePrimitive
from tta_primitives.picture.drawing import drawn
from tta_primitives.recovery import (
    BulkheadPrimitive,
    CircuitBreakerPrimitive,
    CompensationPrimitive,
    FallbackPrimitive,
    HedgePrimitive,
    RateLimitPrimitive,
    RetryPrimitive,
    SagaPrimitive,
    TimeoutPrimitive,
)

KINDS = [
    *("SequentialPrimitive", "ParallelPrimitive", "ConditionalPrimitive"),
    *("RouterPrimitive", "MapPrimitive", "RetryPrimitive", "FallbackPrimitive"),
    *("TimeoutPrimitive", "CircuitBreakerPrimitive", "CachePrimitive"),
    *("SagaPrimitive", "CompensationPrimitive", "BulkheadPrimitive"),
    *("RateLimitPrimitive", "HedgePrimitive", "ValuePrimitive", "StepPrimitive"),
    *("Mine", "_Private"),
]


@step
async def validate(value):
    return value


@step
async def llm(value):
    return value


@step
async def format_answer(value):
    return value


def is_long(value):
    return len(value) > 3


def test_a_chain_goes_from_left_to_right() -> None:
    """Steps stand in the order in which they run, at one height."""
    workflow = validate >> RetryPrimitive(llm, max_retries=5) >> format_answer
    first, retry, last = read(workflow.to_svg()).below
    assert [one.title for one in (first, retry, last)] == [
        "sequential/validate (Step)",
        "sequential/retry (Retry) max_retries=5",
        "sequential/format_answer (Step)",
    ]
    [inner] = retry.below
    assert first.right < retry.left < inner.left
    assert inner.right < retry.right < last.left
    middles = [(one.top + one.bottom) / 2 for one in (first, inner, last)]
    assert middles == pytest.approx([middles[0]] * 3, abs=0.2)


def test_options_stand_beside_the_name() -> None:
    """They are shown as one writes them; functions by their names."""
    workflow = RetryPrimitive(
        TimeoutPrimitive(llm, timeout_seconds=2.5), max_retries=5, jitter="none"
    ).named("patient")
    assert words(workflow.to_svg()) == [
        "patient",
        "Retry",
        "max_retries=5",
        "jitter=none",
        "timeout",
        "timeout_seconds=2.5",
        "llm",
    ]


def test_ways_are_labelled() -> None:
    """One sees when which of them is taken, also that nothing may be done."""
    router = RouterPrimitive({"fast": validate, 2: llm}, is_long, default="fast")
    assert words(router.to_svg()) == [
        "router",
        "fast (default)",
        "validate",
        "2",
        "llm",
    ]
    own = RouterPrimitive({"fast": llm}, is_long, default=validate)
    assert words(own.to_svg()) == ["router", "fast", "llm", "default", "validate"]
    conditional = ConditionalPrimitive(is_long, llm)
    assert words(conditional.to_svg()) == [
        "conditional",
        "condition=is_long",
        "then",
        "llm",
        "else",
    ]


def test_a_default_that_is_no_certain_way_is_an_option() -> None:
    """If two routes lead to primitives of one name, the picture does not guess."""
    router = RouterPrimitive({"a": llm, "b": llm}, is_long, default="b")
    assert "default=llm" in words(router.to_svg())


@pytest.mark.parametrize(
    ("made", "label"),
    [
        (FallbackPrimitive(llm, [validate]), "if it fails"),
        (
            TimeoutPrimitive(llm, timeout_seconds=1, fallback=validate),
            "if it takes longer",
        ),
        (CompensationPrimitive(llm, validate), "undo"),
        (SagaPrimitive([(llm, validate)]), "undo"),
    ],
    ids=["fallback", "timeout", "compensation", "saga"],
)
def test_what_runs_only_otherwise_stands_below(made, label) -> None:
    """What stands for another, or undoes it, is led to by a dashed arrow."""
    svg = made.to_svg()
    [frame] = read(svg).below
    first, second = frame.below
    assert second.top > first.bottom
    assert label in words(svg)
    assert 'class="flow dash"' in svg


def test_branches_stand_above_each_other() -> None:
    """What runs at the same time begins on one line."""
    [frame] = read((validate | llm | format_answer).to_svg()).below
    tops = [one.top for one in frame.below]
    assert tops == sorted(tops)
    assert len(set(tops)) == 3


def test_many_branches_stand_in_columns() -> None:
    """A picture does not grow without end in one direction."""
    branches = [llm.named(f"leg_{number}") for number in range(24)]
    picture = read(ParallelPrimitive(*branches).to_svg())
    assert len({one.left for one in picture.below[0].below}) > 2
    assert picture.height < 400


def test_what_is_executed_for_each_item_is_a_stack_of_cards() -> None:
    """A map looks like many."""
    assert MapPrimitive(llm).to_svg().count('class="card calm"') == 3


def test_a_chain_that_is_too_long_goes_on_below() -> None:
    """The picture is as wide as it was asked to be, and no wider."""
    chain = validate
    for number in range(12):
        chain = chain >> llm.named(f"step_{number}")
    for width in (360, 736, 1200):
        picture = read(chain.to_svg(width=width))
        assert picture.width <= width
        assert len({one.top for one in picture.below}) > 1


def test_one_box_for_each_row_is_a_column() -> None:
    """On a small screen a chain goes straight down."""
    wide = "a_step_that_does_many_things"
    chain = llm.named(wide) >> validate.named(wide + "_too")
    first, second = read(chain.to_svg(width=300)).below
    assert first.left == second.left
    assert first.bottom < second.top


def test_an_open_wrapper_is_a_box_of_its_own() -> None:
    """It wraps nothing yet, and can be looked at all the same."""
    assert nodes(RetryPrimitive(max_retries=5).to_svg()) == [
        "retry (Retry) max_retries=5"
    ]


def test_an_outer_name_is_a_frame() -> None:
    """A chain with a name is a level of its own, as in paths."""
    named = (validate >> llm).named("answer")
    [frame] = read(named.to_svg()).below
    assert frame.title == "answer (Sequential)"
    assert [one.title for one in frame.below] == [
        "answer/validate (Step)",
        "answer/llm (Step)",
    ]


def test_siblings_of_one_name_have_paths_of_their_own() -> None:
    """They are those of traces and errors."""
    assert nodes((llm | llm).to_svg())[1:] == [
        "parallel/llm (Step)",
        "parallel/llm#2 (Step)",
    ]


def test_big_trees_are_cut_and_say_so() -> None:
    """Somebody with a thousand branches gets a picture, and no book."""
    many = ParallelPrimitive(*[llm.named(f"leg_{n}") for n in range(1000)])
    svg = many.to_svg()
    assert "601 more" in words(svg)
    assert len(nodes(svg)) == 401
    deep = llm
    for _ in range(100):
        deep = RetryPrimitive(deep, max_retries=5)
    svg = deep.to_svg()
    assert "60 more" in words(svg)
    assert len(nodes(svg)) == 42


def test_the_picture_tells_itself_in_words() -> None:
    """Those who cannot see it hear what runs, and when."""
    workflow = (
        validate
        >> FallbackPrimitive(RetryPrimitive(llm, max_retries=5), [format_answer])
        >> (validate | llm)
        >> ConditionalPrimitive(is_long, MapPrimitive(llm), validate)
    )
    root = ET.fromstring(workflow.to_svg())
    assert root.get("role") == "img"
    assert root[0].text == "Workflow sequential"
    assert root[1].text == (
        "validate, then (fallback around retry [max_retries=5] around llm; "
        "if it fails, format_answer), then (parallel of validate and llm), then "
        "(conditional [condition=is_long] of then: map [max_concurrency=10] "
        "around llm; else: validate)."
    )


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>".replace("/", "|"),
        "]]> & &amp; --> \" '",
        "\x00\x1b[31mred\x07\r\n\t",
        "\u202egnp.exe\u2066",
        "\ud800",
        "\uffff\ufdd0",
        "שלום עולם",
        "日本語の名前がとても長い場合でも箱からはみ出さない",
        "e\u0301" * 50,
        "x" * 5000,
    ],
)
def test_hostile_names_are_shown_and_not_obeyed(name) -> None:
    """The picture is XML that any page may hold, whatever somebody calls a step."""
    svg = (llm.named(name) >> RetryPrimitive(validate.named(name))).to_svg()
    svg.encode()
    root = ET.fromstring(svg)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "g", "path", "text"}
    shown = "".join(root.itertext())
    assert all(c.isprintable() or c == "\n" for c in shown)
    check(svg)


def test_nothing_is_fetched_or_named() -> None:
    """Pictures share pages: no reference, no id, no style for anything outside."""
    svg = (validate >> (llm | CachePrimitive(llm, ttl=60))).to_svg()
    assert re.findall(r"\b(?:id|href|src|on\w+)=", svg) == []
    assert "url(" not in svg
    assert "@import" not in svg
    style = ET.fromstring(svg)[2].text
    rules = re.findall(r"(?:^|[{}])\s*([^{}@]+)\{", style)
    assert [one for one in rules if not one.startswith(".tta-picture")] == []


def test_a_theme_is_followed_or_fixed() -> None:
    """The reader's choice decides, unless the writer has decided."""
    assert 'class="tta-picture auto"' in llm.to_svg()
    assert 'class="tta-picture dark"' in llm.to_svg(theme="dark")
    with pytest.raises(ValueError, match=r"theme='pink' must be one of"):
        llm.to_svg(theme="pink")
    with pytest.raises(ValueError, match=r"width=0 must be"):
        llm.to_svg(width=0)


def test_the_same_tree_has_the_same_picture() -> None:
    """In this process and in others, whatever their hash seed is."""
    code = (
        "from tta_primitives import ParallelPrimitive\n"
        "from tta_primitives.recovery import RetryPrimitive\n"
        "made = ParallelPrimitive(str, RetryPrimitive(abs, retry_on=(OSError,)))\n"
        "print(made.to_svg(), end='')"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_running_workflows_does_not_load_the_pictures() -> None:
    """Who only runs workflows pays nothing for them."""
    code = "import sys, tta_primitives; print('tta_primitives.picture' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def check(svg) -> None:
    """Check that every box lies in the one around it, and touches no other."""
    picture = read(svg)
    for box in [picture, *boxes(picture)]:
        for inner in [*box.below, *box.words, *box.chips]:
            assert box.holds(inner), f"{inner} is not in {box.title} {box}"
        for index, one in enumerate(box.below):
            for other in box.below[:index]:
                assert not one.touches(other), f"{one} and {other}"
    for box in boxes(picture):
        for word in box.words:
            # A heading is not written over what is below it.
            for inner in box.below:
                apart = (
                    word.bottom <= inner.top + 1
                    or word.top >= inner.bottom - 1
                    or word.right <= inner.left + 1
                    or word.left >= inner.right - 1
                )
                assert apart, f"{word} is on {inner.title}"


ALL = [
    *("retry", "timeout", "fallback", "breaker", "bulkhead", "rate_limit", "hedge"),
    *("cache", "sequential", "parallel"),
]


@given(
    workflows([validate, llm, format_answer], shapes=ALL, max_depth=4),
    st.integers(200, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_box_of_a_workflow_touches_another(workflow, width) -> None:
    """Whatever is composed, boxes are inside or beside each other."""
    check(workflow.to_svg(width=width))


NAMES = st.text(min_size=1, max_size=60) | st.sampled_from(
    ["llm", "a_long_name_of_a_step", "aHumpedName", "x" * 200]
)
OPTIONS = st.dictionaries(
    NAMES, st.none() | st.integers() | st.floats() | NAMES | st.lists(NAMES), max_size=8
)


def described(kind, name, options, children):
    """Return a description, whose router has a route for each child."""
    if kind == "RouterPrimitive":
        options = {**options, "routes": [f"route {n}" for n in range(len(children))]}
    return {"type": kind, "name": name, "options": options, "children": children}


DESCRIPTIONS = st.recursive(
    st.builds(described, st.sampled_from(KINDS), NAMES, OPTIONS, st.just([])),
    lambda below: st.builds(
        described, st.sampled_from(KINDS), NAMES, OPTIONS, st.lists(below, max_size=9)
    ),
    max_leaves=30,
)


@given(DESCRIPTIONS, st.integers(100, 1000))
@settings(max_examples=60, deadline=None)
def test_any_description_can_be_drawn(description, width) -> None:
    """Kinds that nobody has thought of, any names, and any number of children."""
    check(drawn(description, width=width))


WRAPPERS = [
    (RetryPrimitive, {}),
    (CachePrimitive, {"ttl": 60}),
    (TimeoutPrimitive, {"timeout_seconds": 1}),
    (CircuitBreakerPrimitive, {}),
    (BulkheadPrimitive, {"max_concurrency": 1}),
    (RateLimitPrimitive, {"rate": 1}),
    (HedgePrimitive, {"delay": 1}),
    (MapPrimitive, {}),
]


@pytest.mark.parametrize(
    ("wrapper", "options"), WRAPPERS, ids=[one.__name__ for one, _ in WRAPPERS]
)
def test_each_wrapper_is_a_frame_around_one_box(wrapper, options) -> None:
    """Every kind is drawn once, with what it wraps inside."""
    [frame] = read(wrapper(llm, **options).to_svg()).below
    assert frame.kind.startswith("frame ")
    assert len(frame.below) == 1
