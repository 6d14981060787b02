"""What goes wrong with runs that survive their process.

PrimitiveError
└── DurableError
    ├── JournalError           a journal says what this workflow cannot have written
    ├── RunCancelledError      somebody has cancelled the run; it can be resumed
    ├── StepFailedError        a step had raised a type that is not known here
    ├── UnknownRunError        also a LookupError: there is no run with this id
    └── WorkflowChangedError   the run was begun by another version of the workflow
"""

from __future__ import annotations

from tta_primitives.errors import PrimitiveError

__all__ = [
    "DurableError",
    "Halted",
    "JournalError",
    "RunCancelledError",
    "SimulatedCrash",
    "StepFailedError",
    "UnknownRunError",
    "WorkflowChangedError",
]


class DurableError(PrimitiveError):
    """A run that should survive its process cannot go on, or has no result."""


class JournalError(DurableError):
    """A journal holds what the workflow that reads it cannot have written."""


class RunCancelledError(DurableError):
    """Somebody has cancelled the run: it stands where it was, and can be resumed."""


class StepFailedError(DurableError):
    """A step has raised an error whose type is not known to this process.

    Attributes:
        error_type: The name of the type, `module:qualname`.
    """

    def __init__(self, message: str, *, error_type: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class UnknownRunError(DurableError, LookupError):
    """There is no run with this id."""


class WorkflowChangedError(DurableError):
    """A run was begun by a version of the workflow that this process does not have."""


class Halted(BaseException):
    """An execution of a run ends here; another one will go on from the journal.

    It is no `Exception`: nothing retries it, falls back or compensates, as nothing does
    when a process is killed.
    """


class SimulatedCrash(Halted):
    """The process has died at this moment, as far as the run can tell."""
