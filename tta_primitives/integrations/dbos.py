"""Durable workflows on DBOS: SQLite for one process, PostgreSQL for a fleet."""

from __future__ import annotations

from tta_primitives.extras import needs

with needs("dbos", __name__):
    import dbos as _dbos  # noqa: F401 - before those below, which would name themselves

from tta_primitives.integrations.dbos_runtime import (
    DurableRuntime,
    RunHandle,
    durable_runtime,
)
from tta_primitives.integrations.dbos_status import RunStatus
from tta_primitives.integrations.dbos_steps import DatabaseStep, done_steps
from tta_primitives.integrations.dbos_workflows import DurableWorkflow, durable

__all__ = [
    "DatabaseStep",
    "DurableRuntime",
    "DurableWorkflow",
    "RunHandle",
    "RunStatus",
    "done_steps",
    "durable",
    "durable_runtime",
]
