"""The reader of the pages reads them as a reader does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docs.pages import Block, read_page

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# Title

```python
a = 1
```

```{code-block} python
:caption: other.py

b = 2
```

```{literalinclude} ../not_code.py
:pyobject: neither
```

```python
c = a
```
"""


def test_blocks_have_language_file_and_line(tmp_path: Path) -> None:
    """A caption is the name of a file, and directives are no code."""
    path = tmp_path / "page.md"
    path.write_text(PAGE, "utf-8")
    assert read_page(path).blocks == (
        Block("python", None, 4, "a = 1\n"),
        Block("python", "other.py", 10, "b = 2\n"),
        Block("python", None, 18, "c = a\n"),
    )


def test_module_keeps_the_lines_of_the_page(tmp_path: Path) -> None:
    """A traceback names the line on which the code stands in the page."""
    path = tmp_path / "page.md"
    path.write_text(PAGE, "utf-8")
    lines = read_page(path).module().splitlines()
    assert (lines[3], lines[17]) == ("a = 1", "c = a")
    assert len(lines) == 18
