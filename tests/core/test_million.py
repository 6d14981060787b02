"""A million mixed calls leave nothing behind: no task, permit, lock or memory."""

from __future__ import annotations

import gc
import sys

import pytest

from tests.core.million import Fleet

# What ten further rounds may add: caches of the interpreter, not one object per call.
FEW_BLOCKS = 3_000


def blocks() -> int:
    """Return how many blocks of memory are in use once garbage is collected."""
    gc.collect()
    return sys.getallocatedblocks()


def soak(fleet: Fleet, *, rounds: int, calls: int) -> None:
    """Make calls in rounds, and look after each for what is left."""
    for _ in range(rounds):
        assert fleet.round(calls) == []
        assert fleet.wrong == []


def test_thousands_of_mixed_calls_leave_nothing_behind() -> None:
    """Every workflow ends in each of the ways that it can, and lets go of all."""
    fleet = Fleet(seed=1)
    soak(fleet, rounds=2, calls=2_000)
    assert sum(fleet.ended.values()) == 4_000
    usual = {"answered", "left", "timed out", "ConnectionError", "ValueError"}
    rejected = {"CircuitOpenError", "BulkheadFullError", "RateLimitExceededError"}
    assert usual | rejected <= set(fleet.ended)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_mixed_calls_leave_nothing_behind() -> None:
    """Memory after a million calls is what it was after the first hundred thousand."""
    fleet = Fleet(seed=2)
    soak(fleet, rounds=10, calls=10_000)
    before = blocks()
    soak(fleet, rounds=90, calls=10_000)
    assert sum(fleet.ended.values()) == 1_000_000
    assert blocks() - before < FEW_BLOCKS
