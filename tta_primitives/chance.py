"""The one source of randomness and of identifiers.

Everything random in the primitives (jitter, sampled faults, ids) is asked for here, so
that a test can replace it for a scope and repeat a run exactly.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Late", "new_id", "rng", "seeded", "using"]


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


_process_rng = random.Random()  # noqa: S311 - jitter, not cryptography
_scoped_rng: ContextVar[random.Random | None] = ContextVar("tta_rng", default=None)
_scoped_ids: ContextVar[Callable[[], str] | None] = ContextVar("tta_ids", default=None)

# Forked workers would otherwise all draw the same jitter and retry in step.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process_rng.seed)


def rng() -> random.Random:
    """Return the random generator of the current scope."""
    return _scoped_rng.get() or _process_rng


def new_id() -> str:
    """Return a new identifier of 32 hexadecimal digits, never all zero."""
    make = _scoped_ids.get()
    return os.urandom(16).hex() if make is None else make()


@contextmanager
def using(generator: random.Random, ids: Callable[[], str]) -> Iterator[None]:
    """Use this generator and this factory of ids in the current scope.

    Args:
        generator: What `rng` returns inside.
        ids: What `new_id` calls inside.
    """
    rng_token = _scoped_rng.set(generator)
    ids_token = _scoped_ids.set(ids)
    try:
        yield
    finally:
        _scoped_ids.reset(ids_token)
        _scoped_rng.reset(rng_token)


@contextmanager
def seeded(seed: int | str) -> Iterator[random.Random]:
    """Draw chance and ids from generators with this seed in the current scope.

    Ids have a generator of their own: asking for one more id does not change the
    jitter that follows.

    Args:
        seed: Equal seeds give equal draws on every interpreter and platform.

    Yields:
        The generator that `rng` returns inside.
    """
    generator, ids = Late(f"{seed}/chance"), Late(f"{seed}/ids")
    with using(generator, lambda: f"{ids.getrandbits(128) | 1:032x}"):
        yield generator
