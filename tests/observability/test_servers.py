"""Spans of real servers' workers arrive, however the workers begin and end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.processes import HOST, ask, free_port
from tta_primitives import WorkflowContext, step
from tta_primitives.observability import initialize_observability

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="they fork")
HERE = "tests.observability.served"


def test_preloaded_workers_of_gunicorn_send_their_spans(receiver, processes):
    """What was sent before the fork is a connection that no worker touches."""
    port = free_port()
    server = processes.python(
        *("-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"{HOST}:{port}"),
        f"{HERE}:application",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        TTA_SPANS_BEFORE_FORK="1",
    )
    server.wait_for_answer(port)
    for _ in range(19):
        assert ask(port).status == 200
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert [span.name for span in receiver.spans] == ["work"] * 21
    assert len({span.span_id for span in receiver.spans}) == 21
    assert "Traceback" not in server.output


async def test_trace_goes_on_in_another_process(receiver, processes):
    """A request's headers put the other service's run below the step that asks."""
    port = free_port()
    server = processes.python(
        *("-m", "gunicorn", "--bind", f"{HOST}:{port}", f"{HERE}:application"),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
    )
    await asyncio.to_thread(server.wait_for_answer, port)

    @step
    async def call(value, context):
        headers = context.to_headers()
        answer = await asyncio.to_thread(ask, port, headers=headers)
        return answer.status

    with initialize_observability(
        "caller", enable_prometheus=False, otlp_endpoint=receiver.url
    ) as observability:
        context = WorkflowContext("order-7")
        assert await (step(lambda v: v) >> call).execute(1, context) == 200
        assert await asyncio.to_thread(observability.flush, 30.0)
    server.send(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait) == 0
    asked, served = receiver.named("call"), receiver.spans[-1]
    assert (served.name, served.service) == ("work", "served")
    assert (asked.service, served.parent_id) == ("caller", asked.span_id)
    assert served.trace_id == asked.trace_id == receiver.named("sequential").trace_id
    assert served.attributes["tta.correlation_id"] == "order-7"


def test_server_answers_while_its_collector_hangs_and_is_killed(receiver, processes):
    """No request fails, and the server ends in time."""
    receiver.mode = "hang"
    port = free_port()
    server = processes.python(
        *("-m", "gunicorn", "--bind", f"{HOST}:{port}", f"{HERE}:application"),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="20",
    )
    server.wait_for_answer(port)
    receiver.wait_until(lambda r: r.requests > 0)
    answers = [ask(port, timeout=5.0) for _ in range(50)]
    receiver.stop()
    answers += [ask(port, timeout=5.0) for _ in range(50)]
    assert {answer.status for answer in answers} == {200}
    server.send(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.long
def test_prefork_workers_of_celery_send_their_spans(
    receiver, processes, redis_server, monkeypatch
):
    """A worker process that Celery ends runs no `atexit`."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    from tests.observability import served

    served.observability.shutdown()
    served.app.conf.broker_url = redis_server.url
    worker = processes.python(
        *("-m", "celery", "-A", f"{HERE}:app", "worker", "--pool", "prefork"),
        *("-c", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"),
        TTA_SERVED_BROKER=redis_server.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="3600000",
        OTEL_SDK_DISABLED="false",
    )
    worker.wait_for(" ready.", timeout=60.0)
    for _ in range(3):
        served.work.delay()
    worker.wait_until(
        lambda: worker.output.count("succeeded in") == 3, "the end of all tasks"
    )
    assert receiver.requests == 0
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(60.0) == 0
    assert [span.name for span in receiver.spans] == ["work"] * 3
