"""The tree of exceptions that the primitives raise.

    PrimitiveError(Exception)
    ├── ExecutionRejectedError            nothing was executed; carries retry_after
    │   ├── CircuitOpenError
    │   │   └── CircuitIsolatedError
    │   ├── BulkheadFullError
    │   ├── RateLimitExceededError
    │   └── LifecycleStoppedError         in tta_primitives.runtime
    ├── TimeoutExceededError              also a builtin TimeoutError
    ├── RetryResultError                  every result was refused by retry_if_result
    ├── CacheStorageError                 only with fail_open=False
    ├── CacheKeyError                     also a TypeError: the input has no key
    ├── NoRouteError                      also a LookupError
    ├── OpenWrapperError                  also a TypeError: a wrapper wraps nothing
    ├── UnboundStepError                  also a TypeError: an extra was not bound
    ├── LLMConfigurationError             in tta_primitives.llm; also a ValueError
    ├── IncompleteResponseError           in tta_primitives.llm; a tree of its own
    ├── FallbackExhaustedError            also an ExceptionGroup
    └── SagaCompensationError             also an ExceptionGroup

The user's own exceptions are never replaced: retry raises the last one again, the
circuit breaker passes it on, and cancellation is never wrapped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BulkheadFullError",
    "CacheKeyError",
    "CacheStorageError",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "ExecutionRejectedError",
    "FallbackExhaustedError",
    "NoRouteError",
    "OpenWrapperError",
    "PrimitiveError",
    "RateLimitExceededError",
    "RetryResultError",
    "SagaCompensationError",
    "TimeoutExceededError",
    "UnboundStepError",
]

ResultT = TypeVar("ResultT")


class PrimitiveError(Exception):
    """Every error that a primitive raises of its own accord."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes also with arguments that are keyword-only."""
        return partial(_again, type(self)), self.args, vars(self)


def _again(kind: type[PrimitiveError], *args: object) -> PrimitiveError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class ExecutionRejectedError(PrimitiveError):
    """Nothing was executed, so retrying or falling back is always safe.

    Attributes:
        retry_after: Seconds until a call may be admitted again, or None if unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CircuitOpenError(ExecutionRejectedError):
    """The circuit breaker is open."""


class CircuitIsolatedError(CircuitOpenError):
    """The circuit breaker was opened by hand and stays open until it is closed."""


class BulkheadFullError(ExecutionRejectedError):
    """All slots and all places in the queue are taken."""


class RateLimitExceededError(ExecutionRejectedError):
    """The rate limit does not admit this call within the allowed wait."""


class TimeoutExceededError(PrimitiveError, TimeoutError):
    """A time limit set by this library expired; the outcome of the step is unknown.

    Attributes:
        timeout_seconds: The limit that expired, in seconds.
    """

    def __init__(self, message: str, *, timeout_seconds: float) -> None:
        super().__init__(message)
        self.timeout_seconds = timeout_seconds


class RetryResultError(PrimitiveError, Generic[ResultT]):
    """All attempts returned a result that `retry_if_result` refused.

    Attributes:
        last_result: What the last attempt returned.
    """

    def __init__(self, message: str, *, last_result: ResultT) -> None:
        super().__init__(message)
        self.last_result = last_result


class CacheStorageError(PrimitiveError):
    """The cache's storage failed and `fail_open` is False."""


class CacheKeyError(PrimitiveError, TypeError):
    """An input has no canonical form that could serve as a cache key."""


class NoRouteError(PrimitiveError, LookupError):
    """The router function named a route that does not exist."""


class OpenWrapperError(PrimitiveError, TypeError):
    """A wrapper that wraps nothing yet was executed or used as an operand."""


class UnboundStepError(PrimitiveError, TypeError):
    """A step was executed before all of its extra parameters were bound."""


class FallbackExhaustedError(PrimitiveError, ExceptionGroup[Exception]):
    """The primary and every fallback failed; `exceptions` has them in order."""

    def derive(  # type: ignore[override]
        self,
        excs: Sequence[Exception],  # pyright: ignore[reportIncompatibleMethodOverride]
        /,
    ) -> FallbackExhaustedError:
        """Return a group of the same kind, as `split` and `subgroup` ask for."""
        return FallbackExhaustedError(self.message, excs)


class SagaCompensationError(PrimitiveError, ExceptionGroup[Exception]):
    """One or more compensations failed; `__cause__` is the failure that began it."""

    def derive(  # type: ignore[override]
        self,
        excs: Sequence[Exception],  # pyright: ignore[reportIncompatibleMethodOverride]
        /,
    ) -> SagaCompensationError:
        """Return a group of the same kind, as `split` and `subgroup` ask for."""
        return SagaCompensationError(self.message, excs)
