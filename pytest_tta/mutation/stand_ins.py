"""What stands in a workflow where a primitive was taken out, or does something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tta_primitives.door import closing
from tta_primitives.primitive import In, Out, WorkflowPrimitive
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.circuit_state import Circuit
from tta_primitives.recovery.compensation import SagaPrimitive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tta_primitives.context import WorkflowContext
    from tta_primitives.recovery.circuit_policy import Vote
    from tta_primitives.recovery.circuit_state import Ticket
    from tta_primitives.recovery.compensation_ledger import Ledger

__all__ = ["CancellationsFail", "FirstUndoneFirst", "ThroughPrimitive"]


class ThroughPrimitive(WorkflowPrimitive[In, Out]):
    """Executes a primitive and does nothing else.

    It has the name of what was taken out, so that all paths stay what they were: a
    test that notices has noticed what the workflow does, not how it is built.

    Args:
        primitive: What is executed.
        name: The name of what was taken out.
    """

    _places_itself = True

    def __init__(self, primitive: WorkflowPrimitive[In, Out], name: str) -> None:
        self.primitive = primitive
        self._name = name
        self.idempotent: bool = primitive.idempotent

    def children(self) -> tuple[WorkflowPrimitive[Any, Any], ...]:
        """Return what is executed."""
        return (self.primitive,)

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive."""
        return await self.primitive.execute(input_data, self._below(context))

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the primitive's chunks."""
        chunks = self.primitive.stream(input_data, self._below(context))
        async with closing(chunks) as own:
            async for chunk in own:
                yield chunk

    def _below(self, context: WorkflowContext) -> WorkflowContext:
        return context.below(self, self.primitive, self.primitive.name)


class CancellationsFail(CircuitBreakerPrimitive[In, Out]):
    """A breaker that takes a cancelled call for one that has failed."""

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        # The quick way of counting does not look at cancellations.
        self._circuit = Circuit(self._policy, is_plain=False)

    def _settle(
        self, ticket: Ticket, vote: Vote | None, context: WorkflowContext
    ) -> None:
        if vote is None:
            vote = self._counted(True, False)  # noqa: FBT003 - it takes them so
        super()._settle(ticket, vote, context)


class FirstUndoneFirst(SagaPrimitive[In, Out]):
    """A saga that undoes its steps in the order in which they were done."""

    async def _run(
        self, input_data: In, context: WorkflowContext, ledger: Ledger
    ) -> Out:
        try:
            return await super()._run(input_data, context, ledger)
        except BaseException:
            ledger.entries.reverse()
            raise
