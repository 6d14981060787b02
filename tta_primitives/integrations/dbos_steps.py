"""A step whose effect is in a database, done once: with the record of it, or not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from tta_primitives.durable.errors import DurableError
from tta_primitives.durable.values import from_json, to_json
from tta_primitives.extras import needs
from tta_primitives.primitive import In, Out, WorkflowPrimitive

with needs("sqlalchemy", __name__):
    from sqlalchemy import Column, MetaData, String, Table, Text, insert, select, update
    from sqlalchemy.exc import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from tta_primitives.context import WorkflowContext

__all__ = ["DatabaseStep", "done_steps"]

done_steps: Table = Table(
    "tta_done_steps",
    MetaData(),
    Column("step_key", String(200), primary_key=True),
    Column("output", Text, nullable=True),
)
"""The table of what was done, beside the tables that the steps write to."""


class DatabaseStep(WorkflowPrimitive[In, Out]):
    """Does something in a database exactly once, also if the process dies meanwhile.

    The function's work and the note that it was done are one transaction. A process
    that dies before the commit has done nothing; one that dies after it, and before the
    journal has the step, finds the note when it executes the step again, and returns
    what the function had returned. Two processes that execute it at the same time wait
    for each other.

    Executions with one idempotency key at one place of a workflow are the same one. The
    table `done_steps` must be in the same database as the function's tables.

    Args:
        function: `async def charge(input_data, session)`; it must not commit. It
            returns what a journal can keep.
        sessions: An `async_sessionmaker`, or its name in `context.deps`.
        name: The step's name; that of the function unless given.

    Raises:
        DurableError: On execution; the context has no idempotency key, so that nothing
            tells one execution from another. In a durable run it has one.
    """

    def __init__(
        self,
        function: Callable[[In, AsyncSession], Awaitable[Out]],
        *,
        sessions: Callable[[], AsyncSession] | str,
        name: str | None = None,
    ) -> None:
        self._function = function
        self._sessions = sessions
        self.name: str = str(name or getattr(function, "__name__", "database_step"))

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Do it, or return what was returned when it was done."""
        key = context.idempotency_key
        if key is None:
            msg = (
                f"{context.path or self.name} needs an idempotency key: run it in a "
                "durable workflow, or give one to the context"
            )
            raise DurableError(msg)
        # A key of the caller's own is one for all steps of a workflow.
        place = f"{key}\n{context.position_of(self).path}"
        key = hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()
        try:
            return await self._once(key, input_data, context)
        except IntegrityError:
            # Somebody else has done it meanwhile; or it is the function's own error.
            found = await self._found(key, context)
            if found is None:
                raise
            return from_json(found, f"the note of {self.name}")  # type: ignore[no-any-return]

    async def _once(self, key: str, input_data: In, context: WorkflowContext) -> Out:
        async with self._session(context) as session, session.begin():
            note = done_steps.c.step_key == key
            done = await session.scalar(select(done_steps.c.output).where(note))
            if done is not None:
                return from_json(done, f"the note of {self.name}")  # type: ignore[no-any-return]
            # First, so that another process which does the same waits here.
            await session.execute(insert(done_steps).values(step_key=key))
            output = await self._function(input_data, session)
            text = to_json(output, f"the output of {self.name}")
            await session.execute(update(done_steps).where(note).values(output=text))
        return output

    async def _found(self, key: str, context: WorkflowContext) -> str | None:
        async with self._session(context) as session:
            asked = select(done_steps.c.output).where(done_steps.c.step_key == key)
            found: Any = await session.scalar(asked)
            return None if found is None else str(found)

    def _session(self, context: WorkflowContext) -> AsyncSession:
        sessions = self._sessions
        if isinstance(sessions, str):
            if sessions not in context.deps:
                msg = (
                    f"context.deps has no {sessions!r}, which {self.name} takes its "
                    "sessions from: give it with durable(..., deps=...)"
                )
                raise DurableError(msg)
            sessions = context.deps[sessions]
        return cast("Callable[[], AsyncSession]", sessions)()
