"""The one source of randomness and of identifiers.

Everything random in the primitives (jitter, sampled faults, ids) is asked for here, so
that a test can replace it for a scope and repeat a run exactly.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

__all__ = ["new_id", "rng", "seeded", "using"]


# Made, and its module imported, when somebody first asks: many a process never does.
_process_rng: random.Random | None = None
_scoped_rng: ContextVar[random.Random | None] = ContextVar("tta_rng", default=None)
_scoped_ids: ContextVar[Callable[[], str] | None] = ContextVar("tta_ids", default=None)


def _seed_anew() -> None:
    if _process_rng is not None:
        _process_rng.seed()


# Forked workers would otherwise all draw the same jitter and retry in step.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed_anew)


def rng() -> random.Random:
    """Return the random generator of the current scope."""
    return _scoped_rng.get() or _process_rng or _made()


def _made() -> random.Random:
    import random

    global _process_rng  # noqa: PLW0603 - one for each process
    _process_rng = random.Random()  # noqa: S311 - jitter, not cryptography
    return _process_rng


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
    from tta_primitives.late import Late

    generator, ids = Late(f"{seed}/chance"), Late(f"{seed}/ids")
    with using(generator, lambda: f"{ids.getrandbits(128) | 1:032x}"):
        yield generator
