"""Every case of the semantics has a test that quotes its number."""

from __future__ import annotations

import re

import pytest

from tests.repository.source import every_test

# What was decided before the code was written, area by area. Numbers that are missing
# were merged with others, or dropped.
CASES = {
    "retry": (*range(1, 9), *range(10, 18), 19, 21, 22, 23),
    "timeout": (25, 26, 28, 30, 31, 32, 34, 35),
    "circuit breaker": (*range(36, 44), 45, 47, 48, 50, 51),
    "fallback": (*range(52, 56), 57, 58),
    "cache": (59, 60, 62, *range(64, 70), 71, 72, 74, 75),
    "bulkhead": (76, 77),
    "rate limit": (79, 80, 81),
    "hedge": (83, 84, 86),
    "parallel": (87,),
    "saga": (88, 89, 91),
    "all of them": (92, 93, 95, 97),
}


def quoted(name: str) -> set[int]:
    """Return the numbers of the cases that the name of a test quotes."""
    found = re.search(r"_cases?_(\d+(?:_(?:and_)?\d+)*)", name)
    return set() if found is None else set(map(int, re.findall(r"\d+", found[1])))


@pytest.mark.parametrize("area", CASES)
def test_every_case_is_tested_under_its_number(area: str) -> None:
    """Whoever doubts a behaviour finds its test by the number of the case."""
    tested = set[int]().union(*(quoted(test.name) for _, test in every_test()))
    assert set(CASES[area]) - tested == set()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("test_case_07_at_least_one_call", {7}),
        ("test_cases_36_and_37_windows", {36, 37}),
        ("test_case_59_60_flights", {59, 60}),
        ("test_two_of_3_fail", set()),
    ],
)
def test_numbers_are_read_from_names(name: str, numbers: set[int]) -> None:
    """The search itself works."""
    assert quoted(name) == numbers
