"""Campaigns: seeds that depend on names alone, time that is split, records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_tta.explore.campaign import Allowance, Records, seed_for

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_seeds_are_the_same_everywhere() -> None:
    """They come from the test, the session's seed and the round, and nothing else."""
    assert seed_for("test_a.py::test", 0, 0) == 3807715185
    seeds = {seed_for(f"test_{t}", s, n) for t in "ab" for s in (0, 1) for n in (0, 1)}
    assert len(seeds) == 8


def test_time_is_split_over_tests() -> None:
    """Each test may begin a round until its share is over."""
    clock = Clock()
    allowance = Allowance(60, tests=3, workers=1, now=clock)
    allowance.begin()
    clock.now += 19.9
    assert allowance.is_left
    clock.now += 0.1
    assert not allowance.is_left


def test_what_one_test_leaves_is_there_for_the_next() -> None:
    """A test that is over early leaves its time, one that is late takes some."""
    clock = Clock()
    allowance = Allowance(60, tests=3, workers=1, now=clock)
    left = []
    for took in (5, 40, 1):
        allowance.begin()
        clock.now += took - 0.1
        left.append(allowance.is_left)
        clock.now += 0.1
        allowance.end()
    assert left == [True, False, True]
    assert clock.now - 100 == 46


def test_workers_have_the_time_together() -> None:
    """Two processes at work have twice the time for each test."""
    clock = Clock()
    allowance = Allowance(60, tests=3, workers=2, now=clock)
    allowance.begin()
    clock.now += 39
    assert allowance.is_left


def test_records_are_lines_that_are_written_at_once(tmp_path: Path) -> None:
    """Each test is one line of JSON, and an earlier file is replaced."""
    path = tmp_path / "out" / "a.jsonl"
    Records(path).write("test_old", {})
    records = Records(path)
    records.write("test_a", {"executions": 3})
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"format": "tta-exploration/1", "test": "test_a", "executions": 3}
    ]
