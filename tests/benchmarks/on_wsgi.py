"""What a request costs in a web framework with us, beside the plain view.

The processor's time is that of all threads. What it takes on the wall, with the time in
which one thread wakes up for another, is told beside it: a busy machine multiplies it.
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measure import race
from tests.benchmarks.table import Figures, Rows
from tta_primitives import WorkflowContext, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.measure import Block, Pace

__all__ = ["ROWS"]

ROWS = Rows("Web frameworks, one request of two steps")


def double(number: int) -> int:
    """Do the first step."""
    return number * 2


def more(number: int) -> int:
    """Do the second step."""
    return number + 1


workflow = step(double) >> step(more)

_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": BytesIO(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    "HTTP_HOST": "localhost",
    "HTTP_X_CORRELATION_ID": "order-7",
    "HTTP_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def _requests(app: Any, clock: Callable[[], float] = process_time) -> Block:
    """Return the block that asks an application as a server would."""
    statuses: set[str] = set()

    def start(status: str, _headers: object, _error: object = None) -> None:
        statuses.add(status)

    def block(count: int) -> float:
        begin = clock()
        for _ in range(count):
            reply = app({**_ENVIRON, "wsgi.input": BytesIO()}, start)
            b"".join(reply)
            reply.close()
        taken = clock() - begin
        if statuses != {"200 OK"}:
            msg = f"requests were answered with {statuses}"
            raise RuntimeError(msg)
        return taken

    return block


def _app(view: Callable[[], object]) -> Any:
    from flask import Flask

    app = Flask("bench")
    app.add_url_rule("/", view_func=view)
    return app


def _ours() -> tuple[Any, Callable[[], None]]:
    """Return an application with the extension, and what ends its loop."""
    from tta_primitives.integrations.flask import Tta
    from tta_primitives.runtime import LoopThread

    loop = LoopThread(name="bench-loop")
    tta = Tta(loop=loop, request_timeout=30)
    app = _app(lambda: str(tta.run_workflow(workflow, 20)))
    tta.init_app(app)
    return app, loop.close


def _run_each() -> str:
    """Answer as the plainest code does: with a loop for each request."""
    return str(asyncio.run(workflow.execute(20, WorkflowContext())))


@ROWS.row(
    "flask",
    "Flask, a workflow on the loop",
    "us over a sync view",
    200,
    because=(
        "A request goes to the thread of the loop and back, which is two switches "
        "between threads; a loop for each request, beside, takes as long. It came to "
        "176 and 179 where the plain view took 80 us, and to 245 where it took 117."
    ),
)
def flask(pace: Pace) -> Figures:
    """Race a workflow on the process's loop with the same work in a sync view."""
    ours, close = _ours()
    plain = _app(lambda: str(more(double(20))))
    blocks = {
        "plain": _requests(plain),
        "ours": _requests(ours),
        "asyncio.run": _requests(_app(_run_each)),
        "plain on the wall": _requests(plain, perf_counter),
        "ours on the wall": _requests(ours, perf_counter),
    }
    try:
        times = race(blocks, pace)
    finally:
        close()
    each = times.extra("asyncio.run", "plain") * 1e6
    wall = times.extra("ours on the wall", "plain on the wall") * 1e6
    reference = times.seconds("plain") * 1e6
    return Figures(
        times.extra("ours", "plain") * 1e6,
        {"asyncio.run": each},
        f"the reference: {reference:.0f} us; on the wall: {wall:.0f} us more",
    )
