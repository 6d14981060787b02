"""What goes wrong between a caller and its workers, beside what a step raises itself.

PrimitiveError
├── RemoteError               a step failed with an error that is unknown here
├── RemoteValueError          also a TypeError: it is no JSON and cannot be sent
├── RemoteDataError           also a ValueError: what arrived is no task of ours
├── UnknownWorkflowError      also a LookupError: no worker has it
└── EngineError               the engine itself failed; also a ConnectionError
    └── EngineClosedError     it was closed, or is closing
"""

from __future__ import annotations

from tta_primitives.errors import PrimitiveError

__all__ = [
    "EngineClosedError",
    "EngineError",
    "RemoteCancelledError",
    "RemoteDataError",
    "RemoteError",
    "RemoteValueError",
    "UnknownWorkflowError",
]


class RemoteError(PrimitiveError):
    """A step failed on a worker, with an error whose type is not known here.

    Errors of the standard library and of this one are raised as themselves, and so are
    those that `register_errors` has made known on both sides.

    Attributes:
        type: The error's type on the worker, for instance `billing.CardDeclined`.
        message: Its text.
        path: The position on the worker at which it was raised.
        retry_after: The seconds that it asked to wait, or None.
        retryable: Whether another attempt makes sense, as the worker sees it.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str,  # noqa: A002 - the name that users read on the error
        path: str,
        retry_after: float | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(f"{path} raised {type} on a worker: {message}")
        self.type = type
        self.message = message
        self.path = path
        self.retry_after = retry_after
        self.retryable = retryable


class RemoteCancelledError(PrimitiveError):
    """A step was cancelled on a worker, and not because its caller was.

    It cancelled itself, or somebody revoked the call. To its caller that is a failure
    like others: a cancellation that nobody asked for would be lost in a task group.
    """


class RemoteValueError(PrimitiveError, TypeError):
    """A value cannot be sent: it is no JSON."""


class RemoteDataError(PrimitiveError, ValueError):
    """What arrived is no task or reply of ours, or one of another version."""


class UnknownWorkflowError(PrimitiveError, LookupError):
    """A worker was asked for a workflow, or a position in one, that it does not have.

    Nothing was executed. During a rollout another worker may have it: a retry makes
    sense.
    """


class EngineError(PrimitiveError, ConnectionError):
    """The engine could not send a call, or lost sight of it.

    Whether the step was executed is unknown: retry what is idempotent.
    """


class EngineClosedError(EngineError):
    """The engine was closed, or is closing: callers that wait are told so."""
