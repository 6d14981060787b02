"""What an entry of the zoo is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_tta import op

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tta.explore.outcome import VerdictKind

__all__ = ["Bug", "bounded_op"]


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug: one test body, and two versions of the code that it tests.

    Attributes:
        name: A short name, unique in the zoo.
        title: What goes wrong, in a sentence.
        kinds: What the search may call it; any one of these.
        body: The test, `body(tta, build)`. It passes with both versions as long as
            nothing fails and everything outside is equally fast.
        buggy: What `build` is in the version with the bug.
        corrected: What it is in the version without.
        issue_url: A public report of such a bug; empty if it is folklore.
        uses_primitives: Whether the code under test is made of our primitives.
    """

    name: str
    title: str
    kinds: tuple[VerdictKind, ...]
    body: Callable[[Any, Any], None]
    buggy: Any
    corrected: Any
    issue_url: str = ""
    uses_primitives: bool = False

    def __repr__(self) -> str:
        return self.name


async def bounded_op(label: str, *, seconds: float = 5.0) -> None:
    """Wait for an operation as a client does that has a time limit of its own."""
    async with asyncio.timeout(seconds):
        await op(label)
