"""The pictures of the documentation are up to date, and can be read by everybody."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tests.docs.pages import pages
from tests.pictures import __main__ as program
from tests.pictures import svg
from tests.pictures.timing import Bar, Lane, Mark, Timing
from tests.repository.source import ROOT

IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+\.svg)\)")
NAMES = sorted(program.PICTURES)


@pytest.mark.parametrize("name", NAMES)
def test_file_is_what_the_run_draws(name) -> None:
    """A primitive that behaves otherwise has another picture."""
    path = program.FOLDER / f"{name}.svg"
    assert path.read_text("utf-8") == program.PICTURES[name]()


def test_every_file_is_drawn_by_the_program() -> None:
    """None is left over, and none was drawn by hand."""
    assert sorted(path.stem for path in program.FOLDER.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_picture_tells_itself_in_words(name) -> None:
    """It is well-formed, small, and says what it shows to those who cannot see it."""
    path = program.FOLDER / f"{name}.svg"
    root = ET.parse(path).getroot()
    space = {"s": "http://www.w3.org/2000/svg"}
    title, tale = root.find("s:title", space), root.find("s:desc", space)
    assert root.get("role") == "img"
    if title.get("id") is None:
        # Pictures of workflows share pages, where an id would be there twice.
        assert (root[0], root[1]) == (title, tale)
    else:
        assert root.get("aria-labelledby") == f"{title.get('id')} {tale.get('id')}"
        assert len(title.text) > 20
    assert len(tale.text) > 80
    assert path.stat().st_size < 16_000


def test_every_picture_is_shown_with_a_text_that_stands_for_it() -> None:
    """Each is on a page, and each page says what is to be seen."""
    shown = set()
    for page in pages():
        for words, target in IMAGE.findall(page.path.read_text("utf-8")):
            path = (page.path.parent / target).resolve()
            assert path.exists(), f"{page.name}: {target}"
            assert len(words) > 20, f"{page.name}: {target} needs a text"
            shown.add(path.relative_to(ROOT / "docs" / "pictures").stem)
    assert sorted(shown) == NAMES


def test_no_page_waits_for_a_picture() -> None:
    """The places that were left for pictures are filled."""
    waiting = [
        page.name for page in pages() if "<!-- picture:" in page.path.read_text("utf-8")
    ]
    assert waiting == []


def luminance(colour) -> float:
    """Return the relative luminance of a colour, as the WCAG 2.2 define it."""
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_everything_can_be_told_from_its_ground(which) -> None:
    """Words have the contrast that the WCAG 2.2 ask for: on paper, and in full bars."""
    palette = re.findall(r"svg\{(--paper[^}]*?)(?:font|\})", svg.STYLE)[which]
    colours = dict(re.findall(r"--(\w+):(#\w+)", palette))
    tones = ("good", "bad", "late", "gone", "calm")
    words = ("ink", "soft", *tones)
    assert {
        n: contrast(colours[n], colours["paper"])
        for n in words
        if contrast(colours[n], colours["paper"]) < 4.5
    } == {}
    full = ("good", "bad", "late")
    assert [n for n in full if contrast(colours[n], colours["on"]) < 4.5] == []


def drawn(*lanes):
    return Timing("A title", "code()", list(lanes), end=4, step=1).drawn()


def test_words_that_do_not_fit_stand_beside_their_bar() -> None:
    """A bar is never wider than its time."""
    wide = drawn(Lane("a", [Bar(0, 4, "ok", "words")]))
    narrow = drawn(Lane("a", [Bar(0, 0.2, "ok", "words")]))
    assert '<text x="151" y="69" class="on">words</text>' in wide
    assert 'class="word good small">words</text>' in narrow


def test_lanes_are_told_in_words() -> None:
    """The description names what happened, and when."""
    lane = Lane("fetch", [Bar(0, 1.5, "failed", "Boom")], [Mark(2, "given up")])
    assert lane.tale() == "fetch: failed from 0 s to 1.5 s (Boom), given up at 2 s."


def test_words_are_escaped() -> None:
    """Code may have signs that mean something in XML."""
    ET.fromstring(drawn(Lane("a < b & c", [Bar(0, 4, "ok", '"<x>"')])))
