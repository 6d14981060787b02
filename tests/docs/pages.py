"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.repository.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FENCE = re.compile(r"(?P<fence>`{3,})(?:\{code-block\}\s*)?(?P<language>\S*).*$")
_CAPTION = re.compile(r":caption:\s*(\S+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: What stands behind the fence.
        file: Its caption: the file that a reader would put it into; None without.
        line: The line of the page on which the code begins, from 1.
        text: The code.
    """

    language: str
    file: str | None
    line: int
    text: str


@dataclass(frozen=True)
class Page:
    """One page, with its blocks in order."""

    path: Path
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module_name(self) -> str:
        """The name of the module that the page's code is."""
        return "test_" + re.sub(r"\W", "_", self.name.removesuffix(".md").lower())

    def of(self, *languages: str) -> list[Block]:
        """Return the blocks in one of these languages."""
        return [block for block in self.blocks if block.language in languages]

    def module(self) -> str:
        """Return the Python code without a caption as one module.

        Every line has the number that it has on the page, so that a traceback leads
        there.
        """
        lines: list[str] = []
        for block in self.of("python"):
            if block.file is None:
                lines += [""] * (block.line - 1 - len(lines))
                lines += block.text.splitlines()
        return "\n".join(lines) + "\n"

    def files(self) -> dict[str, str]:
        """Return the text of each file that the captions name."""
        found: dict[str, str] = {}
        for block in self.blocks:
            if block.file is not None:
                before = f"{found[block.file]}\n\n" if block.file in found else ""
                found[block.file] = before + block.text
        return found


def read_page(path: Path) -> Page:
    """Return a page with its blocks of code; other directives are left out."""
    return Page(path, tuple(_blocks(path.read_text("utf-8").splitlines())))


def pages() -> list[Page]:
    """Return the README and every page below `docs/`."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    written = [path for path in found if "_build" not in path.parts]
    return [read_page(path) for path in (ROOT / "README.md", *written)]


def _blocks(lines: list[str]) -> Iterator[Block]:
    start = 0
    while start < len(lines):
        found = _FENCE.match(lines[start])
        start += 1
        if found is None:
            continue
        end = lines.index(found["fence"], start)
        if not found["language"].startswith("{"):
            yield _block(found["language"], lines, start, end)
        start = end + 1


def _block(language: str, lines: list[str], start: int, end: int) -> Block:
    file = None
    while start < end and lines[start].startswith(":"):
        caption = _CAPTION.match(lines[start])
        file = caption[1] if caption else file
        start += 1
    while start < end and not lines[start]:
        start += 1
    return Block(language, file, start + 1, "\n".join(lines[start:end]) + "\n")
