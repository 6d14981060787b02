"""What is compared: areas, their cases, and what a probe finds out about a library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = [
    "OURS",
    "Area",
    "Case",
    "Finding",
    "Function",
    "LacksError",
    "Library",
    "NoServerError",
    "Verdict",
    "verdict",
]

OURS = "tta"

Function: TypeAlias = "Callable[..., Awaitable[Any]]"
Verdict: TypeAlias = Literal[
    "keeps", "breaks", "lacks", "absent", "no server", "could not run"
]


class LacksError(Exception):
    """The library has no such thing; the text says what is meant, if need be."""


class NoServerError(Exception):
    """The case needs a server that is not there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out of one probe.

    Attributes:
        verdict: Whether the library keeps the case.
        seen: What was seen instead; empty if it does.
    """

    verdict: Verdict
    seen: str = ""


def verdict(kept: object, seen: object) -> Finding:
    """Return that the case is kept, or else what was seen.

    Args:
        kept: Whether what was seen is right.
        seen: What was seen, for the reader.
    """
    return Finding("keeps") if kept else Finding("breaks", str(seen))


class Library:
    """One library's way of doing what an area is about, as its own pages say.

    What it has no way of doing, its class does not override.

    Attributes:
        name: The head of its column.
        distribution: What is installed; empty for what is part of Python.
    """

    name: ClassVar[str]
    distribution: ClassVar[str] = ""

    @classmethod
    def installed(cls) -> str | None:
        """Return its version, None if it is not installed; empty for Python's own."""
        if not cls.distribution:
            return ""
        try:
            return version(cls.distribution)
        except PackageNotFoundError:
            return None


Probe: TypeAlias = "Callable[[Any], Awaitable[Finding]]"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that can go wrong.

    Attributes:
        key: The name of its probe.
        what: What must hold.
        numbers: The cases of our semantics that it belongs to.
        probe: Finds out about one library.
    """

    key: str
    what: str
    numbers: tuple[int | str, ...]
    probe: Probe

    @property
    def number(self) -> str:
        """Its numbers, as a reader sees them."""
        return ", ".join(map(str, self.numbers))


class Area:
    """A primitive: the libraries that have one, and the cases that it must keep."""

    def __init__(self, title: str, *libraries: type[Library]) -> None:
        self.title = title
        self.libraries = libraries
        self.cases: list[Case] = []

    def case(self, what: str, *numbers: int | str) -> Callable[[Probe], Probe]:
        """Add the case that the function below probes.

        Args:
            what: What must hold, in a sentence.
            numbers: The cases of our semantics.
        """

        def add(probe: Probe) -> Probe:
            self.cases.append(Case(probe.__name__, what, numbers, probe))
            return probe

        return add

    def of(self, name: str) -> Iterator[tuple[type[Library], Case]]:
        """Yield each case with the class of the library of this name."""
        for library in self.libraries:
            if library.name == name:
                for case in self.cases:
                    yield library, case
