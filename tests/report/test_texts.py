"""Texts of users in reports: no control characters, no secrets, not too long."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tta.report.texts import clean, redacted, safe, shortened

KEY = "sk-" + "proj-0123456789abcdef"
STRANGE = {"Cc", "Cs"}
# The joiners between emoji are no reason to show anybody an escape.
WORDS = "Grüße, 你好, مرحبا, 👩\u200d👩\u200d👧"


def is_seen(character: str) -> bool:
    """Return whether a character neither controls a terminal nor turns a line."""
    turns = unicodedata.bidirectional(character) in {
        *("LRE", "RLE", "LRO", "RLO", "PDF"),
        *("LRI", "RLI", "FSI", "PDI"),
    }
    return character in "\n\t" or (
        unicodedata.category(character) not in STRANGE and not turns
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten\x00\x7f\x9b", "over\\x0dwritten\\x00\\x7f\\x9b"),
        ("half \ud83d of a character", "half \\ud83d of a character"),
        ("\u202eesrever\u202c \u2066x\u2069", "\\u202eesrever\\u202c \\u2066x\\u2069"),
        ("\u2028\u2029\ufeff\u200b\uffff", "\\u2028\\u2029\\ufeff\\u200b\\uffff"),
        ("tags \U000e0041\U000e007f", "tags \\U000e0041\\U000e007f"),
        (WORDS, WORDS),
    ],
    ids=["plain", "escapes", "controls", "surrogate", "bidi", "lines", "tags", "words"],
)
def test_what_is_not_seen_is_written_as_an_escape(text: str, shown: str) -> None:
    """Control characters and the like become escapes; people's words stay."""
    assert clean(text) == shown


def test_a_text_is_cut_in_its_middle_and_says_how_much() -> None:
    """What begins a text and what ends it tell most."""
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghi", 8) == "abcdef... [1 characters left out] ...hi"


def test_ten_megabytes_become_a_few_lines() -> None:
    """Of a huge text the beginning, the end and the size are shown."""
    text = "a" + "x" * 10_000_000 + "z"
    assert safe(text, 12) == "axxxxxxxx... [9,999,990 characters left out] ...xxz"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Authorization: Bearer {KEY}",
        "https://user:hunter22@example.com/",
        "password='hunter22'",
        f"first line\\n{KEY}",
        f"\x1b[2J{KEY}",
        f"\\x1b[2J{KEY}",
    ],
    ids=["key", "header", "url", "named", "after-a-line", "after-a-colour", "shown"],
)
def test_secrets_are_hidden(text: str) -> None:
    """Keys by their looks, passwords by their names and places in URLs."""
    shown = safe(text, 1_000)
    assert "hunter22" not in shown
    assert "0123456789abcdef" not in shown
    assert "redacted" in shown


def test_secrets_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable holds that is called a key is hidden wherever it stands."""
    monkeypatch.setenv("SHOP_API_KEY", "velvet-anvil-lantern")
    assert redacted("it was velvet-anvil-lantern") == "it was <redacted>"
    monkeypatch.delenv("SHOP_API_KEY")
    assert redacted("it was velvet-anvil-lantern") == "it was velvet-anvil-lantern"


def test_fields_with_the_name_of_a_secret_are_hidden() -> None:
    """In nested data a name tells, whatever stands there."""
    data = {"user": "ada", "login": [{"password": "lovelace"}], "n": 3}
    shown = redacted(data)
    assert shown["user"] == "ada"
    assert shown["n"] == 3
    assert "lovelace" not in repr(shown)


def test_a_secret_at_the_cut_is_not_shown_in_part() -> None:
    """The cut comes last: half of a key is half of a secret."""
    for before in range(60, 100):
        assert "0123" not in safe("." * before + f" {KEY} " + "." * 500, 100)


@given(st.text(st.characters()), st.integers(1, 50))
def test_whatever_it_is_it_is_fit_for_a_terminal(text: str, most: int) -> None:
    """No text at all gets a control character or half a character through."""
    shown = safe(text, most)
    assert all(map(is_seen, shown))
    shown.encode()
    assert len(re.sub(r"\.\.\. \[[\d,]+ characters left out\] \.\.\.", "", shown)) <= (
        most if "left out" in shown else max(most, len(shown))
    )
