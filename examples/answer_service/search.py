"""Finding the passages that may answer a question, in SQLite's full-text index."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from examples.answer_service.corpus import Passage, is_code, parts
from examples.answer_service.errors import (
    NothingFoundError,
    QuestionError,
    ServiceError,
)
from tta_primitives import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["WORD", "Evidence", "Index", "Match", "search", "words"]

# As the index splits text: an underscore separates words.
WORD = re.compile(r"[^\W_]+")

# Porter stems, so that "retries" finds "retry".
_CREATE = """
    CREATE VIRTUAL TABLE passages
    USING fts5(source UNINDEXED, heading, prose, text, tokenize='porter')
"""
_INSERT = "INSERT INTO passages VALUES (?, ?, ?, ?)"
# A word in a heading is worth twelve in the prose.
_SELECT = """
    SELECT source, heading, text, highlight(passages, 2, char(2), char(3))
    FROM passages WHERE passages MATCH ?
    ORDER BY bm25(passages, 0.0, 12.0, 1.0, 0.1) LIMIT ?
"""
# Passages with all of the words come first, then those that have some of them only in
# code: on pages about testing each example has the word "test" in it.
_QUERIES = (("{heading prose} : (%s)", " AND "), ("%s", " AND "), ("%s", " OR "))
_MARKED = re.compile("\x02(.*?)\x03")
_COMMON = (
    "a about after all an and any are as at be by can could do does for from get had "
    "happen happens has have how i if in into is it its long many me much must my no "
    "not of off on one or our out over several should so some tell than that the "
    "their them then there these they this to too us use used using want was way we "
    "were what when where which while who why will with would you your"
)


@dataclass(frozen=True, slots=True)
class Match:
    """A passage that was found.

    Attributes:
        passage: The passage.
        words: The question's words as they stand in it, in lower case.
    """

    passage: Passage
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A question with what was found for it, the best first."""

    question: str
    matches: tuple[Match, ...]


class Index:
    """A full-text index in memory, for the thread that makes it.

    Args:
        passages: What can be found.
        connection: The database that it is made in; one in memory unless given.

    Raises:
        ServiceError: This SQLite was built without FTS5.
    """

    def __init__(
        self,
        passages: Iterable[Passage],
        connection: sqlite3.Connection | None = None,
    ) -> None:
        self._connection = connection or sqlite3.connect(":memory:")
        try:
            self._connection.execute(_CREATE)
        except sqlite3.OperationalError as error:
            if "fts5" not in str(error):
                raise
            msg = (
                f"SQLite {sqlite3.sqlite_version} of this Python was built without "
                "FTS5, the full-text search that this example needs"
            )
            raise ServiceError(msg) from error
        self._connection.executemany(_INSERT, map(_row, passages))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def find(self, wanted: Iterable[str], limit: int = 3) -> tuple[Match, ...]:
        """Return the best passages, those that have all of the words first.

        Args:
            wanted: Words to look for.
            limit: How many passages at most.
        """
        quoted = [f'"{word}"' for word in wanted]
        found: dict[Passage, Match] = {}
        for query, operator in _QUERIES:
            for match in self._query(query % operator.join(quoted), limit):
                found.setdefault(match.passage, match)
        return tuple(found.values())[:limit]

    def _query(self, query: str, limit: int) -> Iterator[Match]:
        rows = self._connection.execute(_SELECT, (query, limit))
        for source, heading, text, marked in rows:
            hits = frozenset(hit.lower() for hit in _MARKED.findall(marked))
            yield Match(Passage(source, heading, text), hits)


def _row(passage: Passage) -> tuple[str, str, str, str]:
    prose = "\n".join(part for part in parts(passage.text) if not is_code(part))
    return passage.source, passage.heading, prose, passage.text


def words(question: str) -> list[str]:
    """Return the words of a question that are worth looking for.

    Raises:
        QuestionError: There are none.
    """
    found = re.findall(WORD, question.lower())
    common = _COMMON.split()
    telling = [word for word in dict.fromkeys(found) if word not in common]
    if not telling:
        msg = f"{question!r} has no word to look for; name what the question is about"
        raise QuestionError(msg)
    return telling


@step
def search(question: str, index: Index) -> Evidence:
    """Find passages for a question; `search(index)` binds the index.

    In memory that takes less than a millisecond, so it needs no thread.

    Raises:
        NothingFoundError: No passage has any of the question's words.
    """
    matches = index.find(words(question))
    if not matches:
        msg = f"the documentation says nothing about {', '.join(words(question))}"
        raise NothingFoundError(msg)
    return Evidence(question, matches)
