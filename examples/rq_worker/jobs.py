"""The jobs: `rq worker invoices` executes them, and needs to import this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq import Retry

from examples.rq_worker.invoices import invoice
from tta_primitives.integrations.rq import async_job, enqueue, job_context

if TYPE_CHECKING:
    from rq import Queue
    from rq.job import Job

    from tta_primitives import WorkflowContext

__all__ = ["order_invoice", "send_invoice"]


@async_job
async def send_invoice(number: str) -> str:
    """Send the invoice of one order; return the key under which it was mailed."""
    return await invoice.execute(number, job_context())


def order_invoice(
    queue: Queue, number: str, context: WorkflowContext | None = None
) -> Job:
    """Enqueue an invoice, which belongs to the run of the caller.

    A step that fails is tried again within seconds, by the workflow. A worker that is
    killed is what RQ's own retry is for: it starts the job anew, minutes later.
    """
    return enqueue(
        queue,
        send_invoice,
        number,
        context=context,
        job_timeout=60,
        retry=Retry(max=2, interval=[60, 300]),
    )
