"""The error that nothing between a double and the test may swallow."""

from __future__ import annotations

__all__ = ["UnexpectedCall"]


class UnexpectedCall(BaseException):
    """Report a call that no script foresaw.

    It is no `Exception`, so that neither a retry, nor a fallback, nor an SDK's own
    `except Exception` takes it for a failure of the model. It is no
    `KeyboardInterrupt` either: tasks, `gather` and `TaskGroup` carry it like any other
    error. Whoever raises it also keeps it, so that the test fails even if it was
    swallowed.
    """
