"""What the workers of the tests serve: `taskiq worker <this module>:broker`.

The tests, which are its callers, make their engine with the same function.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tta_primitives import WorkflowContext, step
from tta_primitives.distributed.conformance import check_registry
from tta_primitives.integrations.taskiq_redis import redis_fleet

if TYPE_CHECKING:
    from tta_primitives.integrations.taskiq import TaskiqEngine

VISIBLE = 1.0


@step
async def effect(asked: dict, context: WorkflowContext) -> str:
    """Leave a note that it began, wait until it may go on, and note its end."""
    folder = Path(asked["folder"])
    note(folder, f"began {asked['name']} {context.idempotency_key} {os.getpid()}")
    while asked.get("waits") and not (folder / "go").exists():
        await asyncio.sleep(0.01)
    note(folder, f"ended {asked['name']} {context.idempotency_key} {os.getpid()}")
    return asked["name"]


@step
async def crash(asked: dict) -> str:
    """Kill the worker that performs it."""
    note(Path(asked["folder"]), "crash")
    os.kill(os.getpid(), 9)
    return "never"


def note(folder: Path, text: str) -> None:
    """Append a line to the notes."""
    with (folder / "effects").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def make_fleet(url: str, **options: object) -> TaskiqEngine:
    """Return an engine as callers and workers use it."""
    registry = check_registry()
    registry.register(effect)
    registry.register(crash)
    options = {"visibility_timeout": VISIBLE, "max_deliveries": 2, **options}
    return redis_fleet(url, registry, queue="tta-tests", **options)


if "TTA_FLEET_REDIS" in os.environ:
    engine = make_fleet(os.environ["TTA_FLEET_REDIS"])
    broker = engine.broker
