"""The file: what stands in it, and that nothing in it can become more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from pytest_tta.report.html import page
from tests.report.html.sessions import (
    HOSTILE,
    example,
    hostile,
    item,
    large,
    session,
    span,
    written,
)

VOID = {"img", "input", "link", "meta"}


class Parsed(HTMLParser):
    """A page in pieces: texts by element, and the attributes of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag) -> None:
        """Go on with the element around it."""
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data) -> None:
        """Add to the text of the element that was opened last."""
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def attribute(self, tag: str, name: str) -> list[str | None]:
        """Return an attribute of all elements that have it."""
        return [
            given[name] for found, given in self.tags if found == tag and name in given
        ]


def hashed(text: str) -> str:
    """Return how a policy names a script or a style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_record_is_in_the_page_as_it_was_given() -> None:
    """What scripts read is the record itself."""
    record = example()
    data, _ = Parsed(page(record)).texts["script"]
    assert json.loads(data) == record


def test_seeds_are_told_to_the_last_digit() -> None:
    """A script would round a whole number that a 64-bit float cannot hold."""
    seed = 2**53 + 1
    record = session(written("test_a.py::test_a", item() | {"seed": seed}), seed=seed)
    data, _ = Parsed(page(record)).texts["script"]
    read = json.loads(data)
    assert (read["seed"], read["tests"][0]["tta"]["seed"]) == (str(seed), str(seed))


def test_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    """The hashes are of what stands there, and there is no way to a network."""
    found = Parsed(page(example()))
    (policy,) = [
        given["content"]
        for _, given in found.tags
        if given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.split("; ") == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "img-src data:",
        f"script-src {hashed(found.texts['script'][1])}",
        f"style-src {hashed(found.texts['style'][0])}",
    ]


def test_nothing_is_fetched() -> None:
    """No element names an address but that of its own page, or data."""
    found = Parsed(page(example()))
    links = found.attribute("link", "href") + found.attribute("a", "href")
    assert [link[:5] for link in links] == ["data:", "#arti"]
    assert found.attribute("script", "src") == []
    assert [src[:19] for src in found.attribute("img", "src")] == [
        "data:image/svg+xml;"
    ]
    assert set(re.findall(r"https?://[^\s\"'`)]+", page(session()))) == {
        "http://www.w3.org/2000/svg"
    }


def test_hostile_texts_add_no_element() -> None:
    """A page has the same elements, whatever the names and the texts are."""
    record = hostile()
    tame = json.loads(json.dumps(record).replace("<", "(").replace("{{", "(("))
    names = [tag for tag, _ in Parsed(page(record)).tags]
    assert names == [tag for tag, _ in Parsed(page(tame)).tags]
    assert names.count("script") == 2


def test_data_cannot_end_its_element() -> None:
    """Neither a tag nor the beginning of a comment stands in the data."""
    text = page(hostile())
    _, _, rest = text.partition('<script type="application/json" id="record">')
    data, _, _ = rest.partition("</script>")
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["tests"][1]["node_id"].startswith("test_a.py::wide")


def test_half_a_character_does_not_stop_the_file_from_being_written() -> None:
    """Lone surrogates are shown as what they are: no characters."""
    assert "\ud800" in HOSTILE
    text = page(session(written("test_a.py::test_a[\ud800]")))
    assert "test_a[\ufffd]" in text.encode().decode()


def test_infinite_numbers_are_texts() -> None:
    """JSON has no infinity, and a test may sleep for ever."""
    sleep = {"at": 0.0, "seconds": float("inf"), "where": "a.py:1", "task": "t"}
    tta = item(span(0), sleeps=[sleep])
    data, _ = Parsed(page(session(written("a", tta)))).texts["script"]
    (read,) = json.loads(data)["tests"]
    assert read["tta"]["run"]["sleeps"][0]["seconds"] == "inf"


def test_coverage_is_a_table_and_a_picture() -> None:
    """Each outcome says in words by what it was reached, or that it was not."""
    found = Parsed(page(example()))
    assert found.texts["li"][:6] == [
        "✓ hit",
        "✓ miss",
        "stale (excluded)",
        "✓ all ok",
        "✓ one failed (sweep only)",
        "✓ first try",
    ]
    assert "✗ exhausted (not reached)" in found.texts["li"]
    assert found.attribute("img", "alt") == [
        "The workflow answer; the table beside it tells the same"
    ]
    assert "14 of 19 outcomes of primitives are reached, 73 %." in found.texts["p"]


def test_tab_of_the_browser_says_what_came_out() -> None:
    """The title is the result."""
    assert Parsed(page(example())).texts["title"] == [
        "2 failed, 1 error, 12 passed, 1 skipped - test report"
    ]
    assert Parsed(page(session())).texts["title"] == ["no tests - test report"]


def test_plain_table_lists_failing_tests_first() -> None:
    """Without scripts the page is a table; what failed is at its top."""
    found = Parsed(page(example()))
    assert found.texts["td"][:4] == ["failed", "", "7214.87 s", "0.021 s"]
    assert found.texts["td"][8:12] == ["error", "", "", "0.004 s"]
    assert found.texts["bdi"][:3] == [
        "tests/support/test_answer.py::test_answers_quote_only_the_customers_own_tickets",
        "tests/shop/test_seats.py::TestHall::test_last_seat_is_sold_once",
        "tests/shop/test_stock.py::test_levels_are_read_from_the_replica",
    ]


def test_plain_page_shows_failure_replay_and_what_ran() -> None:
    """Whoever runs no scripts still sees why a test failed and how to repeat it."""
    tta = item(
        span(0, label="answer", ended_at=3.0, status="failed"),
        span(1, 0, label="llm", fault="fail(OSError())", execution=2),
        span(2, 0, label="wait", ended_at=None, status="unfinished"),
    )
    test = written("test_a.py::test_a", tta, failure="E   no\n", replay="pytest <x>")
    replay, failure, outline = Parsed(page(session(test))).texts["pre"]
    assert (replay, failure) == ("\npytest <x>", "\nE   no\n")
    assert outline.splitlines()[1:] == [
        "answer 0-3 failed",
        "  llm@2 1-2 injected: fail(OSError())",
        "  wait 2- unfinished",
    ]


def test_plain_outline_is_cut() -> None:
    """Of a long run the plain page shows the beginning, and says so."""
    *_, outline = Parsed(page(large(1_000))).texts["pre"]
    assert outline.splitlines()[-1] == "and 800 more"


@pytest.mark.parametrize(
    "word",
    [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ],
)
def test_scripts_never_read_content_as_code(word) -> None:
    """Content becomes text and attributes only, so that it cannot be markup."""
    folder = resources.files("pytest_tta.report.html") / "script"
    found = [one.name for one in folder.iterdir() if word in one.read_text("utf-8")]
    assert found == []


def test_every_script_is_in_the_page() -> None:
    """A file that is forgotten in the list is not only missing, it is seen here."""
    text = page(session())
    folder = resources.files("pytest_tta.report.html") / "script"
    absent = [
        one.name for one in folder.iterdir() if one.read_text("utf-8") not in text
    ]
    assert absent == []
