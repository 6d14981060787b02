"""Photograph the page for the documentation: `python -m tests.report.html.screens`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_tta.report.html import page
from tests.report.html.sessions import example
from tests.services import require_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["FOLDER", "SCREENS", "main"]

FOLDER = Path(__file__).parents[3] / "docs" / "screens"


class Screen(NamedTuple):
    """A photograph: the theme, the size, and what is pressed before."""

    scheme: str
    size: tuple[int, int]
    keys: tuple[str, ...] = ()
    fragment: str = ""
    clicked: str = ""


SCREENS = {
    "report": Screen("light", (1200, 590), ("End", "k", "Enter")),
    "report-dark": Screen("dark", (1200, 640), ("]",)),
    "report-small": Screen("light", (390, 760), clicked=".entry:nth-child(2)"),
    "report-coverage": Screen("light", (1200, 600), fragment="#coverage"),
}


def main() -> int:
    """Write the files."""
    program = require_browser()
    text = page(example())
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder, "report.html")
        path.write_text(text, "utf-8")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, screen in SCREENS.items():
            (FOLDER / f"{name}.png").write_bytes(_photograph(browser, path, screen))
        browser.close()
    sys.stdout.write(f"{len(SCREENS)} screens are photographed.\n")
    return 0


def _photograph(browser: Browser, path: Path, screen: Screen) -> bytes:
    width, height = screen.size
    shown = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=screen.scheme
    )
    shown.goto(path.as_uri() + screen.fragment)
    if screen.clicked:
        shown.locator(screen.clicked).click()
    if screen.keys[:1] == ("End",):
        shown.locator(".tree").focus()
    for key in screen.keys:
        shown.keyboard.press(key)
    shown.wait_for_timeout(300)
    picture = shown.screenshot()
    shown.close()
    return picture


if __name__ == "__main__":
    sys.exit(main())
