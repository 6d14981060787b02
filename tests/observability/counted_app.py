"""A service whose workers all count: under gunicorn, or started by hand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from tta_primitives import WorkflowContext, step
from tta_primitives.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@step
async def work(value: object) -> object:
    """Do the work that is counted."""
    return value


def worked(count: int) -> None:
    """Do it several times."""

    async def many() -> None:
        for _ in range(count):
            await work.execute(1, WorkflowContext())

    asyncio.run(many())


def began() -> metrics.Metrics:
    """Start to count, as the environment of the test says."""
    port = int(os.environ["METRICS_PORT"])
    return metrics.start("counted", port=port, retry_seconds=0.05)


def application(environ: dict[str, Any], start: Callable) -> Iterable[bytes]:
    """Work once for each request, and say which process it was."""
    if environ["PATH_INFO"] == "/work":
        worked(1)
    start("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


def said(words: str) -> None:
    """Tell the test something, in one write."""
    os.write(1, f"{words}\n".encode())


def forked(count: int) -> None:
    """Work in this process, and as often in forks of it, then wait."""
    began()
    worked(count)
    for _ in range(3):
        if os.fork() == 0:
            worked(count)
            break
    else:
        said(f"parent {os.getpid()}")
    said("worked")
    signal.pause()


def alone(count: int) -> None:
    """Work in this process, then wait."""
    found = began()
    worked(count)
    said(f"worked, serving {found.port}")
    signal.pause()


def leaving(count: int) -> None:
    """Work, and shut down in order."""
    found = began()
    worked(count)
    found.shutdown()
    said("left")


def folders_of(broker: str) -> dict[str, str]:
    """Return where a broker that is a folder keeps everything."""
    names = ("data_folder_in", "data_folder_out", "control_folder")
    return {**dict.fromkeys(names, broker), "processed_folder": f"{broker}/done"}


if os.environ.get("BEGIN_ON_IMPORT"):
    began()

if os.environ.get("BROKER_FOLDER"):
    from celery import Celery

    app = Celery("counted", broker="filesystem://")
    app.conf.broker_transport_options = folders_of(os.environ["BROKER_FOLDER"])

    @app.task
    def job() -> None:
        """Work once for each task, and tell of it."""
        worked(1)
        said(f"job of {os.getpid()}")


if __name__ == "__main__":
    {"forked": forked, "alone": alone, "leaving": leaving}[sys.argv[1]](
        int(sys.argv[2])
    )
