"""Jobs without a server and without a worker, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakeredis import FakeStrictRedis
from rq import Queue

from examples.rq_worker.invoices import invoice, outbox
from examples.rq_worker.jobs import order_invoice, send_invoice
from pytest_tta.faults import first
from tta_primitives import WorkflowContext

if TYPE_CHECKING:
    from pytest_tta import Harness


@pytest.fixture
def queue() -> Queue:
    """A queue whose jobs are executed where they are enqueued."""
    outbox.sent.clear()
    return Queue("invoices", connection=FakeStrictRedis(), is_async=False)


def test_an_invoice_is_mailed(tta: Harness, queue: Queue) -> None:
    """The job returns the key, which is derived from its id."""
    job = order_invoice(queue, "2026-1", WorkflowContext("order-7"))
    assert list(outbox.sent) == [job.return_value()]
    assert outbox.sent[job.return_value()].endswith("   16.50 in all")
    assert job.meta["tta"]["correlation_id"] == "order-7"
    assert tta.elapsed == pytest.approx(0.25)


def test_a_job_that_is_executed_again_mails_nothing_new(
    tta: Harness, queue: Queue
) -> None:
    """As RQ does it when a worker was killed after the mail and before the result."""
    job = order_invoice(queue, "2026-1")
    first_key = job.return_value()
    queue.run_sync(queue.fetch_job(job.id))
    assert list(outbox.sent) == [first_key]
    assert tta.elapsed == pytest.approx(0.5)


def test_a_mail_service_that_is_away_is_asked_again(tta: Harness, queue: Queue) -> None:
    """Within the job, in seconds; RQ's retry would take a minute."""
    tta.faults.at("mail").fail(ConnectionError("away"), when=first(2))
    assert order_invoice(queue, "2026-1").is_finished
    assert len(outbox.sent) == 1


def test_a_job_that_hangs_is_cancelled(tta: Harness, queue: Queue) -> None:
    """Each step has a limit, and the job has one for all of them."""
    tta.faults.at("load").hang()
    assert order_invoice(queue, "2026-1").is_failed
    assert tta.elapsed <= 61
    assert outbox.sent == {}


async def test_the_body_of_a_job_can_be_awaited(tta: Harness) -> None:
    """No RQ is needed to test what it does."""
    outbox.sent.clear()
    assert await send_invoice.__wrapped__("2026-2")
    assert await invoice.execute("2026-3", WorkflowContext(idempotency_key="k"))
    assert len(outbox.sent) == 2
    assert tta.elapsed == pytest.approx(0.5)
