"""What is installed: this distribution, Python, and the libraries of extras."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

__all__ = ["DISTRIBUTION", "Extra", "Library", "describe", "installed_extras"]

DISTRIBUTION = "tta-dev-primitives"
# Extras for those who work on this project, or that gather others.
_NOT_FOR_USERS = {"all", "bench", "dev", "examples", "observability"}
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?([^;]*);.*extra == ['\"]([\w-]+)")
_LEAST = re.compile(r">=([\d.]+)")


@dataclass(frozen=True)
class Library:
    """One library that an extra brings.

    Attributes:
        name: What pip calls it.
        least: The oldest version that will do; empty if any will.
        found: The version that is installed; None if it is not.
    """

    name: str
    least: str
    found: str | None

    @property
    def is_too_old(self) -> bool:
        """Whether it is installed, but in a version that is not supported."""
        return self.found is not None and _order(self.found) < _order(self.least)

    def __str__(self) -> str:
        """Return name and version, and what is wrong with it."""
        if self.found is None:
            return f"{self.name} is missing"
        old = f" (too old: {self.least} is needed)" if self.is_too_old else ""
        return f"{self.name} {self.found}{old}"


@dataclass(frozen=True)
class Extra:
    """One extra, as in `pip install "tta-dev-primitives[redis]"`, and its libraries."""

    name: str
    libraries: tuple[Library, ...]

    @property
    def is_installed(self) -> bool:
        """Whether all of its libraries are there."""
        return all(library.found is not None for library in self.libraries)

    @property
    def is_begun(self) -> bool:
        """Whether some of its libraries are there."""
        return any(library.found is not None for library in self.libraries)

    def __str__(self) -> str:
        """Return a line of the report: what is there, and what to do if it is not."""
        if not self.is_begun:
            return "-"
        wrong = any(lib.found is None or lib.is_too_old for lib in self.libraries)
        command = f": pip install '{DISTRIBUTION}[{self.name}]'" if wrong else ""
        return f"{', '.join(map(str, self.libraries))}{command}"


def installed_extras() -> list[Extra]:
    """Return every extra for users, by name, with what is installed of it.

    Empty if this distribution was not installed, but is run from its folder.
    """
    found: dict[str, list[Library]] = {}
    for requirement in _requirements():
        parts = _REQUIREMENT.match(requirement)
        if parts is None or parts[3] in _NOT_FOR_USERS or parts[1] == DISTRIBUTION:
            continue
        least = _LEAST.search(parts[2])
        library = Library(parts[1], least[1] if least else "", version_of(parts[1]))
        found.setdefault(parts[3], []).append(library)
    return [Extra(name, tuple(libraries)) for name, libraries in sorted(found.items())]


def describe() -> list[str]:
    """Return the versions and the extras as lines of a report."""
    ours = version_of(DISTRIBUTION) or "(run from its folder, not installed)"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    extras = installed_extras()
    width = max((len(extra.name) for extra in extras), default=0)
    return [
        f"{DISTRIBUTION} {ours}",
        f"{python} on {sys.platform}",
        *(["extras:"] if extras else []),
        *(f"  {extra.name:{width}}  {extra}" for extra in extras),
    ]


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution that is installed; None if it is not."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    try:
        return requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []


def _order(text: str) -> tuple[int, ...]:
    """Return the numbers at the front of a version, for comparing."""
    front = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, front[0].split("."))) if front else ()
