"""Runs that survive their process: each step is recorded, and a resume goes on.

This is the part that needs no engine: what is recorded, how it is replayed, and a
journal in memory for tests. `tta_primitives.integrations.dbos` keeps journals in
SQLite or PostgreSQL.
"""

from __future__ import annotations

from tta_primitives.durable.errors import (
    DurableError,
    Halted,
    JournalError,
    RunCancelledError,
    SimulatedCrash,
    StepFailedError,
    UnknownRunError,
    WorkflowChangedError,
)
from tta_primitives.durable.journal import Journal, MemoryJournal
from tta_primitives.durable.runs import (
    OneStep,
    Resumption,
    Run,
    resume_everywhere,
    run_durably,
)
from tta_primitives.durable.values import known_errors

__all__ = [
    "DurableError",
    "Halted",
    "Journal",
    "JournalError",
    "MemoryJournal",
    "OneStep",
    "Resumption",
    "Run",
    "RunCancelledError",
    "SimulatedCrash",
    "StepFailedError",
    "UnknownRunError",
    "WorkflowChangedError",
    "known_errors",
    "resume_everywhere",
    "run_durably",
]
