"""Jobs that workers of tests execute, and note in Redis what they saw."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio
from rq import get_current_job

from tta_primitives import step
from tta_primitives.integrations.rq import async_job, job_context, run_workflow
from tta_primitives.runtime import loop_thread

# One client for the process, made at import, as people do.
client = redis.asyncio.Redis.from_url(
    os.environ.get("JOBS_REDIS", "redis://127.0.0.1:6379/0")
)


@step
async def remember(text, context):
    """Write to Redis on the shared client, and tell what the step saw."""
    await client.rpush("seen", text)
    return {
        "text": text,
        "correlation_id": context.correlation_id,
        "key": context.idempotency_key,
        "user": context.state.get("user"),
    }


@async_job
async def remember_async(text):
    """Be an async job."""
    return await remember.execute(text, job_context())


def remember_sync(text):
    """Be a plain job with a workflow in it."""
    return run_workflow(remember, text)


@async_job
async def hang():
    """Work until the time of the job is up, and clean up."""
    await client.rpush("seen", "began")
    try:
        await asyncio.Event().wait()
    finally:
        await client.rpush("seen", "cleaned")


@async_job
async def wait_for_word():
    """Work until somebody pushes a word."""
    await client.rpush("seen", "began")
    await client.rpush("pids", os.getpid())
    while (word := await client.lpop("words")) is None:
        await asyncio.sleep(0.01)
    return word.decode()


@async_job
async def submit_more(text):
    """Begin work that nobody waits for."""

    async def later():
        """Note it, a little later."""
        await asyncio.sleep(0.05)
        await client.rpush("seen", text)

    loop_thread().submit(later())
    return "submitted"


@async_job
async def fail_once():
    """Fail the first time that it is executed."""
    tries = await client.rpush("seen", job_context().idempotency_key)
    if tries == 1:
        raise ConnectionError("down")
    return get_current_job().id


@async_job
async def remaining():
    """Return how many seconds the job has."""
    return job_context().remaining()
