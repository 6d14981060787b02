"""The text that is searched: the project's documentation, section by section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from examples.answer_service.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOT", "Passage", "is_code", "parts", "read_corpus", "sections"]

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(\S*)")
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
# A list item or a table row is a part of its own; the rule below a table's head, never.
_ROW = re.compile(r"\s*([-*+]|\d+\.|\|)\s")
_RULE = re.compile(r"[\s|:-]+$")
# Directives whose content is no text: tables of contents and generated reference.
_NO_TEXT = re.compile(r"\{(toctree|eval-rst|auto\w+|(literal)?include|contents)\}")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# `[](page)`, `[text](address)`, `{role}`text``, and the lines `(label)=`, `:::{note}`.
_CLEANED = (
    (re.compile(r"\[\]\(([^)]*)\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\{[\w:.-]+\}`~?([^`<]+?)(?:\s*<[^>]*>)?`"), r"`\1`"),
    (re.compile(r"^\([\w-]+\)=\s*$"), ""),
    (re.compile(r"^:{3,}.*$"), ""),
)


@dataclass(frozen=True, slots=True)
class Passage:
    """One section of a page.

    Attributes:
        source: The file, relative to the repository.
        heading: The headings above the text, outermost first: "Retry > Jitter".
        text: The text below the last heading, in Markdown.
    """

    source: str
    heading: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}: {self.heading}"


def read_corpus(root: Path = ROOT) -> list[Passage]:
    """Read README.md and docs/**/*.md below a folder.

    Args:
        root: The repository, wherever the command is started from.

    Raises:
        ServiceError: There is no text at all.
    """
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    passages = [
        passage
        for page in pages
        if page.is_file()
        for passage in sections(
            page.read_text("utf-8"), page.relative_to(root).as_posix()
        )
    ]
    if not passages:
        msg = f"there is no documentation in {root}: no README.md and no docs/*.md"
        raise ServiceError(msg)
    return passages


def sections(markdown: str, source: str) -> Iterator[Passage]:
    """Yield the sections of a page that have any text of their own.

    Args:
        markdown: The page.
        source: What its passages give as their source.
    """
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    for line, is_code in _readable(_COMMENT.sub("", markdown)):
        heading = None if is_code else _HEADING.match(line)
        if heading is None:
            lines.append(line if is_code else _clean(line))
            continue
        yield from _passage(source, above, lines)
        level, title = len(heading[1]), _clean(heading[2])
        above = [(its, text) for its, text in above if its < level]
        above.append((level, title))
        lines = []
    yield from _passage(source, above, lines)


def _passage(
    source: str, above: list[tuple[int, str]], lines: list[str]
) -> Iterator[Passage]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        heading = " > ".join(title for _, title in above) or source
        yield Passage(source, heading, text)


def _readable(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines that say something, each with whether it is code."""
    fence, is_shown = "", True
    for line in markdown.splitlines():
        found = _FENCE.match(line)
        if not fence and found:
            fence, is_shown = found[1], not _NO_TEXT.match(found[2])
            if is_shown:
                yield line, True
        elif fence and line.strip() == fence:
            if is_shown:
                yield line, True
            fence, is_shown = "", True
        elif is_shown:
            yield line, bool(fence)


def _clean(line: str) -> str:
    for pattern, replacement in _CLEANED:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def parts(text: str) -> Iterator[str]:
    """Yield the paragraphs, list items, table rows and blocks of code of a text."""
    part: list[str] = []
    fence = ""
    for line in text.splitlines():
        opening = None if fence else _FENCE.match(line)
        begins = opening or (not fence and _ROW.match(line))
        if part and not fence and (begins or not line.strip()):
            yield "\n".join(part)
            part = []
        if fence or (line.strip() and not _RULE.match(line)):
            part.append(line)
        if fence and line.strip() == fence:
            yield "\n".join(part)
            part, fence = [], ""
        elif opening:
            fence = opening[1]
    if part:
        yield "\n".join(part)


def is_code(part: str) -> bool:
    """Tell whether a part is a block of code."""
    return _FENCE.match(part) is not None
