"""What a lambda has compared is told with its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tta.comparing import sides_of

if TYPE_CHECKING:
    from collections.abc import Callable

limit = 1


class Bank:
    """Has charged two orders."""

    def __init__(self) -> None:
        self.charges = [3, 4]


def checks() -> dict[str, Callable[[], object]]:
    """Return checks as tests write them, by what is told of them."""
    bank, most = Bank(), 1
    return {
        "len(bank.charges) is 2": lambda: len(bank.charges) <= 1,
        "sum(bank.charges) is 7 and most is 1": lambda: sum(bank.charges) < most,
        "bank.charges is [3, 4]": lambda: bank.charges == [3],
        "max(bank.charges, default=0) is 4 and limit is 1": (
            lambda: max(bank.charges, default=0) <= limit
        ),
        "[one for one in bank.charges if one > most] is [3, 4]": (
            lambda: [one for one in bank.charges if one > most] == []
        ),
    }


@pytest.mark.parametrize("told", checks())
def test_the_sides_of_a_comparison_are_told(told: str) -> None:
    """Those that are no constants, with what they are at this moment."""
    assert sides_of(checks()[told]) == told


def test_of_two_lambdas_on_a_line_the_right_one_is_read() -> None:
    """Where a lambda stands is known to the column."""
    one, two = (lambda: limit == 2), (lambda: limit > 3)
    assert (sides_of(one), sides_of(two)) == ("limit is 1", "limit is 1")


def check() -> bool:
    """Check nothing."""
    return False


@pytest.mark.parametrize(
    "silent",
    [
        check,
        lambda: not limit,
        lambda: all(one for one in (limit, 0)),
        lambda: limit.missing == 3,  # type: ignore[attr-defined]
        eval("lambda: limit == 2"),
        print,
    ],
)
def test_nothing_is_told_of_anything_else(silent: Callable[[], object]) -> None:
    """Functions, other expressions, what raises, and what has no source."""
    assert sides_of(silent) == ""


def test_a_long_value_is_cut() -> None:
    """The end of it is left out."""
    long = "x" * 300
    told = sides_of(lambda: long == "y")
    assert told == f"long is '{'x' * 195} ..."


def test_an_operand_that_fails_the_second_time_is_not_told() -> None:
    """A helper of the test may give up; what the check said stays what is told."""
    values = [1]

    def taken() -> int:
        """Return the one value, once."""
        if not values:
            pytest.fail("nothing is left")
        return values.pop()

    looked = lambda: taken() == 2  # noqa: E731 - of lambdas only
    assert looked() is False
    assert sides_of(looked) == ""
