"""What the tests share: two pages of documentation, and the workflow over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.answer_service.answer import build_workflow
from examples.answer_service.corpus import sections
from examples.answer_service.search import Index, search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.answer_service.answer import Answer
    from pytest_tta import LLMDouble
    from tta_primitives import WorkflowPrimitive

PAGES = {
    "docs/retry.md": """
# Retry

A retry executes a step again after a failure that may pass.

## How to test a retry

Test it in virtual time: an hour of backoff takes no time and is exact.

```python
async def test_retry(tta): ...
```
""",
    "docs/cache.md": """
# Cache

A cache remembers what a step returned for a number of seconds.
""",
}


@pytest.fixture
def index() -> Iterator[Index]:
    """Return the real full-text index, over two pages."""
    passages = [
        passage
        for source, markdown in PAGES.items()
        for passage in sections(markdown, source)
    ]
    with Index(passages) as index:
        yield index


@pytest.fixture
def answer(index: Index, tta_llm: LLMDouble) -> WorkflowPrimitive[str, Answer]:
    """Return the real workflow; only the model says what a test scripts."""
    return build_workflow(search=search(index), model=tta_llm.primitive("model"))
