"""The local answer: what the best passage itself says, without any model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from examples.answer_service.search import WORD
from tta_primitives import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.answer_service.search import Evidence

__all__ = ["extract"]

_MOST_PARTS = 3
_MOST_CODE_LINES = 40
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
# A list item or a table row is quoted alone; the rule below a table's head, never.
_ROW = re.compile(r"\s*([-*+]|\d+\.|\|)\s")
_RULE = re.compile(r"[\s|:-]+$")


@step
def extract(evidence: Evidence) -> str:
    """Quote from the best passage what has most of the question's words."""
    best = evidence.matches[0]
    parts = list(_parts(best.passage.text))
    chosen = _best_prose(parts, best.words)
    code = _code_from(parts, min(chosen, default=0))
    return "\n\n".join(parts[i] for i in sorted(chosen | code))


def _parts(text: str) -> Iterator[str]:
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


def _is_code(part: str) -> bool:
    return _FENCE.match(part) is not None


def _best_prose(parts: list[str], words: frozenset[str]) -> set[int]:
    """Return the indices of the parts to quote, the earlier one of equals first."""
    scores = {
        i: len(words & set(re.findall(WORD, part.lower())))
        for i, part in enumerate(parts)
        if not _is_code(part)
    }
    ranked = sorted(scores, key=lambda i: (-scores[i], i))
    telling = [i for i in ranked if scores[i]]
    # Only the heading had the words: what is said first below it is what it is about.
    return set(telling[:_MOST_PARTS] or ranked[:1])


def _code_from(parts: list[str], start: int) -> set[int]:
    """Return the index of the first short block of code from a part on, if any."""
    for i, part in enumerate(parts[start:], start):
        if _is_code(part) and part.count("\n") <= _MOST_CODE_LINES:
            return {i}
    return set()
