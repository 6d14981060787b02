"""A schedule means the same in every process and on every interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clock.simulated_trace import digest
from tests.repository.interpreters import interpreters

ROOT = Path(__file__).parents[2]


def printed(python: Path, hash_seed: str) -> str:
    """Return the digest that another process prints."""
    done = subprocess.run(
        [python, "-m", "tests.clock.simulated_trace"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_two_rounds_in_one_process_are_the_same() -> None:
    """Nothing of an execution reaches the next."""
    assert digest(20) == digest(20)


def test_another_process_sees_the_same() -> None:
    """Neither addresses nor the seed of hashes have a say."""
    assert printed(Path(sys.executable), "1") == printed(Path(sys.executable), "2")


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_every_interpreter_sees_the_same(version: tuple[int, int]) -> None:
    """A schedule that was found on one is replayed on another."""
    found = interpreters().get(version)
    if found is None:
        pytest.skip(f"CPython {version[0]}.{version[1]} is not on this machine")
    assert printed(found, "0") == digest()
