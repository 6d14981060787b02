"""What errors say about HTTP: status, headers, and when to come back."""

from __future__ import annotations

import email.message
import urllib.error
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.recovery.doubles import Boom, Rejected, Response, virtual
from tta_primitives.recovery.hints import header, is_mute, retry_after, status


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (0.5, 0.5),
        (0, 0),
        ("5", 5),
        (" 7 ", 7),
        (timedelta(minutes=1), 60),
        (datetime(2000, 1, 1, 0, 0, 9, tzinfo=UTC), 9),
        ("Sat, 01 Jan 2000 00:01:30 GMT", 90),
        ("Saturday, 01-Jan-00 00:01:30 GMT", 90),
        ("Sat Jan  1 00:01:30 2000", 90),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        ("1e999", None),
        ("soon", None),
        ("", None),
        ("99 Foo 2000 00:00 GMT", None),
        (True, None),
        ([5], None),
        (None, None),
    ],
)
@virtual
async def test_case_11_all_forms_of_a_hint_are_read(clock, value, expected):
    """Seconds and dates (RFC 9110: three formats) count; nonsense is no hint."""
    assert retry_after(Rejected(retry_after=value)) == expected
    if isinstance(value, str):
        assert retry_after(Rejected(response=Response(retry_after=value))) == expected


def test_case_11_milliseconds_are_read_before_seconds():
    """retry-after-ms is the more exact header; a broken one is passed over."""
    both = Response(retry_after="2", retry_after_ms="1500")
    broken = Response(retry_after="2", retry_after_ms="soon")
    assert retry_after(Rejected(response=both)) == 1.5
    assert retry_after(Rejected(response=broken)) == 2


def test_case_11_the_attribute_is_read_before_the_headers():
    """What an error says itself outweighs its response."""
    error = Rejected(retry_after=1, response=Response(retry_after="9"))
    assert retry_after(error) == 1


def test_case_11_a_group_asks_for_the_longest_wait_of_its_leaves():
    """Several branches were told to wait; the slowest decides."""
    leaves = [Rejected(retry_after=3), Boom(), Rejected(retry_after=8)]
    assert retry_after(ExceptionGroup("group", leaves)) == 8
    assert retry_after(ExceptionGroup("group", [Boom()])) is None


def test_httpx_and_urllib_errors_are_understood():
    """Real errors of real clients, with headers in any case."""
    request = httpx.Request("GET", "http://api.test")
    response = httpx.Response(503, headers={"Retry-After": "4"}, request=request)
    one = httpx.HTTPStatusError("busy", request=request, response=response)
    assert (status(one), retry_after(one)) == (503, 4)
    headers = email.message.Message()
    headers["RETRY-AFTER"] = "6"
    other = urllib.error.HTTPError("http://api.test", 429, "slow", headers, None)
    assert (status(other), retry_after(other)) == (429, 6)
    other.close()


def test_an_error_without_an_answer_says_nothing():
    """No attribute, no hint, no status."""
    error = Boom("text")
    assert (status(error), header(error, "date"), retry_after(error)) == (
        None,
        None,
        None,
    )


def test_errors_that_say_nothing_are_told_quickly_and_rightly():
    """Attributes on the instance, the class, in slots or made on demand all count."""

    class OnClass(Exception):
        status_code = 401

    class InSlots(Exception):
        __slots__ = ("retry_after",)

    class OnDemand(Exception):
        def __getattr__(self, name):
            return None

    assert is_mute(Boom())
    told = [
        OnClass(),
        InSlots(),
        OnDemand(),
        Rejected(status=1),
        ExceptionGroup("", [Boom()]),
    ]
    assert [is_mute(error) for error in told] == [False] * 5


def test_a_status_on_a_class_is_not_forgotten_by_the_quick_way():
    """The same type is judged by its attributes each time."""

    class Denied(Exception):
        status_code = 401

    assert status(Denied()) == 401
