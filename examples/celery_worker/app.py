"""The Celery app: `celery -A examples.celery_worker.app worker -P threads -c 50`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery import Celery

from examples.celery_worker.batches import process
from tta_primitives.integrations.celery import AsyncTask, send, workflow_task

if TYPE_CHECKING:
    from tta_primitives import WorkflowContext

__all__ = ["app", "process_all", "process_batch"]

app = Celery(
    "batches",
    broker=os.environ.get("CELERY_BROKER_URL", "memory://"),
    backend=os.environ.get("CELERY_RESULT_BACKEND", "cache+memory://"),
    task_cls=AsyncTask,
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Or a RabbitMQ that restarts may leave the worker without another message.
    worker_enable_prefetch_count_reduction=False,
    # A worker takes no more than it works on: what it has not begun, others may have.
    worker_prefetch_multiplier=1,
    # After SIGTERM, tasks have this long before they go back to the queue.
    worker_soft_shutdown_timeout=20.0,
)

process_batch = workflow_task(app, process, name="batches.process", soft_time_limit=60)


@app.task(name="batches.process_all", acks_late=True)
async def process_all(batch_ids: list[str], context: WorkflowContext) -> list[str]:
    """Publish a task for each batch; all of them belong to the run of this one."""
    context.checkpoint("publishing")
    sent = [await send(process_batch.s(batch_id)) for batch_id in batch_ids]
    return [result.id for result in sent]
