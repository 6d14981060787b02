"""How reports of exploring name what comes, and where, and how long they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_tta.explore.witness import call_name

if TYPE_CHECKING:
    from pytest_tta.clock.choices import Unit
    from pytest_tta.explore.witness import Witness

__all__ = [
    "MOST_LINES",
    "STRUCK",
    "comes",
    "named",
    "number_of",
    "short",
    "shortened",
    "which",
]

MOST_LINES: Final = 12
"""So many lines of a list are shown at the most, and one more."""

STRUCK: Final = "<- struck"
"""What stands behind a call that a fault has struck."""


def which(unit: Unit) -> tuple[str, str, int]:
    """Return what tells a unit from others, in any execution.

    Args:
        unit: What comes.
    """
    return unit.kind, unit.label, unit.number


def named(unit: Unit, witness: Witness | None = None) -> str:
    """Return what a unit is called.

    Args:
        unit: What comes.
        witness: What was seen; None if nobody looked.
    """
    label = call_name(unit.label, max(1, number_of(unit, witness)))
    return {
        "timer": f"the timer of {label}",
        "deadline": f"the time limit of {label}",
        "step": f"a step of {label}",
    }.get(unit.kind, label)


def number_of(unit: Unit, witness: Witness | None) -> int:
    """Return which call of its site an operation belongs to.

    Args:
        unit: The operation.
        witness: What was seen; None if nobody looked.
    """
    number = unit.number
    return (
        number if witness is None else witness.numbers.get((unit.label, number), number)
    )


def comes(unit: Unit, witness: Witness | None = None) -> str:
    """Return what a unit is called, and how it comes.

    Args:
        unit: What comes.
        witness: What was seen; None if nobody looked.
    """
    does = {"op": "completes", "timer": "fires", "deadline": "runs out"}
    return f"{named(unit, witness)} {does.get(unit.kind, 'comes')}"


def short(place: str) -> str:
    """Return `test_shop.py:12 in serve` for a function that is inside another.

    Args:
        place: A line and its function.
    """
    at, _, function = place.partition(" in ")
    return f"{at} in {function.rpartition('<locals>.')[2]}" if function else place


def shortened(lines: list[str]) -> list[str]:
    """Return a list of lines; of a long one the middle is left out.

    Args:
        lines: The lines.
    """
    left_out = len(lines) - MOST_LINES
    if left_out <= 1:
        return lines
    half = MOST_LINES // 2
    return [*lines[:half], f"... {left_out} more ...", *lines[-half:]]
