"""The app and the tasks that real workers of the Celery tests run.

A worker is started with `-A tests.integrations.celery_jobs` and the addresses in its
environment; the tests make the same app with the same function. What tasks do is told
in lists of Redis, which also hold the gates that tasks wait at: no test waits for time.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from typing import Any

import redis.asyncio
from celery import Celery

from tta_primitives import WorkflowContext, step
from tta_primitives.integrations.celery import AsyncTask, send, workflow_task
from tta_primitives.recovery import RetryPrimitive

FOREVER = 3600.0

seen: ContextVar[str | None] = ContextVar("seen", default=None)


def make_app(broker: str, backend: str, queue: str, **settings: Any) -> Celery:
    """Return the app with all tasks below."""
    app = Celery("jobs", broker=broker, backend=backend, task_cls=AsyncTask)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=5.0,
        broker_transport_options=_transport(broker),
        result_expires=600,
        task_default_queue=queue,
        # Or a broker that restarts may leave the worker without another message.
        worker_enable_prefetch_count_reduction=False,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=20.0,
        **settings,
    )
    client = redis.asyncio.Redis.from_url(backend, socket_timeout=None)
    _plain_tasks(app)
    _redis_tasks(app, client)
    _workflows(app, client)
    return app


def _transport(broker: str) -> dict[str, Any]:
    if broker.startswith("redis"):
        # Without the last two a lost message is looked for every 100 seconds.
        return {
            "visibility_timeout": 2,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    return {"confirm_publish": True}


def _plain_tasks(app: Celery) -> None:
    @app.task(name="jobs.identify", shared=False)
    async def identify(number: int, context: WorkflowContext) -> list[Any]:
        """Tell who it is, before and after others have run."""
        before = seen.get()
        seen.set(context.correlation_id)
        await asyncio.sleep(0)
        return [number, context.correlation_id, before, seen.get()]

    @app.task(name="jobs.describe", bind=True, shared=False)
    async def describe(self, context: WorkflowContext) -> dict[str, Any]:
        """Tell all that came with the message."""
        return {
            "correlation_id": context.correlation_id,
            "traceparent": context.traceparent,
            "baggage": context.baggage,
            "remaining": context.remaining(),
            "key": context.idempotency_key,
            "id": self.request.id,
            "root": self.request.root_id,
            "parent": self.request.parent_id,
            "pid": os.getpid(),
        }

    @app.task(name="jobs.publish", bind=True, shared=False)
    async def publish(self, context: WorkflowContext) -> list[str]:
        """Publish another task from the loop, without and with `await`."""
        first = app.tasks["jobs.describe"].delay()
        second = await send(app.tasks["jobs.describe"].s())
        return [self.request.id, first.id, second.id]

    @app.task(name="jobs.sync", shared=False)
    def sync(context: WorkflowContext) -> str:
        """Be no coroutine function, and get the context all the same."""
        return context.correlation_id

    @app.task(name="jobs.fail", shared=False)
    async def fail(text: str) -> None:
        """Fail after a moment."""
        await asyncio.sleep(0)
        raise ValueError(text)

    @app.task(
        name="jobs.flaky",
        bind=True,
        shared=False,
        autoretry_for=(ConnectionError,),
        default_retry_delay=0,
    )
    async def flaky(self, context: WorkflowContext) -> list[Any]:
        """Fail the first time, as Celery's own retries expect it."""
        await asyncio.sleep(0)
        if self.request.retries == 0:
            raise ConnectionError("again")
        return [self.request.retries, context.correlation_id, context.idempotency_key]


def _redis_tasks(app: Celery, client: redis.asyncio.Redis) -> None:
    @app.task(
        name="jobs.gate", acks_late=True, reject_on_worker_lost=True, shared=False
    )
    async def gate(name: str, context: WorkflowContext) -> str:
        """Tell that it has begun, wait until the test opens the gate, and end."""
        told = f"{os.getpid()} {context.idempotency_key}"
        await client.rpush(f"began:{name}", told)
        await client.blpop([f"gate:{name}"], timeout=0)
        await client.rpush(f"ended:{name}", told)
        return name

    @app.task(name="jobs.endless", shared=False)
    async def endless(name: str, context: WorkflowContext) -> None:
        """Go on until it is cancelled, and then clean up with several awaits."""
        try:
            await client.rpush(f"began:{name}", f"{context.remaining():.1f}")
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            await client.rpush(f"ended:{name}", "cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            await client.rpush(f"ended:{name}", "clean")


def _workflows(app: Celery, client: redis.asyncio.Redis) -> None:
    async def reserve(order: dict[str, Any], context: WorkflowContext) -> Any:
        """Fail the first time, so that a retry repeats the key."""
        name = order["name"]
        number = await client.rpush(f"keys:{name}", context.idempotency_key)
        if number % 2:
            raise ConnectionError("once more")
        return order

    async def wait(order: dict[str, Any]) -> Any:
        """Wait until the test opens the gate."""
        await client.rpush(f"began:{order['name']}", os.getpid())
        await client.blpop([f"gate:{order['name']}"], timeout=0)
        return {**order, "done": True}

    workflow = RetryPrimitive(step(reserve), initial_delay=0.001) >> step(wait)
    workflow_task(app, workflow, name="jobs.order")


if "TTA_JOBS_BROKER" in os.environ:
    app = make_app(
        os.environ["TTA_JOBS_BROKER"],
        os.environ["TTA_JOBS_BACKEND"],
        os.environ["TTA_JOBS_QUEUE"],
    )
