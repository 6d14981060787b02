"""What the page looks like: themes, small screens, paper, without scripts, for all."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.report.html.sessions import HOSTILE, example, hostile, session, written

DARK = "rgb(21, 25, 32)"
LIGHT = "rgb(255, 255, 255)"
SERIOUS = ("serious", "critical")


def paper_of(shown):
    """Return the colour that the article stands on."""
    return shown.page.locator("#article").evaluate(
        "e => getComputedStyle(e).backgroundColor"
    )


def serious(shown):
    """Return what axe-core finds that matters, as its names and where."""
    found = Axe().run(shown.page).response["violations"]
    return [
        (one["id"], node["target"], node["failureSummary"])
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"][:3]
    ]


def overflow(shown):
    """Return how far the page is wider than the screen."""
    return shown.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


@pytest.mark.parametrize(("scheme", "colour"), [("light", LIGHT), ("dark", DARK)])
def test_theme_is_that_of_the_system(show, scheme, colour) -> None:
    """Whoever has a dark desktop gets a dark page."""
    assert paper_of(show(example(), color_scheme=scheme)) == colour


def test_theme_can_be_switched(show) -> None:
    """By the button and by a key, and it says what it would do."""
    shown = show(example(), color_scheme="light")
    shown.page.get_by_role("button", name="Switch to dark").click()
    assert paper_of(shown) == DARK
    shown.press("t")
    assert paper_of(shown) == LIGHT


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(show, scheme) -> None:
    """axe-core finds nothing serious: with a panel, a search, the help, no tests."""
    shown = show(example(), color_scheme=scheme)
    assert serious(shown) == []
    shown.press("/")
    shown.page.keyboard.type("seat")
    shown.settle()
    assert serious(shown) == []
    shown.press("Escape", "?")
    assert serious(shown) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it_on_a_small_screen(show, scheme) -> None:
    """The list, a test and the panel over it."""
    shown = show(example(), width=390, color_scheme=scheme)
    assert serious(shown) == []
    shown.click(".entry")
    shown.press("Enter")
    assert shown.page.locator("#details").is_visible()
    assert serious(shown) == []


def test_everybody_can_use_it_without_scripts(show) -> None:
    """The plain page is as good."""
    shown = show(example(), java_script_enabled=False)
    assert shown.page.get_by_role("heading", name="Test report").is_visible()
    assert shown.page.locator("#app").is_hidden()
    rows = shown.page.locator("tbody tr").all_inner_texts()
    assert rows[0].split("\t") == [
        "failed",
        "tests/support/test_answer.py::test_answers_quote_only_the_customers_own_tickets",
        "7214.87 s",
        "0.021 s",
    ]
    assert overflow_without_scripts(shown) <= 0


def overflow_without_scripts(shown):
    """Return how far the plain page is wider than the screen."""
    return shown.page.locator("#plain").bounding_box()["width"] - 1_440


def test_plain_page_stays_if_the_record_cannot_be_read(show, tmp_path) -> None:
    """A file that was cut short still shows its table."""
    shown = show(example())
    path = tmp_path / "report-0.html"
    text = path.read_text("utf-8").replace('id="record">{', 'id="record">', 1)
    path.write_text(text, "utf-8")
    shown.page.reload()
    shown.settle()
    assert shown.page.locator("#plain").is_visible()
    assert shown.page.locator("#app").is_hidden()
    assert len(shown.problems) == 1
    shown.problems.clear()


@pytest.mark.parametrize("record", [example, hostile], ids=["example", "hostile"])
def test_small_screen_is_wide_enough(show, record) -> None:
    """Nothing makes the page scroll sideways: the list, a test, the panel, the help."""
    shown = show(record(), width=390)
    assert overflow(shown) == 0
    assert shown.page.locator("#article").is_hidden()
    shown.click(".entry")
    assert overflow(shown) == 0
    assert shown.page.locator("#tests").is_hidden()
    article = shown.page.locator("#article")
    assert article.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    shown.press("Enter")
    assert overflow(shown) == 0
    assert shown.box("#details")["width"] <= 390
    shown.press("Escape", "?")
    assert overflow(shown) == 0
    shown.press("Escape")
    shown.page.get_by_role("button", name="Back to the tests").click()
    assert shown.page.locator("#tests").is_visible()


def test_row_of_a_small_screen_has_its_bar_below_the_name(show) -> None:
    """There the timeline takes the whole width."""
    shown = show(example(), width=390)
    shown.click(".entry")
    name, bar = shown.box(".tree .row .label"), shown.box(".tree .row .bar")
    assert bar["y"] > name["y"] + 10
    assert bar["width"] > 300


def test_paper_shows_failing_runs_and_no_controls(show) -> None:
    """Each failing test has its text, command and bars; nothing else is there."""
    shown = show(example(), color_scheme="dark")
    shown.page.emulate_media(media="print")
    shown.settle()
    paper = shown.page.locator("#paper")
    assert paper.locator("h2").all_inner_texts() == [
        "tests/support/test_answer.py::test_answers_quote_only_the_customers_own_tickets",
        "tests/shop/test_seats.py::TestHall::test_last_seat_is_sold_once",
        "tests/shop/test_stock.py::test_levels_are_read_from_the_replica",
    ]
    assert paper.locator(".paper-row .bar").count() == 23 + 11
    assert "pytest --tta --tta-seed=7" in paper.inner_text()
    assert shown.page.locator("button:visible, input:visible").count() == 0
    assert paper.evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)"
    shown.page.emulate_media(media="screen")
    shown.settle()
    assert paper.is_hidden()
    assert shown.page.locator("#app").is_visible()


def test_printing_makes_pages(show) -> None:
    """The browser prints what is on paper, not the empty frame."""
    printed = show(example()).page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert 1 <= printed.count(b"/Type /Page\n") <= 4


def test_motion_is_left_out_if_asked(show) -> None:
    """Nothing moves for those who asked their system for that."""
    moving = "e => getComputedStyle(e).transitionDuration"
    shown = show(example(), reduced_motion="reduce")
    assert shown.page.locator("#theme").evaluate(moving) == "0s"
    shown = show(example(), reduced_motion="no-preference")
    assert shown.page.locator("#theme").evaluate(moving) == "0.12s"


def test_hostile_texts_are_shown_and_do_nothing(show) -> None:
    """They stand there as they are, in all views; ten megabytes of them too."""
    shown = show(hostile(10_000_000))
    for key in ("]", "[", "?", "Escape", "/", "Escape"):
        shown.press(key)
    shown.page.emulate_media(media="print")
    shown.settle()
    shown.page.emulate_media(media="screen")
    assert shown.page.evaluate("window.pwned") is None
    assert "<script>window.pwned = 1</script>" in shown.texts("article h2")[0]
    assert HOSTILE[:40] in shown.page.locator(".broken").inner_text()
    assert shown.page.locator("script").count() == 2
    assert overflow(shown) == 0


@pytest.mark.parametrize("width", [1440, 390])
def test_coverage_is_shown_as_picture_and_table(show, width) -> None:
    """The address opens it, a link leads back, and everybody can use it."""
    shown = show(example(), "#coverage", width=width)
    picture = shown.page.locator(".picture img")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 200")
    assert shown.texts("#coverage tbody tr")[-1] == (
        "answer/fallback/retry/circuit_breaker/timeout TimeoutPrimitive "
        "✓ in time ✓ expired (sweep only)"
    )
    assert shown.texts("#views a[aria-current]") == ["Coverage 73%"]
    assert serious(shown) == []
    assert overflow(shown) == 0
    shown.page.get_by_role("link", name="Tests").click()
    shown.settle()
    assert shown.page.locator("#tests").is_visible()
    assert shown.page.locator("#covered").is_hidden()


def test_hostile_names_in_a_picture_do_nothing(show) -> None:
    """A picture is an image, in which nothing can run."""
    shown = show(hostile(), "#coverage")
    assert (
        shown.page.locator(".picture img").evaluate("image => image.naturalWidth") > 0
    )
    assert shown.page.evaluate("window.pwned") is None
    assert overflow(shown) == 0


def test_text_from_right_to_left_stays_in_its_place(show) -> None:
    """The file is below the name, wherever a name begins."""
    shown = show(session(written("test_a.py::test_\u05e9\u05dc\u05d5\u05dd\u202e[x]")))
    name, file = shown.box(".entry .name"), shown.box(".entry .file")
    assert file["y"] > name["y"]
    assert abs(name["x"] - file["x"]) < 1


def test_policy_stops_what_is_not_of_the_page(show) -> None:
    """Even a script that got in could neither run nor ask a network."""
    shown = show(example())
    shown.page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.pwned = 1'; document.body.append(script); }"
    )
    fetched = "() => fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
    assert shown.page.evaluate(fetched) == "refused"
    assert shown.page.evaluate("window.pwned") is None
    assert all("Content Security Policy" in one for one in shown.problems)
    assert len(shown.problems) >= 2
    shown.problems.clear()
