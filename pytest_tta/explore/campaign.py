"""Campaigns: time to spend, machines to share it, seeds, and the record of it all.

Seeds come from the test's name and a number, never from a worker or a clock, so that it
makes no difference how many workers there are.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["FORMAT", "Allowance", "Records", "seed_for"]

FORMAT = "tta-exploration/1"


def seed_for(node_id: str, seed: int, number: int) -> int:
    """Return the seed of one round of one test.

    Args:
        node_id: The test.
        seed: That of the session, or of the test's marker.
        number: Which round, from 0.
    """
    text = f"{seed}/{number}/{node_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


class Allowance:
    """Time for exploring, split over tests; what one leaves is there for the next.

    Args:
        seconds: Real time for all of them.
        tests: How many there are.
        workers: How many processes work at the same time.
        now: Reads a clock, in seconds.
    """

    def __init__(
        self, seconds: float, *, tests: int, workers: int, now: Callable[[], float]
    ) -> None:
        self._share = seconds * workers / max(1, tests)
        self._saved = 0.0
        self._now = now

    def begin(self) -> None:
        """Begin with a test, which gets its share and what others have left."""
        self._saved += self._share
        self._until = self._now() + self._saved

    @property
    def is_left(self) -> bool:
        """Whether the test that was begun has time for one more round."""
        return self._now() < self._until

    @property
    def seconds_left(self) -> float:
        """How much time the test that was begun has left."""
        return max(0.0, self._until - self._now())

    def end(self) -> None:
        """End with a test; one that took too long takes it from the next."""
        self._saved = self._until - self._now()


class Records:
    """A file with one line for each test that was explored.

    A line is written as soon as its test is over, so that a machine that is stopped
    leaves what it has done.

    Args:
        path: The file; an earlier one is replaced.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    def write(self, test: str, found: dict[str, Any]) -> None:
        """Write what exploring a test has come to.

        Args:
            test: Its name.
            found: Plain data.

        Raises:
            OSError: It cannot be written.
        """
        line = json.dumps({"format": FORMAT, "test": test, **found}, sort_keys=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
