"""What is read, what is found, and what is quoted; plain tests of plain code."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from examples.answer_service.corpus import ROOT, Passage, read_corpus, sections
from examples.answer_service.errors import ServiceError
from examples.answer_service.extract import extract
from examples.answer_service.search import Evidence, Index, search
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """
(retry)=
# Retry

See [the design](design.md) and [](cache.md) of {py:class}`RetryPrimitive`.
<!-- not yet -->

```{toctree}
hidden
```

## In code

```python
# no heading
retry()
```

## Nothing here
"""


def test_page_is_split_at_its_headings() -> None:
    """Each section knows the headings above it; code is kept, markup is not."""
    assert list(sections(PAGE, "docs/retry.md")) == [
        Passage(
            "docs/retry.md", "Retry", "See the design and cache.md of `RetryPrimitive`."
        ),
        Passage(
            "docs/retry.md",
            "Retry > In code",
            "```python\n# no heading\nretry()\n```",
        ),
    ]


def test_documentation_of_this_project_is_read() -> None:
    """Whatever the working directory is, it is found next to the example."""
    found = read_corpus()
    assert {passage.source for passage in found} >= {"docs/index.md"}
    assert all((ROOT / passage.source).is_file() for passage in found)


def test_folder_without_documentation_is_told(tmp_path: Path) -> None:
    """A copy of the example alone says what it misses."""
    with pytest.raises(ServiceError, match="there is no documentation in"):
        read_corpus(tmp_path)


async def test_best_passage_has_all_the_words(index: Index) -> None:
    """Words are found in other forms, and a heading counts more than the text."""
    evidence = await search(index).execute("testing retries", WorkflowContext())
    best = evidence.matches[0]
    assert best.passage.heading == "Retry > How to test a retry"
    assert best.words == {"test"}


def test_word_in_code_counts_less_than_one_in_prose() -> None:
    """Each example on a page about testing has "test" in it, whatever it is about."""
    elsewhere = Passage("a.md", "Retry and retry", "```python\ndef test(): ...\n```")
    about = Passage("b.md", "Patience", "Test a retry in virtual time.")
    with Index([elsewhere, about]) as index:
        found = [match.passage for match in index.find(["test", "retry"])]
    assert found == [about, elsewhere]


async def test_quotation_is_what_answers(index: Index) -> None:
    """The paragraph with the question's words is quoted, with the code below it."""
    evidence = Evidence("test a retry", index.find(["test", "retry"]))
    quoted = await extract.execute(evidence, WorkflowContext())
    assert quoted == (
        "Test it in virtual time: an hour of backoff takes no time and is exact.\n\n"
        "```python\nasync def test_retry(tta): ...\n```"
    )


async def test_long_list_is_quoted_in_part() -> None:
    """Of a list or a table only the rows that have the words are quoted."""
    text = (
        "| a | b |\n|---|---|\n| apples | 1 |\n| pears | 2 |\n\n- nuts\n- sweet pears"
    )
    with Index([Passage("docs/fruit.md", "Fruit", text)]) as index:
        evidence = Evidence("pears", index.find(["pear"]))
    quoted = await extract.execute(evidence, WorkflowContext())
    assert quoted == "| pears | 2 |\n\n- sweet pears"


def test_sqlite_without_full_text_search_is_told() -> None:
    """Not every Python has it, and nobody knows what `no such module` means."""

    class WithoutFTS5(sqlite3.Connection):
        def execute(self, sql: str, /) -> sqlite3.Cursor:  # type: ignore[override]
            msg = f"no such module: fts5 {sql!r:.0}"
            raise sqlite3.OperationalError(msg)

    connection = sqlite3.connect(":memory:", factory=WithoutFTS5)
    with pytest.raises(ServiceError, match="was built without FTS5"):
        Index([], connection)
    connection.close()
