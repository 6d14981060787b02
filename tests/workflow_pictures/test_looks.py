"""Colours can be told apart from their ground, and words fit their place."""

from __future__ import annotations

import re

import pytest

from tests.pictures.test_pictures import contrast
from tta_primitives.picture import style
from tta_primitives.picture.shapes import line, number
from tta_primitives.picture.words import lines_of, width_of

THEMES = [
    pytest.param(style.LIGHT, id="light"),
    pytest.param(style.DARK, id="dark"),
]


@pytest.mark.parametrize("colours", THEMES)
def test_words_can_be_read_on_every_ground(colours) -> None:
    """All have the contrast that the WCAG 2.2 ask for."""
    grounds = ["paper", *(f"{tone}-tint" for tone in style.TONES)]
    grounds += [f"{tone}-wash" for tone in style.TONES]
    pairs = [(word, ground) for word in ("ink", "soft") for ground in grounds]
    pairs += [(tone, f"{tone}-wash") for tone in style.TONES]
    pairs += [(tone, "paper") for tone in style.TONES]
    pairs += [("bad", f"{tone}-tint") for tone in style.TONES]
    pairs += [("bad", "good-wash"), ("on", "good")]
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: one for pair, one in found.items() if one < 4.5} == {}


@pytest.mark.parametrize("colours", THEMES)
def test_lines_can_be_seen_on_every_ground(colours) -> None:
    """What is no word needs three to one."""
    grounds = ["paper", *(f"{tone}-tint" for tone in style.TONES)]
    found = {ground: contrast(colours["line"], colours[ground]) for ground in grounds}
    assert {ground: one for ground, one in found.items() if one < 3} == {}


def test_every_class_has_a_rule() -> None:
    """No class in the style is left over after a change."""
    rules = set(re.findall(r"\.tta-picture \.([a-z]+)", style.STYLE))
    assert rules == {
        *("name", "option", "soft", "paper", "frame", "leaf", "rest", "card"),
        *("flow", "dash", "head", "full", "pale", "void", "flat", "on", "word"),
        *("struck", "sign", *style.TONES),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fetch", ["fetch"]),
        ("fetch_all_pages", ["fetch_all_", "pages"]),
        ("fetchAllPages", ["fetchAll", "Pages"]),
        ("a.b-c", ["a.b-c"]),
        ("x" * 12, ["x" * 10, "xx"]),
        ("x" * 100, ["x" * 10, "x" * 10, "x" * 9 + "…"]),
    ],
)
def test_names_are_broken_where_they_have_a_joint(name, expected) -> None:
    """Behind a sign or before a hump; else wherever the room ends."""
    assert lines_of(name, 10.2 * width_of("0", 12, mono=True), 12) == expected


def test_widths_are_those_of_wide_fonts() -> None:
    """A letter is at least as wide as in DejaVu Sans, which is wider than most."""
    assert width_of("mill", 10) == pytest.approx(10 * (1.02 + 3 * 0.28))
    assert width_of("mill", 10, mono=True) == pytest.approx(10 * 4 * 0.62)
    assert width_of("日", 10) == 10.5
    assert width_of("e\u0301", 10) == width_of("e", 10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, "1"), (-0.04, "0"), (1.25, "1.2"), (1234567.89, "1234567.9"), (-3, "-3")],
)
def test_coordinates_are_short(value, expected) -> None:
    """To a tenth of a pixel, and with no minus in front of nothing."""
    assert number(value) == expected


def test_lines_turn_in_a_round() -> None:
    """A corner that is nearer to the next than its round is a smaller one."""
    assert line([(0, 0), (20, 0), (20, 30)]) == (
        '<path class="flow" d="M0 0L14 0Q20 0 20 6L20 30"/>'
    )
    assert line([(0, 0), (4, 0), (4, 0), (4, 30)], head=True) == (
        '<path class="flow" d="M0 0L2 0Q4 0 4 6L4 30"/>'
        '<path class="head" d="M4 30L1 24L7 24Z"/>'
    )
