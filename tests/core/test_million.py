"""A million mixed calls leave nothing behind: no task, permit, lock or memory."""

from __future__ import annotations

import gc
import logging
import sys

import pytest

from tests.core.million import Fleet

# What 900 000 calls may add. Where a primitive is seldom used it knows the loop of an
# earlier round, and that its clock, with the log of that round's sleeps: 9 000 blocks.
FEW_BLOCKS = 30_000


def blocks(fleet: Fleet) -> int:
    """Return how many blocks of memory are in use once garbage is collected."""
    soak(fleet, rounds=3, calls=100)
    gc.collect()
    return sys.getallocatedblocks()


@pytest.fixture(autouse=True)
def _silence():
    """Say nothing: pytest keeps what is logged, with all frames of its tracebacks."""
    logger = logging.getLogger("tta_primitives")
    logger.disabled = True
    yield
    logger.disabled = False


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
    soak(fleet, rounds=100, calls=1_000)
    before = blocks(fleet)
    soak(fleet, rounds=900, calls=1_000)
    assert sum(fleet.ended.values()) > 1_000_000
    assert blocks(fleet) - before < FEW_BLOCKS
