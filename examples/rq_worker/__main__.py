"""The command: `python -m examples.rq_worker`."""

from __future__ import annotations

import sys

from fakeredis import FakeStrictRedis
from rq import Queue

from examples.rq_worker.invoices import outbox
from examples.rq_worker.jobs import order_invoice
from tta_primitives import WorkflowContext

_HOW = """
This was one process, without a server. With Redis and a real worker:

    rq worker invoices --url redis://127.0.0.1:6379/0

and in Python, from anywhere:

    from redis import Redis
    from rq import Queue
    from examples.rq_worker.jobs import order_invoice

    queue = Queue("invoices", connection=Redis())
    order_invoice(queue, "2026-1")
"""


def main() -> int:
    """Send one invoice in this process; return the exit code."""
    queue = Queue("invoices", connection=FakeStrictRedis(), is_async=False)
    job = order_invoice(queue, "2026-1", WorkflowContext("order-7"))
    print(f"job {job.id}: {job.get_status()}")
    print(*outbox.sent.values(), sep="\n")
    print(_HOW)
    return 0 if job.is_finished else 1


if __name__ == "__main__":
    sys.exit(main())
