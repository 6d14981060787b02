"""Saga: the cases, which none of the other libraries knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, Area, Library, verdict
from tests.comparison.steps import Boom, outcome_of

if TYPE_CHECKING:
    from tests.comparison.cases import Finding

__all__ = ["SAGA"]


class Saga(Library):
    """SagaPrimitive."""

    name = OURS

    @classmethod
    def saga(cls, *pairs: Any, **options: Any) -> Any:
        """Run the steps, and undo them in reverse when one fails."""
        from tta_primitives import WorkflowContext
        from tta_primitives.recovery import SagaPrimitive

        made = SagaPrimitive(list(pairs), **options)
        return lambda value=None: made.execute(value, WorkflowContext())


SAGA = Area("Saga", Saga)


class Journal:
    """What was done and undone."""

    def __init__(self) -> None:
        self.lines: list[object] = []

    def pair(self, name: str, *, fails: bool = False, seconds: float = 0) -> Any:
        """Return a step and what undoes it."""

        async def do(value: object) -> str:
            self.lines.append(f"do {name}")
            await asyncio.sleep(seconds)
            if fails:
                raise Boom
            return f"{name} done"

        async def undo(record: Any) -> None:
            await asyncio.sleep(0.01)
            self.lines.append(f"undo {record.output or name}")

        return do, undo


@SAGA.case("When the third step fails, the second and the first are undone", 88)
async def steps_are_undone(library: type[Saga]) -> Finding:
    """Fail in the third step; look at what was undone, with which outputs."""
    journal = Journal()
    pairs = [journal.pair("a"), journal.pair("b"), journal.pair("c", fails=True)]
    outcome = await outcome_of(library.saga(*pairs)())
    undone = journal.lines[3:]
    is_kept = undone == ["undo b done", "undo a done"] and isinstance(outcome, Boom)
    return verdict(is_kept, ", ".join(map(str, journal.lines)))


@SAGA.case(
    "A cancelled saga is undone as well, and a second cancel does not stop it", 89
)
async def cancelled_sagas_are_undone(library: type[Saga]) -> Finding:
    """Cancel in the second step, and again while the first is undone."""
    journal = Journal()
    pairs = [journal.pair("a"), journal.pair("b", seconds=30)]
    task = asyncio.create_task(library.saga(*pairs)())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.005)
    task.cancel()
    await outcome_of(task)
    is_kept = "undo a done" in journal.lines and task.cancelled()
    return verdict(is_kept, ", ".join(map(str, journal.lines)))


@SAGA.case("A step whose outcome is unknown can be undone too", 91)
async def unknown_outcomes_are_undone(library: type[Saga]) -> Finding:
    """Fail in the second step, which may have had its effect."""
    journal = Journal()
    pairs = [journal.pair("a"), journal.pair("b", fails=True)]
    await outcome_of(library.saga(*pairs, compensate_failed=True)())
    is_kept = journal.lines[2:] == ["undo b", "undo a done"]
    return verdict(is_kept, ", ".join(map(str, journal.lines)))
