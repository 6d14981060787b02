"""Checks of constructor arguments: what passes, and what the messages say."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from tta_primitives import arguments


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (1e-9, 1e-9)],
)
def test_durations_become_seconds(value, expected) -> None:
    """Numbers and timedeltas, always as a float."""
    result = arguments.seconds("ttl", value)
    assert (result, type(result)) == (expected, float)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "ttl=0 must be a positive number of seconds$"),
        (-1.5, ValueError, r"ttl=-1\.5 must be a positive number of seconds$"),
        (timedelta(0), ValueError, r"ttl=0\.0 must be a positive number of seconds$"),
        (math.nan, ValueError, "ttl=nan must be"),
        (math.inf, ValueError, "ttl=inf must be"),
        (True, TypeError, "ttl=True must be a positive number of seconds, not bool"),
        ("5", TypeError, "ttl='5' must be a positive number of seconds, not str"),
        (
            None,
            TypeError,
            "ttl=None must be a positive number of seconds, not NoneType",
        ),
    ],
)
def test_other_durations_are_refused(value, error, message) -> None:
    """Negative, infinite, not a number, or no number at all."""
    with pytest.raises(error, match=message):
        arguments.seconds("ttl", value)


def test_zero_and_infinity_pass_where_they_are_allowed() -> None:
    """The message then says what is allowed."""
    assert arguments.seconds("ttl", 0, zero=True) == 0.0
    assert arguments.seconds("ttl", math.inf, infinite=True) == math.inf
    with pytest.raises(ValueError, match=r"ttl=-1 must be a non-negative number of s"):
        arguments.seconds("ttl", -1, zero=True)
    with pytest.raises(ValueError, match=r"rate=0 must be a positive number$"):
        arguments.check_number("rate", 0)


@pytest.mark.parametrize("value", [-1, 2.0, True, "3", None])
def test_counts_are_whole_numbers(value) -> None:
    """Neither floats nor booleans count."""
    message = f"n={value!r} must be a whole number of at least 0"
    with pytest.raises(ValueError, match=message):
        arguments.check_count("n", value)


def test_counts_have_a_minimum() -> None:
    """0 unless another is given."""
    assert arguments.check_count("n", 0) == 0
    assert arguments.check_count("n", 2, minimum=2) == 2
    with pytest.raises(ValueError, match="n=1 must be a whole number of at least 2"):
        arguments.check_count("n", 1, minimum=2)


def test_flags_are_true_or_false() -> None:
    """Nothing else is taken for one of them."""
    assert arguments.check_flag("on", False) is False
    assert arguments.check_flag("on", True) is True
    with pytest.raises(TypeError, match="on='yes' must be True or False"):
        arguments.check_flag("on", "yes")


@pytest.mark.parametrize("value", ["ful", None, 3, ["full"]])
def test_choices_are_words(value) -> None:
    """The message lists them."""
    assert arguments.check_choice("jitter", "full", ("full", "none")) == "full"
    with pytest.raises(ValueError, match=r"jitter=.* must be one of 'full', 'none'"):
        arguments.check_choice("jitter", value, ("full", "none"))
