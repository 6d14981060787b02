"""The local answer: what the best passage itself says, without any model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from examples.answer_service.corpus import is_code, parts
from examples.answer_service.search import WORD
from tta_primitives import step

if TYPE_CHECKING:
    from examples.answer_service.search import Evidence

__all__ = ["extract"]

_MOST_PARTS = 3
_MOST_CODE_LINES = 40


@step
def extract(evidence: Evidence) -> str:
    """Quote from the best passage what has most of the question's words."""
    best = evidence.matches[0]
    found = list(parts(best.passage.text))
    chosen = _best_prose(found, best.words)
    code = _code_from(found, min(chosen, default=0))
    return "\n\n".join(found[i] for i in sorted(chosen | code))


def _best_prose(found: list[str], words: frozenset[str]) -> set[int]:
    """Return the indices of the parts to quote, the earlier one of equals first."""
    scores = {
        i: len(words & set(re.findall(WORD, part.lower())))
        for i, part in enumerate(found)
        if not is_code(part)
    }
    ranked = sorted(scores, key=lambda i: (-scores[i], i))
    telling = [i for i in ranked if scores[i]]
    # Only the heading had the words: what is said first below it is what it is about.
    return set(telling[:_MOST_PARTS] or ranked[:1])


def _code_from(found: list[str], start: int) -> set[int]:
    """Return the index of the first short block of code from a part on, if any."""
    for i, part in enumerate(found[start:], start):
        if is_code(part) and part.count("\n") <= _MOST_CODE_LINES:
            return {i}
    return set()
