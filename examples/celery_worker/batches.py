"""The workflow: read a batch, find the odd readings, store the report."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from pathlib import Path
from typing import TypedDict

from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive, TimeoutPrimitive

__all__ = ["Batch", "Report", "check", "folder", "load", "process", "store"]

_ODD = 3.5
"""How many deviations from the median make a reading odd."""


class Batch(TypedDict):
    """The readings of a batch, by meter."""

    batch_id: str
    readings: dict[str, float]


class Report(TypedDict):
    """What was found."""

    batch_id: str
    meters: int
    odd: list[str]


def folder() -> Path:
    """Return where batches come in and reports go out."""
    return Path(os.environ.get("BATCHES", "batches"))


@step
async def load(batch_id: str) -> Batch:
    """Read `<batch>.json`, an object of meters and readings."""
    path = folder() / f"{batch_id}.json"
    readings = json.loads(await asyncio.to_thread(path.read_text, "utf-8"))
    return {"batch_id": batch_id, "readings": readings}


@step
async def check(batch: Batch) -> Report:
    """Find readings far from the median, measured in median deviations."""
    values = list(batch["readings"].values())
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values) or 1.0
    odd = [
        meter
        for meter, value in batch["readings"].items()
        if abs(value - middle) / (1.4826 * spread) > _ODD
    ]
    return {"batch_id": batch["batch_id"], "meters": len(values), "odd": sorted(odd)}


@step
async def store(report: Report, context: WorkflowContext) -> Report:
    """Write `<batch>.report.json`, once: a batch that comes again changes nothing.

    The file is written beside its place, under the idempotency key, and then moved: a
    worker that is killed in between leaves no half report.
    """
    place = folder() / f"{report['batch_id']}.report.json"
    draft = folder() / f"{report['batch_id']}.{context.idempotency_key}.draft"
    await asyncio.to_thread(draft.write_text, json.dumps(report), "utf-8")
    await asyncio.to_thread(draft.replace, place)
    return report


# Storage that is away for a moment is asked again; a batch that is not there is not.
_storage = {"max_retries": 3, "give_up_on": (FileNotFoundError, ValueError)}

process = (
    RetryPrimitive(TimeoutPrimitive(load, timeout_seconds=10), **_storage)
    >> check
    >> RetryPrimitive(TimeoutPrimitive(store, timeout_seconds=10), **_storage)
)
