"""Finding a test and a call: list, filter, search, address and keys."""

from __future__ import annotations

from tests.report.html.sessions import example, item, session, span, written

FAILED = (
    "tests/support/test_answer.py::test_answers_quote_only_the_customers_own_tickets"
)
NEEDED = (
    "is_free of Bob begins before take_seat of Ada "
    "at tests/shop/test_seats.py:41 in buy: if not await hall.is_free(buyer):"
)


def three():
    """Return three failing tests, each of which says something in another place."""
    slow = span(1, 0, path="shop/ledger", label="ledger", status="timed_out")
    said = span(1, 0, messages=[{"role": "user", "text": "Where is my Parcel?"}])
    wrong = span(1, 0, error={"type": "LookupError", "message": "no such voucher"})
    return session(
        *(
            written(f"test_{name}.py::test_it", item(span(0), one), outcome="failed")
            for name, one in (("path", slow), ("said", said), ("error", wrong))
        )
    )


def names(shown):
    """Return the names of the tests that are listed."""
    return shown.texts(".entry .name")


def title(shown):
    """Return the name of the test that is shown."""
    return shown.page.locator("article h2").inner_text()


def address(shown):
    """Return what the address says after the name of the file."""
    return shown.page.evaluate("decodeURIComponent(location.hash)")


def test_failing_tests_come_first(show) -> None:
    """Failed, then errors, then those that passed in their order, then skipped ones."""
    shown = show(example())
    assert names(shown)[:4] == [
        "test_answers_quote_only_the_customers_own_tickets",
        "TestHall · test_last_seat_is_sold_once",
        "test_levels_are_read_from_the_replica",
        "test_retries_a_reset",
    ]
    assert names(shown)[-1] == "test_bins"
    assert title(shown) == "test_answers_quote_only_the_customers_own_tickets"


def test_outcomes_are_counted_and_filter(show) -> None:
    """Each button says how many there are, and shows those alone."""
    shown = show(example())
    assert shown.texts(".outcome") == [
        "all 16",
        "failed 2",
        "error 1",
        "passed 12",
        "skipped 1",
    ]
    shown.page.get_by_role("button", name="skipped 1").click()
    shown.settle()
    assert names(shown) == ["test_bins"]
    assert shown.texts("#found") == ["1 of 16 tests"]
    pressed = shown.page.locator(".outcome[aria-pressed=true]")
    assert pressed.inner_text().split() == ["skipped", "1"]
    shown.page.get_by_role("button", name="all 16").click()
    shown.settle()
    assert len(names(shown)) == 16


def test_search_looks_into_paths_errors_and_messages(show) -> None:
    """Whatever a test did is found, in small or large letters, all words of it."""
    shown = show(three())
    for query, found in (
        ("shop/ledger", ["test_path.py"]),
        ("PARCEL where", ["test_said.py"]),
        ("lookuperror voucher", ["test_error.py"]),
        ("timed out", ["test_path.py"]),
        ("test_it", ["test_path.py", "test_said.py", "test_error.py"]),
        ("parcel voucher", []),
    ):
        shown.page.locator("#query").fill(query)
        shown.settle()
        assert shown.texts(".entry .file") == found, query
    assert shown.texts("#found") == ["No test is like this."]


def test_search_looks_into_problems(show) -> None:
    """These too are found in small or large letters."""
    noticed = item(span(0), problems=["Task-2 was never awaited"])
    shown = show(session(written("test_a.py::test_a", noticed)))
    shown.page.locator("#query").fill("Task-2 never")
    shown.settle()
    assert names(shown) == ["test_a"]


def test_search_marks_the_calls_that_were_found(show) -> None:
    """The test is shown, its calls are marked, and Enter goes from one to the next."""
    shown = show(example())
    shown.press("/")
    shown.page.keyboard.type("price_history")
    shown.settle()
    assert shown.texts(".row.hit .label") == ["price_history"] * 3
    shown.press("Enter")
    first = shown.page.locator(".row[aria-selected=true]").get_attribute("id")
    shown.press("Enter")
    second = shown.page.locator(".row[aria-selected=true]").get_attribute("id")
    assert (first, second) == ("call-6", "call-7")
    shown.press("Escape")
    assert shown.page.locator("#query").input_value() == ""
    assert shown.page.locator(".row.hit").count() == 0
    assert len(names(shown)) == 16


def test_search_goes_backward_from_a_call_that_was_not_found(show) -> None:
    """The first step back leads to the last call that was found, not past it."""
    shown = show(example())
    shown.press("/")
    shown.page.keyboard.type("price_history")
    shown.settle()
    shown.page.locator(".tree").focus()
    shown.press("Home", "N")
    selected = shown.page.locator(".row[aria-selected=true]")
    assert selected.get_attribute("id") == "call-8"
    shown.press("N")
    assert selected.get_attribute("id") == "call-7"


def test_keys_go_through_the_tests(show) -> None:
    """j, k and the arrows move in the list, brackets from everywhere; Enter opens."""
    shown = show(example())
    shown.page.locator("#tests").focus()
    shown.press("j")
    assert title(shown) == "TestHall · test_last_seat_is_sold_once"
    shown.press("ArrowUp")
    assert title(shown) == "test_answers_quote_only_the_customers_own_tickets"
    shown.press("End")
    assert title(shown) == "test_bins"
    shown.press("[", "[")
    assert title(shown) == "test_rounds[π]"
    shown.press("Home", "Enter")
    assert shown.page.evaluate("document.activeElement.className") == "tree"


def test_address_keeps_the_test_and_the_call(show) -> None:
    """Whoever is sent the address sees the same."""
    shown = show(example())
    shown.page.locator("#tests").focus()
    shown.press("Enter", "Home", "j")
    assert shown.picked() == "cache"
    assert address(shown) == f"#test={FAILED}&call=1"
    shown.page.reload()
    shown.settle()
    assert shown.picked() == "cache"
    assert shown.page.locator("#details h3").inner_text() == "cache"


def test_address_that_leads_nowhere_shows_the_first_test(show) -> None:
    """Neither an unknown test nor an unknown call nor nonsense breaks the page."""
    for fragment in (
        "#test=gone&call=3",
        "#%E0%A4%A",
        "#test=",
        f"#test={FAILED}&call=999",
    ):
        shown = show(example(), fragment)
        assert title(shown) == "test_answers_quote_only_the_customers_own_tickets"


def test_address_that_is_changed_is_followed(show) -> None:
    """Going back and forth in the browser goes back and forth in the tests."""
    shown = show(example())
    shown.click(".entry:nth-child(2)")
    shown.click(".entry:nth-child(1)")
    shown.page.go_back()
    shown.settle()
    assert title(shown) == "TestHall · test_last_seat_is_sold_once"


def test_attempts_of_one_test_are_told_apart(show) -> None:
    """A test that was run again is listed for each attempt, each with its address."""
    twice = [
        written("test_a.py::test_a", outcome="failed", failure="E  first", attempt=1),
        written("test_a.py::test_a", outcome="failed", failure="E  second", attempt=2),
    ]
    shown = show(session(*twice))
    assert shown.texts(".entry .tags") == ["", "attempt 2"]
    shown.click(".entry:nth-child(2)")
    assert shown.page.locator(".broken").inner_text() == "second"
    assert address(shown) == "#test=test_a.py::test_a&attempt=2"
    shown.page.reload()
    shown.settle()
    assert shown.page.locator(".broken").inner_text() == "second"


def test_command_is_copied(show) -> None:
    """The button puts the command where it can be pasted from, and says so."""
    shown = show(session(written("a", outcome="failed", replay="pytest --tta 'a'")))
    shown.page.get_by_role("button", name="Copy the command").click()
    shown.page.locator(".replay .done").wait_for()
    shown.page.locator("#query").focus()
    shown.press("ControlOrMeta+v")
    assert shown.page.locator("#query").input_value() == "pytest --tta 'a'"


def test_failure_is_told_before_the_timeline(show) -> None:
    """What broke, the command and the faults stand above, the whole text below."""
    shown = show(example())
    assert shown.texts(".broken .what") == [
        "ValueError: the answer quotes ticket 4711, which belongs to another customer"
    ]
    assert shown.texts(".replay code")[0].startswith("pytest --tta --tta-seed=7 ")
    assert shown.texts(".struck .link") == [
        "price_history",
        "price_history@2",
        "writer",
        "writer@2",
        "writer@3",
    ]
    shown.page.locator(".struck .link").nth(1).click()
    shown.settle()
    assert shown.page.locator("#details h3").inner_text() == "price_history@2"
    errors = shown.texts(".failure .is-error")
    assert errors[0].startswith("E ValueError: the answer quotes")


def test_what_exploring_found_is_told(show) -> None:
    """The verdict and its place are above, how far exploring came is below."""
    shown = show(example())
    shown.press("]")
    assert shown.texts(".broken p") == [
        "Exploring found: assertion",
        "AssertionError: no seat is sold twice: assert -1 >= 0",
        "tests/shop/test_seats.py:58",
        "What it takes",
        NEEDED,
    ]
    assert shown.texts(".summary") == [
        "11 calls · 1.7 s virtual · what exploring found"
    ]
    article = shown.texts("article")[0]
    assert "231 executions, 4 rounds, 3 faults reached" in article
    assert "Not reached: buy/pay:timeout" in article


def test_test_without_a_timeline_says_why(show) -> None:
    """A test that passed has one only if it was asked for."""
    shown = show(session(written("test_a.py::test_a")))
    assert shown.texts(".hint") == [
        "This test did not use the plugin, so there is no timeline."
    ]


def test_session_without_tests_is_a_page(show) -> None:
    """There is nothing to see, and nothing breaks."""
    shown = show(session())
    assert shown.texts(".outcome") == ["all 0"]
    shown.press("j", "]", "?", "Escape", "/")


def test_thousands_of_tests_are_listed_as_needed(show) -> None:
    """The list draws what can be seen; all of it can be reached."""
    shown = show(session(*(written(f"test_a.py::test_{i}") for i in range(5_000))))
    assert shown.page.locator(".entry").count() < 60
    shown.page.locator("#tests").focus()
    shown.press("End")
    assert title(shown) == "test_4999"
    assert shown.page.locator(".entry[aria-selected=true]").is_visible()


def test_help_lists_the_keys(show) -> None:
    """`?` opens it, Escape closes it, and meanwhile keys do nothing else."""
    shown = show(example())
    shown.press("?")
    dialog = shown.page.get_by_role("dialog", name="Keys")
    assert "zoom to the call" in dialog.inner_text()
    shown.press("]")
    assert title(shown) == "test_answers_quote_only_the_customers_own_tickets"
    shown.press("Escape")
    assert dialog.count() == 0


def test_escape_closes_the_help_alone(show) -> None:
    """What was found stays found."""
    shown = show(three())
    shown.page.locator("#query").fill("parcel")
    shown.page.locator("#tests").focus()
    shown.press("?", "Escape")
    assert shown.page.get_by_role("dialog", name="Keys").count() == 0
    assert names(shown) == ["test_it"]
