"""A Flask service that tests run under real servers."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path

import redis.asyncio
from flask import Flask, Response, jsonify, request

from tta_primitives import WorkflowContext, step
from tta_primitives.integrations.flask import Tta, request_context
from tta_primitives.integrations.flask import post_worker_init as _post_worker_init
from tta_primitives.performance import CachePrimitive
from tta_primitives.recovery import FallbackPrimitive, TimeoutPrimitive
from tta_primitives.runtime import Lifecycle

FOLDER = Path(os.environ.get("SERVICE_FOLDER", "."))
# One client for the process, made at import, as people do.
client = redis.asyncio.Redis.from_url(
    os.environ.get("SERVICE_REDIS", "redis://127.0.0.1:6379/0"),
    socket_timeout=0.5,
    socket_connect_timeout=0.5,
)

lifecycle = Lifecycle(
    drain_seconds=float(os.environ.get("SERVICE_DRAIN", "20")),
    prestop_seconds=float(os.environ.get("SERVICE_PRESTOP", "0")),
)
lifecycle.on_shutdown(client.aclose)
app = Flask(__name__)
tta = Tta(app, lifecycle=lifecycle, request_timeout=30)


@step
async def count(name: str) -> int:
    """Count requests in Redis: two commands on the shared client."""
    await client.incr(name)
    return int(await client.get(name) or 0)


@step
async def square(number: int) -> int:
    """Do what is worth keeping."""
    await asyncio.sleep(0)
    return number * number


@step
async def wait(name: str, context: WorkflowContext) -> str:
    """Wait for a file of the test's."""
    while not (FOLDER / name).exists():
        await asyncio.sleep(0.01)
    return context.correlation_id


counting = FallbackPrimitive(TimeoutPrimitive(count, timeout_seconds=0.5), [-1])
squaring = CachePrimitive(square, ttl=60, storage=client, namespace="squares")


@app.get("/count/<int:number>")
def count_it(number: int) -> Response:
    """Use Redis twice: as a client, and as the storage of a cache."""
    counted = tta.run_workflow(counting, "requests")
    squared = tta.run_workflow(squaring, number)
    identity = request_context().correlation_id
    return jsonify(counted=counted, squared=squared, id=identity, pid=os.getpid())


@app.get("/async")
async def asynchronous() -> str:
    """Answer from the loop."""
    await asyncio.sleep(0)
    return request_context().correlation_id


@app.get("/wait/<name>")
def waiting(name: str) -> str:
    """Be a request that runs."""
    return tta.run_workflow(wait, name)


@app.get("/running")
def running() -> Response:
    """Tell how many run in this process."""
    return jsonify(pid=os.getpid(), running=lifecycle.running)


@app.post("/later/<name>")
def later(name: str) -> tuple[str, int]:
    """Accept work, and answer before it is done."""
    tta.spawn(_later(name, request.get_data(as_text=True)))
    return "accepted", 202


async def _later(name: str, text: str) -> None:
    await wait.execute(name, WorkflowContext())
    # Resolving a name needs a thread of the loop's pool.
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)
    (FOLDER / "done").write_text(text)


def post_worker_init(worker: object) -> None:
    """Give gunicorn what `gunicorn.conf.py` would import."""
    _post_worker_init(worker)


def fork() -> None:
    """Serve in a process, in a fork of it, and in the process again."""
    client = app.test_client()

    def answers() -> tuple[int, int]:
        return client.get("/async").status_code, client.get("/readyz").status_code

    sys.stdout.write(f"before {answers()}\n")
    sys.stdout.flush()
    # From 3.12 on it warns of the very thing that is tested here.
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    sys.stdout.write(f"{'parent' if pid else 'child'} {answers()}\n")
    sys.stdout.flush()
    if pid:
        os.waitpid(pid, 0)
        sys.stdout.write(f"after {answers()}\n")


if __name__ == "__main__":
    fork()
