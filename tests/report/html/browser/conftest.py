"""A browser without a window, and pages in it that say what went wrong in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.report.html import page as written_page
from tests.report.html.sessions import example
from tests.services import require_browser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from pytest_tta.report.record import SessionRecord

# Those who run tests as root have no other choice; what is shown is our own.
_ARGUMENTS = ["--no-sandbox"]
# A machine may be busy; nothing here takes a tenth of that by itself.
_PATIENCE = 180_000


@dataclass
class Shown:
    """A page in the browser.

    Attributes:
        page: What a test acts on.
        problems: What the browser complained of, and what it asked a network for.
    """

    page: Page
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note whatever is no silent and self-contained page."""
        self.page.on("console", lambda said: self.problems.append(said.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.problems.append(request.url)

    def settle(self) -> None:
        """Wait until what was changed is drawn: two frames."""
        self.page.evaluate(
            "() => new Promise((done) => "
            "requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def click(self, selector: str) -> None:
        """Click what is found first."""
        self.page.locator(selector).first.click()
        self.settle()

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all that is found, each on one line."""
        found = self.page.locator(selector).all_inner_texts()
        return [" ".join(text.split()) for text in found]

    def picked(self) -> str:
        """Return the name of the call that is selected."""
        return self.page.locator(".tree .row[aria-selected=true] .label").inner_text()

    def box(self, selector: str) -> dict[str, float]:
        """Return where the first that is found is drawn."""
        found = self.page.locator(selector).first.bounding_box()
        assert found is not None, f"{selector} is not drawn"
        return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start a browser for all tests of this folder."""
    program = require_browser()
    from playwright.sync_api import sync_playwright

    # It runs workflows, which cannot be where the loop of the driver runs.
    example()
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=program, args=_ARGUMENTS, timeout=_PATIENCE
        )
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """Show sessions; at the end of the test nothing may have gone wrong in a page."""
    opened: list[Shown] = []

    def shown(
        record: SessionRecord, fragment: str = "", width: int = 1440, **options: Any
    ) -> Shown:
        path = tmp_path / f"report-{len(opened)}.html"
        path.write_text(written_page(record), "utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, **options
        )
        context.set_default_timeout(_PATIENCE)
        one = Shown(context.new_page())
        one.watch()
        opened.append(one)
        one.page.goto(path.as_uri() + fragment)
        if options.get("java_script_enabled", True):
            one.settle()
        return one

    yield shown
    problems = [problem for one in opened for problem in one.problems]
    for one in opened:
        one.page.context.close()
    assert problems == []
