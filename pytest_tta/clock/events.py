"""Name what may come next in a simulation, the same way in every execution."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import TYPE_CHECKING, TypeAlias

from pytest_tta.clock.choices import Unit
from pytest_tta.clock.tasks import birth
from pytest_tta.clock.timers import Timer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pytest_tta.clock.sleeps import Row

__all__ = ["Event", "Operation", "chain_of", "step_of", "unit_of"]

Operation: TypeAlias = tuple[Unit, "asyncio.Future[None]"]
"""Something outside that has not answered yet; its future is done when it does.

It is a bare pair, because a search makes them by the million.
"""

Event: TypeAlias = Operation | Timer
"""What may come from outside: an answer, or the time for something."""


def unit_of(event: Event, rows: Sequence[Row]) -> Unit:
    """Describe an event; `rows` is the log of waits, which knows what a timer is for.

    The words hold no line number, since those differ between interpreters.
    """
    if type(event) is tuple:
        return event[0]
    timer: Timer = event  # type: ignore[assignment]
    if timer.unit is None:
        timer.unit = _unit_of_timer(timer, rows)
    return timer.unit


def _unit_of_timer(timer: Timer, rows: Sequence[Row]) -> Unit:
    purpose: str = timer.kind
    index = bisect_left(rows, (timer.seq,))
    if index < len(rows) and rows[index][0] == timer.seq:
        who, path = rows[index][4], rows[index][6]
        purpose = f"{purpose} of {path or who or 'a callback'}"
    kind = "deadline" if timer.kind == "timeout" else "timer"
    return Unit(kind, timer.chain, purpose, 0, timer.seq)  # type: ignore[arg-type]


def step_of(handle: asyncio.Handle, place: int) -> Unit:
    """Describe a callback that is ready; `place` stands for its age."""
    return Unit("step", chain_of(handle), _name_of(handle), 0, place)


def chain_of(handle: asyncio.Handle) -> int:
    """Give the number of the task whose step a callback is, -1 for none."""
    return birth(_owner_of(handle))


def _owner_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner if isinstance(owner, asyncio.Task) else None


def _name_of(handle: asyncio.Handle) -> str:
    task = _owner_of(handle)
    if task is not None:
        return task.get_name()
    callback = handle._callback  # type: ignore[attr-defined]
    if str(getattr(callback, "__module__", "")).startswith("asyncio"):
        # What asyncio calls its own differs between interpreters.
        return "asyncio"
    return getattr(callback, "__qualname__", type(callback).__qualname__)
