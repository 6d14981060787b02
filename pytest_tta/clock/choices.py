"""What a simulation loop lets somebody choose: which outside event comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Choice", "Chooser", "Kind", "Unit", "first_come"]

Kind: TypeAlias = Literal["op", "timer", "deadline", "step"]


class Unit(NamedTuple):
    """Something that may happen next, when nothing else is left to do.

    Attributes:
        kind: "op", an operation of the outside completes; "timer", a timer that is due
            next fires; "deadline", the same for one that limits a wait; "step", what is
            ready goes on (never offered in "op" mode).
        chain: The number of the task that waits for it, by birth; -1 if none does.
        label: The site of an operation, what a timer is for, the name of a task.
        number: Which operation of this label it is, from 1; 0 for what is none.
        age: Older units have lower ages, across kinds.
    """

    kind: Kind
    chain: int
    label: str
    number: int
    age: int


class Choice(NamedTuple):
    """One choice that was made.

    Attributes:
        units: What there was, the oldest first.
        taken: The index of what came, in that order.
        last: The chain that had gone on last, for the sticky order.
        at: The virtual time at which it was made, in seconds.
        came: The virtual time of what came: later than `at` if that is a timer.
    """

    units: tuple[Unit, ...]
    taken: int
    last: int
    at: float = 0.0
    came: float = 0.0


Chooser: TypeAlias = Callable[[Sequence[Unit]], int]
"""Is asked when there are two units or more, the oldest first; returns an index.

What is ready comes first, then operations, then timers. While there are operations,
timers that limit a wait are last, and are there only if the budget of early limits
allows it. Without operations the timers of one instant stand as they were set.
"""


def first_come(units: Sequence[Unit]) -> int:  # noqa: ARG001 - the type of a chooser
    """Take the oldest: what asyncio does when everything outside is equally fast."""
    return 0
