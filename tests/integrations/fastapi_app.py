"""An application for real servers: `uvicorn tests.integrations.fastapi_app:app`."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis

from tta_primitives import step
from tta_primitives.integrations.fastapi import Context, EventStream, integrate
from tta_primitives.performance import CachePrimitive
from tta_primitives.runtime import HealthCheck, Lifecycle

redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:1"))

lifecycle = Lifecycle(
    drain_seconds=float(os.environ.get("DRAIN_SECONDS", "20")),
    prestop_seconds=float(os.environ.get("PRESTOP_SECONDS", "0")),
    checks=(
        {"redis": HealthCheck(redis.ping, required=False)}
        if "REDIS_URL" in os.environ
        else {}
    ),
)


@asynccontextmanager
async def lifespan(_app: FastAPI):
    """Observe what runs, and close what was opened; the lifecycle sends spans."""
    endpoint = os.environ.get("OTLP_ENDPOINT")
    if endpoint is not None:
        from tta_primitives.observability import initialize_observability

        initialize_observability(
            "fastapi-app", otlp_endpoint=endpoint, prometheus_port=None
        )
    yield
    await redis.aclose()


app = integrate(FastAPI(lifespan=lifespan), lifecycle, health="/health")


@step
async def wait(value: int) -> int:
    """Take until the process is told to end, and then some more."""
    await lifecycle.until_draining()
    await asyncio.sleep(float(os.environ.get("REST_SECONDS", "0.3")))
    return value


@step
async def double(value: int) -> int:
    """Return twice the value."""
    return value * 2


@step
async def count(limit: int):
    """Stream numbers, until nobody listens."""
    try:
        for number in range(limit):
            yield str(number)
            await asyncio.sleep(0.01)
    finally:
        print("stream closed", flush=True)  # noqa: T201 - a test reads it


workflow = wait >> double
quick = double >> double
cached = CachePrimitive(ttl=3600, storage=redis) >> double >> double


@app.get("/wait/{value}")
async def waiting(value: int, context: Context) -> dict:
    """Run a workflow that ends after the signal."""
    return {"value": await workflow.execute(value, context)}


@app.get("/quick/{value}")
async def quickly(value: int, context: Context) -> dict:
    """Run a workflow that ends at once."""
    found = await quick.execute(value, context)
    return {"value": found, "id": context.correlation_id}


@app.get("/cached/{value}")
async def from_the_cache(value: int, context: Context) -> dict:
    """Run a workflow whose result is kept in Redis."""
    found = await cached.execute(value, context)
    return {"value": found, "id": context.correlation_id}


@app.get("/hang")
async def hang() -> None:
    """Never answer."""
    await asyncio.Event().wait()


@app.get("/stream/{limit}")
async def stream(limit: int, context: Context) -> EventStream:
    """Stream numbers."""
    return EventStream(count.stream(limit, context))
