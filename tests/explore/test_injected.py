"""Which error a fault raises."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tta.explore.injected import PermanentFailure, error_at, is_injected
from tta_primitives.context import place
from tta_primitives.primitive import StepPrimitive
from tta_primitives.recovery import RetryPrimitive
from tta_primitives.recovery.classify import is_retryable


class Wanting(Exception):
    """An error that cannot be made of one text."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body['error']}")


class Busy(Exception):
    """An error that can."""


class VeryBusy(Busy):
    """One of its kind."""


async def one(number: int) -> int:
    """Return what was given."""
    return number


def error_in(**options: Any) -> BaseException:
    """Return the error of a fault in a retry with these options."""
    step = StepPrimitive(one)
    retry = RetryPrimitive(step, **options)
    position = place(place(None, retry, "retry"), step, "one")
    return error_at("error", "retry/one", 2, position)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, ConnectionError),
        ({"retry_on": (Exception,)}, ConnectionError),
        ({"retry_on": OSError}, ConnectionError),
        ({"retry_on": lambda _: True}, ConnectionError),
        ({"retry_on": (Busy, TimeoutError)}, Busy),
        ({"retry_on": (Wanting, Busy)}, Busy),
        ({"retry_on": (Wanting,)}, ConnectionError),
        ({"retry_on": (VeryBusy, TimeoutError), "give_up_on": Busy}, TimeoutError),
        ({"retry_on": (ExceptionGroup, KeyboardInterrupt)}, ConnectionError),
    ],
)
def test_an_error_is_one_that_the_retry_expects(
    options: dict[str, Any], kind: type[BaseException]
) -> None:
    """If it can be made of one text; a connection that was lost otherwise."""
    error = error_in(**options)
    assert type(error) is kind
    assert "injected at retry/one, call 2" in str(error)
    assert is_injected(error)
    assert not is_injected(kind("of the code itself"))


def test_a_fatal_error_is_not_worth_another_attempt() -> None:
    """It says so in the way that retries read."""
    error = error_at("fatal", "pay", 1, None)
    assert isinstance(error, PermanentFailure)
    assert not is_retryable(error)
