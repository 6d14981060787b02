"""Latencies under which asyncio's own loop does what a schedule says.

In "op" mode a schedule says nothing but which answer of the outside comes first. So it
is an assignment of latencies: what is chosen later takes longer.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pytest_tta.clock.choices import Unit
    from pytest_tta.explore.outcome import Outcome

__all__ = ["STEP", "Answer", "CallKey", "answers", "sites_of"]

STEP = 0.02
"""Seconds between two answers: enough for what follows the first of them to happen."""

CallKey: TypeAlias = tuple[str, int]
"""A site, and which call there, from 1."""


class Answer(NamedTuple):
    """When a call is answered.

    Attributes:
        at: In seconds since the first call of `tta.run`.
        after: In seconds since the call itself; the later of the two counts.
    """

    at: float
    after: float


def answers(outcome: Outcome) -> dict[CallKey, Answer]:
    """Return when each call must be answered that was ever one of several.

    A call that was alone whenever something was chosen is not among them: it is
    answered at once.

    Args:
        outcome: Of an execution in "op" mode.
    """
    choices = outcome.choices
    seen: dict[Unit, list[int]] = {}
    for index, choice in enumerate(choices):
        for unit in choice.units:
            if unit.kind == "op":
                seen.setdefault(unit, []).append(index)
    hung = _hung(outcome)
    found = {}
    for unit, indices in seen.items():
        first, last = indices[0], indices[-1]
        is_taken = choices[last].units[choices[last].taken] == unit
        # One that was never taken was answered alone after that, or given up.
        place = last if is_taken else last + 1
        at = choices[last].came + (place + 1) * STEP
        after = at - choices[first].at - first * STEP
        key = _numbered_as_called(unit.label, unit.number, hung)
        found[key] = Answer(round(at, 6), round(after, 6))
    return found


def _hung(outcome: Outcome) -> dict[str, list[int]]:
    """Return which calls never became operations, by site: nothing answers them."""
    found: dict[str, list[int]] = {}
    for fault in outcome.plan.faults:
        if fault.kind == "hang":
            found.setdefault(fault.site, []).append(fault.number)
    return found


def _numbered_as_called(label: str, number: int, hung: dict[str, list[int]]) -> CallKey:
    """Return a call's number among all calls of its site, those that hang included."""
    for other in sorted(hung.get(label, ())):
        if other <= number:
            number += 1
    return label, number


def sites_of(outcome: Outcome) -> list[str]:
    """Return the sites of an execution, in the order in which they were called first.

    Args:
        outcome: Of an execution.
    """
    named = [call.site for call in outcome.calls]
    named += [u.label for c in outcome.choices for u in c.units if u.kind == "op"]
    return list(Counter(named))
