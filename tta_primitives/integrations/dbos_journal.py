"""The journal of one run in DBOS: each record is a step of its workflow.

DBOS numbers steps in the order of their calls, which differs from execution to
execution where steps run at the same time. So a record is found by its name, which is
the key of the step, and numbers are only used up: those of all records are drawn when
an execution begins, and a new record gets the next one.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from tta_primitives.durable.errors import Halted, JournalError
from tta_primitives.extras import needs

with needs("dbos", __name__):
    from dbos import DBOS
    from dbos import _error as errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["DbosJournal"]

_LOST = (
    errors.DBOSWorkflowCancelledError,
    errors.DBOSWorkflowConflictIDError,
    errors.DBOSUnexpectedStepError,
    errors.DBOSStepNondeterminismError,
)


class DbosJournal:
    """The journal of the run that the current thread executes.

    It is made in the thread in which DBOS calls the workflow, and used on the loop.

    Args:
        run_id: The workflow's id.
        call: Calls a function in a thread that may block.
    """

    def __init__(
        self, run_id: str, call: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> None:
        self._call = call
        # Whatever is read in this context is not itself recorded as a step.
        steps = Context().run(DBOS.list_workflow_steps, run_id)
        self._records: dict[str, str] = {}
        for step in steps:
            record = step["output"]
            if not isinstance(record, str):
                name = step["function_name"]
                msg = f"step {name!r} of run {run_id!r} is none of a durable workflow"
                raise JournalError(msg)
            self._records[step["function_name"]] = record
        last = max((step["function_id"] for step in steps), default=0)
        while last and DBOS.reserve_step().step_id < last:
            pass
        self._context = copy_context()

    async def read(self) -> dict[str, str]:
        """Return what was recorded when this execution began."""
        return dict(self._records)

    async def write(self, key: str, record: str) -> None:
        """Record a step.

        Raises:
            Halted: The run was cancelled, or another process has taken it over.
        """
        context = self._context.copy()
        # The number is drawn here, on the loop: one thread at a time.
        step = context.run(DBOS.reserve_step)

        def run() -> None:
            """Write it in a thread, as this step of the run."""
            context.run(partial(step.run, {"name": key}, lambda: record))

        try:
            await self._call(run)
        except _LOST as error:
            msg = f"run lost at {key!r}: {error}"
            raise Halted(msg) from error
