"""The page that shows what was found: written here, and read again by its test."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.comparison.cases import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.comparison.cases import Area, Library
    from tests.comparison.running import Findings

__all__ = ["Page", "read", "versions", "written"]

_HEAD = """\
# Who breaks which case

<!-- Made by `python -m tests.comparison`: change the probes, not this page. -->

Each row is a case of what a library of this kind must do. Each cell was found out by a
probe: a small function below `tests/comparison` that uses the library as its own
documentation says, configured as well as it can be for the case. The number leads to
our own test of the case, which has it in its name: `test_case_38_...`. The column `tta`
is this library.

| mark | meaning |
| --- | --- |
| ✓ | the case is kept |
| ✗ | it is broken, twice in a row; what was seen stands below the table |
| - | the library has no such thing |

Figures of time and chance vary from run to run; the verdicts should not. Run the probes
with the libraries that you have installed:

```sh
python -m pip install -e ".[dev,bench]"
python -m tests.comparison
```

It takes half a minute and writes this page anew, so that a library that has become
better is shown so. If a probe does a library wrong, please say so: that is a bug here.
"""
_MARKS = {
    "keeps": "✓",
    "breaks": "✗",
    "lacks": "-",
    "absent": "absent",
    "no server": "no server",
    "could not run": "?",
}


def versions(areas: Sequence[Area]) -> dict[str, str]:
    """Return the version of each library that we are compared with."""
    return {
        _home(library.name): _version(library)
        for area in areas
        for library in area.libraries
        if library.name != OURS
    }


def _home(name: str) -> str:
    """Return the library that a column is about: it may show one of several ways."""
    return "asyncio" if name.startswith("asyncio.") else name.partition(",")[0]


def _version(library: type[Library]) -> str:
    if not library.distribution:
        return f"of Python {platform.python_version()}"
    return library.installed() or "not installed"


def written(areas: Sequence[Area], findings: Findings, of: dict[str, str]) -> str:
    """Return the page.

    Args:
        areas: What is compared.
        findings: What was found out.
        of: The versions of the libraries.
    """
    parts = [_HEAD]
    for area in areas:
        parts += [f"## {area.title}\n", *_table(area, findings), ""]
    return "\n".join([*parts, "## Versions\n", *_versions(of)]) + "\n"


def _versions(of: dict[str, str]) -> Iterator[str]:
    yield "| library | version |"
    yield "| --- | --- |"
    for name, version in of.items():
        yield f"| {name} | {version} |"


def _table(area: Area, findings: Findings) -> Iterator[str]:
    names = [library.name for library in area.libraries]
    yield f"| case | what must hold | {' | '.join(names)} |"
    yield f"| --- | --- |{' :-: |' * len(names)}"
    for case in area.cases:
        marks = [_MARKS[findings[area.title, n, case.key].verdict] for n in names]
        yield f"| {case.number} | {_text(case.what)} | {' | '.join(marks)} |"
    seen = list(_seen(area, findings))
    if seen:
        yield ""
        yield from seen


def _seen(area: Area, findings: Findings) -> Iterator[str]:
    """Yield a line for each case that somebody breaks, with what was seen."""
    for case in area.cases:
        by_text: dict[str, list[str]] = {}
        for library in area.libraries:
            finding = findings[area.title, library.name, case.key]
            if finding.seen:
                by_text.setdefault(_text(finding.seen), []).append(library.name)
        if by_text:
            told = " · ".join(
                f"{' & '.join(names)}: {seen}" for seen, names in by_text.items()
            )
            yield f"- *{_text(case.what)}*: {told}"


def _text(text: str) -> str:
    """Return text for a cell of a table, where nothing in it has a meaning."""
    return re.sub(r"([|<>\[\]*_])", r"\\\1", " ".join(text.split()))


@dataclass
class Page:
    """What a page says.

    Attributes:
        versions: Of each library.
        marks: By the area, the case and the library.
        seen: What was seen instead, by the same.
    """

    versions: dict[str, str] = field(default_factory=dict)
    marks: dict[tuple[str, str, str], str] = field(default_factory=dict)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def comparable(self, other: Page) -> dict[tuple[str, str, str], tuple[str, str]]:
        """Return the marks that must be the same on another page, and what was seen.

        They are about this library, or about one of the same version. Numbers are left
        out, and so are the cases that one of both had no server for.
        """
        return {
            key: (mark, re.sub(r"\d+(\.\d+)?", "#", self.seen.get(key, "")))
            for key, mark in self.marks.items()
            if self._is_same(key[2], other)
            if "no server" not in {mark, other.marks.get(key)}
        }

    def _is_same(self, name: str, other: Page) -> bool:
        home = _home(name)
        return name == OURS or self.versions[home] == other.versions.get(home)


def read(text: str) -> Page:
    """Return what a page says."""
    page, area, names = Page(), "", []
    for line in text.splitlines():
        if line.startswith("## "):
            area, names = line[3:], []
        elif line.startswith("- *"):
            what, told = line[3:].split("*: ", 1)
            for part in told.split(" · "):
                libraries, seen = part.split(": ", 1)
                for name in libraries.split(" & "):
                    page.seen[area, what, name] = seen
        elif area and line.startswith("| ") and not line.startswith("| ---"):
            cells = re.split(r"(?<!\\) \| ", line[2:-2])
            if not names:
                names = cells
            elif area == "Versions":
                page.versions[cells[0]] = cells[1]
            else:
                for name, mark in zip(names[2:], cells[2:], strict=True):
                    page.marks[area, cells[1], name] = mark
    return page
