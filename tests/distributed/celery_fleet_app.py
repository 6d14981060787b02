"""What the Celery workers of the tests serve: `-A tests.distributed.celery_fleet_app`.

The tests, which are its callers, make their engine with the same function.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from celery import Celery

from tests.distributed.fleet_app import note
from tta_primitives import WorkflowContext, step
from tta_primitives.distributed.conformance import check_registry
from tta_primitives.integrations.celery_fleet import CeleryEngine


@step
async def effect(asked: dict, context: WorkflowContext) -> str:
    """Leave a note that it began, wait until it may go on, and leave one at its end."""
    folder = Path(asked["folder"])
    key, pid = context.idempotency_key, os.getpid()
    note(folder, f"began {asked['name']} {key} {pid}")
    while not (folder / "go").exists():
        await asyncio.sleep(0.01)
    note(folder, f"ended {asked['name']} {key} {pid}")
    return asked["name"]


def make_fleet(broker: str, queue: str) -> CeleryEngine:
    """Return an engine as callers and workers use it."""
    app = Celery("fleet", broker=broker, set_as_current=False)
    options: dict[str, Any] = {"confirm_publish": True}
    if broker.startswith("redis"):
        options = {
            "visibility_timeout": 3,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options=options,
        task_default_queue=queue,
        worker_enable_prefetch_count_reduction=False,
        worker_prefetch_multiplier=1,
    )
    registry = check_registry()
    registry.register(effect)
    return CeleryEngine(registry, app=app, name=queue)


if "TTA_CELERY_FLEET" in os.environ:
    engine = make_fleet(
        os.environ["TTA_CELERY_FLEET"], os.environ["TTA_CELERY_FLEET_QUEUE"]
    )
    app = engine.app
