"""Errors of databases that come in groups, as task groups raise them."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from tta_primitives.integrations.sqlalchemy import is_retryable_database_error
from tta_primitives.integrations.sqlalchemy_errors import leaves


class Deadlock(Exception):
    """What a driver raises when a deadlock was found."""

    sqlstate = "40P01"


class Violated(Exception):
    """What a driver raises when a row is there already."""

    sqlstate = "23505"


DEADLOCK = OperationalError("UPDATE", {}, Deadlock())
VIOLATED = IntegrityError("INSERT", {}, Violated())


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([DEADLOCK], True),
        ([DEADLOCK, ExceptionGroup("below", [DEADLOCK])], True),
        ([DEADLOCK, VIOLATED], False),
        ([DEADLOCK, ExceptionGroup("below", [VIOLATED])], False),
    ],
    ids=["one", "all", "not all", "not all below"],
)
def test_a_group_may_be_retried_if_all_in_it_may(errors, expected):
    """One that would come again makes another try pointless."""
    assert is_retryable_database_error(DEADLOCK)
    assert not is_retryable_database_error(VIOLATED)
    assert is_retryable_database_error(ExceptionGroup("all", errors)) is expected


def test_leaves_of_a_group_are_errors_alone():
    """However deep they are."""
    group = ExceptionGroup("all", [DEADLOCK, ExceptionGroup("below", [VIOLATED])])
    assert list(leaves(group)) == [DEADLOCK, VIOLATED]
    assert list(leaves(VIOLATED)) == [VIOLATED]
