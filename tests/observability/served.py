"""What the servers of `test_servers.py` run: begun before their workers are forked."""

from __future__ import annotations

import asyncio
import os

from celery import Celery

from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability

observability = initialize_observability("served", enable_prometheus=False)


async def _work(value):
    return value


workflow = step(_work).named("work")


def run(context: WorkflowContext | None = None) -> str:
    """Run a workflow; return which process has."""
    asyncio.run(workflow.execute(1, context or WorkflowContext()))
    return str(os.getpid())


if "TTA_SPANS_BEFORE_FORK" in os.environ:
    run()
    observability.flush(30.0)


def application(environ, start_response):
    """Answer a request of WSGI."""
    headers = {
        name[len("HTTP_") :].replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    body = run(WorkflowContext.from_headers(headers)).encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


app = Celery("served", broker=os.environ.get("TTA_SERVED_BROKER"))
app.conf.task_default_queue = "served"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="served.work")
def work() -> None:
    """Run a workflow in a task."""
    run()
