"""What is different in an execution from one in which all goes well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tta.explore.witness import call_name
from pytest_tta.explore.words import comes, named, which

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_tta.explore.outcome import CallSeen, Outcome

__all__ = ["first_difference", "without_it"]


def without_it(found: Outcome, plain: Outcome) -> Iterator[str]:
    """Yield in a sentence what comes of the same test if nothing goes wrong.

    Args:
        found: The execution that fails.
        plain: The one that does not.
    """
    for one, other in zip(found.choices, plain.choices, strict=False):
        here, there = one.units[one.taken], other.units[other.taken]
        if which(here) != which(there):
            yield f"where all goes well, {comes(there)} first, and not {named(here)}"
            return
    here_calls, there_calls = _names(found.calls), _names(plain.calls)
    for number in range(max(len(here_calls), len(there_calls))):
        here_call = here_calls[number : number + 1]
        there_call = there_calls[number : number + 1]
        if here_call != there_call:
            yield _call_without_it(here_call, there_call)
            return


def _call_without_it(here: Sequence[str], there: Sequence[str]) -> str:
    if not there:
        return f"where all goes well, {here[0]} is not called"
    if not here:
        return f"where all goes well, {there[0]} is called next, and here nothing is"
    return f"where all goes well, {there[0]} is called next, and here {here[0]}"


def first_difference(found: Outcome, plain: Outcome) -> str:
    """Return the first thing that goes another way in one of two executions.

    Args:
        found: The execution that fails.
        plain: The one that does not.

    Returns:
        A sentence; empty if calls and choices are the same.
    """
    for number, (one, other) in enumerate(
        zip(found.choices, plain.choices, strict=False), start=1
    ):
        here, there = one.units[one.taken], other.units[other.taken]
        if which(here) != which(there):
            return f"at choice {number} {comes(here)}, and there {comes(there)}"
    return _different_call(found.calls, plain.calls)


def _different_call(calls: Sequence[CallSeen], others: Sequence[CallSeen]) -> str:
    ends = "it ends"
    here, there = _names(calls), _names(others)
    for number in range(max(len(here), len(there))):
        one = here[number] if number < len(here) else ends
        other = there[number] if number < len(there) else ends
        if one != other:
            what = "call" if ends not in (one, other) else "after call"
            number_of = number + 1 if what == "call" else number
            return f"{what} {number_of}: {one}, and there {other}"
    return ""


def _names(calls: Sequence[CallSeen]) -> list[str]:
    return [call_name(call.site, call.number) for call in calls]
