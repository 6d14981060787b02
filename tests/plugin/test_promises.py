"""What a test says always holds, and what it says is sometimes reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta import Harness, HarnessError

if TYPE_CHECKING:
    from tests.plugin.conftest import Run


def test_an_invariant_is_checked_at_the_end_and_not_before() -> None:
    """What is made good before the end is no problem."""
    paid: list[str] = ["x", "x"]
    with Harness() as tta:
        tta.always(lambda: len(paid) == 1, "paid once")
        paid.pop()


def test_an_invariant_that_does_not_hold_is_named_with_its_line() -> None:
    """The sentence is the news; the line is where the test states it."""
    said = (
        r"invariant does not hold: paid once, stated at tests/plugin/test_promises\.py"
        r":\d+ in test_an_invariant_that_does_not_hold"
    )
    with pytest.raises(HarnessError, match=said), Harness() as tta:
        tta.always(lambda: False, "paid once")


def test_an_invariant_can_consist_of_asserts() -> None:
    """A check returns nothing if it holds, and says itself what is wrong."""

    def paid_once() -> None:
        assert charges == ["a"], "two charges"

    charges = ["a"]
    with Harness() as tta:
        tta.always(paid_once, "paid once")
    charges.append("a")
    with (
        pytest.raises(HarnessError, match=r"paid once, stated at .*: two charges"),
        Harness() as tta,
    ):
        tta.always(paid_once, "paid once")


def test_an_invariant_whose_check_fails_does_not_hold() -> None:
    """An error in the check is named with its class."""
    empty: dict[str, int] = {}
    with (
        pytest.raises(HarnessError, match="KeyError: 'total'"),
        Harness() as tta,
    ):
        tta.always(lambda: empty["total"] == 1, "the total is one")


def test_the_error_of_the_body_comes_first() -> None:
    """A body that failed says what is wrong; its invariants say nothing more."""

    def body(tta: Harness) -> None:
        tta.always(lambda: False, "never")
        raise ZeroDivisionError("why")

    with pytest.raises(ZeroDivisionError, match="why"), Harness() as tta:
        body(tta)


async def _later() -> bool:
    """Hold, but in an event loop."""
    return True


@pytest.mark.parametrize(
    ("check", "sentence", "said"),
    [
        (True, "paid once", "check=True must be a plain function"),
        (_later, "paid once", "check=<function _later .* must be a plain function"),
        (lambda: True, "", "sentence='' must say what holds"),
        (lambda: True, None, "sentence=None must say what holds"),
    ],
)
def test_what_is_no_invariant_is_refused(check: Any, sentence: Any, said: str) -> None:
    """The message shows the value and what it should have been."""
    with Harness() as tta, pytest.raises(TypeError, match=said):
        tta.always(check, sentence)


def test_what_is_sometimes_reached_fails_no_test() -> None:
    """It is a mark for the report of an exploration, and names itself."""
    with Harness() as tta:
        tta.sometimes("stale served", condition=False)
        tta.sometimes("fallback used")
        with pytest.raises(TypeError, match="name='' must say what is reached"):
            tta.sometimes("")


def test_an_invariant_fails_a_test_at_its_end(
    pytester: pytest.Pytester, run: Run
) -> None:
    """In an ordinary run as well."""
    pytester.makepyfile(
        """
        def test_paid_once(tta):
            charges = []
            tta.always(lambda: len(charges) == 1, "an order is paid once")
            charges += ["a", "b"]
        """
    )
    result = run("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*does not hold: an order is paid once, stated at *.py:3 in test_paid_once: *"]
    )
