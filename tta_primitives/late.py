"""Random numbers whose generator is seeded only if somebody asks."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["Late"]


class Late(random.Random):
    """A generator that is seeded when it is first asked: most scopes never ask.

    Args:
        seed: As for `random.Random`.
    """

    _waiting: str | None

    def __init__(self, seed: str) -> None:
        self.begin(seed)

    def begin(self, seed: str) -> None:
        """Begin anew with another seed, or with the same."""
        self._waiting = seed
        self.gauss_next: float | None = None

    def random(self) -> float:
        """Return the next number from 0 to 1."""
        self._seed_now()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        """Return the next `k` bits."""
        self._seed_now()
        return super().getrandbits(k)

    def getstate(self) -> Any:  # noqa: ANN401 - as `random.Random` has it
        """Return the state, for `setstate`."""
        self._seed_now()
        return super().getstate()

    def setstate(self, state: Any) -> None:  # noqa: ANN401 - as above
        """Go on from a state."""
        self._waiting = None
        super().setstate(state)

    def seed(self, a: Any = None, version: int = 2) -> None:  # noqa: ANN401 - as above
        """Begin anew at once."""
        self._waiting = None
        super().seed(a, version)

    def _seed_now(self) -> None:
        if self._waiting is not None:
            self.seed(self._waiting)
