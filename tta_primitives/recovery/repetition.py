"""One execution of a retry: when the next attempt comes, and why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from tta_primitives import door
from tta_primitives.cancellation import is_cancellation
from tta_primitives.context import Enforced, earlier
from tta_primitives.deadline import until, within_stream
from tta_primitives.door import closing, emit, is_listening, log_once
from tta_primitives.errors import RetryResultError
from tta_primitives.loops import now
from tta_primitives.recovery.attempts import (
    Attempt,
    Failure,
    attach,
    attached,
    is_exhausted,
    is_fresh,
    keep,
)
from tta_primitives.recovery.hints import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tta_primitives.context import WorkflowContext
    from tta_primitives.recovery.retry import RetryPrimitive

__all__ = ["Counts", "Repetition"]

_Stop: TypeAlias = Literal[
    "budget",
    "cancelled",
    "deadline",
    "max_retries",
    "nested",
    "not_retryable",
    "retry_after",
]
_EVENTS: Final = {"max_retries": "retry.exhausted", "budget": "retry.budget_exhausted"}
_REASONS: Final = {
    "budget": "retry budget exhausted",
    "cancelled": "the task was cancelled",
    "deadline": "the deadline leaves no time for another attempt",
    "max_retries": "max_retries={retry.max_retries}",
    "nested": "a retry further inside has given up",
    "not_retryable": "the last error is not one to retry",
    "retry_after": (
        "told to wait longer than max_retry_after={retry.max_retry_after:g} s"
    ),
}


class Counts:
    """The counters of one retry, as `RetryStats` explains them."""

    __slots__ = (
        "budget_exhausted",
        "calls",
        "exhausted",
        "gave_up",
        "recovered",
        "retries",
    )

    def __init__(self) -> None:
        # On the way of every call, and CPython adds floats faster than whole numbers.
        self.calls: float = 0.0
        self.retries: int = 0
        self.recovered: int = 0
        self.exhausted: int = 0
        self.budget_exhausted: int = 0
        self.gave_up: int = 0

    def note_end(self, stop: _Stop) -> None:
        """Count an execution after which no attempt follows; a cancelled one is not."""
        if stop == "max_retries":
            self.exhausted += 1
        elif stop == "budget":
            self.budget_exhausted += 1
        elif stop != "cancelled":
            self.gave_up += 1


class Repetition:
    """One execution of a retry, made at its start or at its first failure.

    Attributes:
        delay: Seconds before the next attempt.
        failures: The failed attempts so far.
        must_wait: Whether a turn of the loop, at least, comes before the next attempt.
    """

    __slots__ = (
        "_backoff",
        "_context",
        "_deadline",
        "_elapsed_at",
        "_number",
        "_retry",
        "_since",
        "_stop",
        "_view",
        "delay",
        "failures",
        "must_wait",
    )

    _stop: _Stop

    def __init__(
        self, retry: RetryPrimitive[Any, Any], context: WorkflowContext, since: int
    ) -> None:
        self._retry = retry
        self._context = self._view = context
        self._deadline = context.deadline
        self._elapsed_at: float | None = None
        self._number = 1
        # How many histories had been attached when the attempt began.
        self._since = since
        self._backoff: float | None = None
        self.delay: float = 0.0
        self.must_wait: bool = False
        self.failures: list[Failure] = []
        if retry._plain is None:
            self._prepare()

    def _prepare(self) -> None:
        """Do before the first attempt what a plain primitive does not need."""
        retry, context = self._retry, self._context
        primitive = retry._wrapped()
        if retry.budget is not None:
            retry.budget.note_call()
        if retry.max_elapsed is not None:
            self._elapsed_at = now() + retry.max_elapsed
            self._deadline = earlier(context.deadline, self._elapsed_at)
        if primitive._needs_position:
            own = context.child()
            own.open_key_scope(retry)
            self._view = own.below(retry, primitive, primitive.name)

    def attempt(self, input_data: Any) -> Awaitable[Any]:  # noqa: ANN401
        """Begin the next attempt."""
        retry = self._retry
        self._since = attached[0]
        if self._number > 1:
            retry._counts.retries += 1
        if door._anyone:
            emit(self._context, "retry.attempt", attempt=self._number)
        if not retry._is_limited:
            primitive: Any = retry.primitive
            return primitive.execute(input_data, self._view)  # type: ignore[no-any-return]
        deadline, limit = self._limit()
        execution = retry._wrapped().execute(input_data, self._view_until(deadline))
        return until(execution, deadline, limit, retry, self._context)

    def stream(self, input_data: Any) -> Any:  # noqa: ANN401
        """Begin the next attempt as a stream."""
        retry = self._retry
        self._since = attached[0]
        if self._number > 1:
            retry._counts.retries += 1
        if is_listening():
            emit(self._context, "retry.attempt", attempt=self._number)
        if not retry._is_limited:
            return retry._wrapped().stream(input_data, self._view)
        return self._limited_stream(input_data)

    async def _limited_stream(
        self,
        input_data: Any,  # noqa: ANN401 - any primitive's input
    ) -> AsyncIterator[Any]:
        deadline, limit = self._limit()
        view = self._view_until(deadline)
        retry, context = self._retry, self._context
        async with closing(retry._wrapped().stream(input_data, view)) as raw:
            bounded = within_stream(raw, deadline, limit, retry, context)
            async with closing(bounded) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _limit(self) -> tuple[float, float]:
        """Return the deadline of the next attempt, and the seconds until then."""
        present = now()
        timeout = self._retry.attempt_timeout
        own = None if timeout is None else present + timeout
        # What is enforced further outside is left to whoever does it.
        is_enforced = type(self._context.deadline) is Enforced
        last = self._elapsed_at if is_enforced else self._deadline
        deadline = cast("float", earlier(last, own))
        return deadline, deadline - present

    def _view_until(self, deadline: float) -> WorkflowContext:
        if not self._retry._wrapped()._reads_deadline:
            return self._view
        return self._view.child(deadline=Enforced(deadline))

    def goes_on(self, error: Exception | None) -> bool:
        """Tell whether another attempt follows, and make ready for it.

        If none does, the history is left on the error.

        Args:
            error: What the attempt raised; None if its result was refused.
        """
        is_over = error is not None and is_cancellation(error)
        stop = "cancelled" if is_over else self._why_stop(error)
        if stop is not None:
            self._stop = stop
            self._end(error)
            return False
        keep(self.failures, (self._number, error, self.delay))
        if door._anyone or self._retry.on_retry is not None:
            self._tell_retry(error)
        self._number += 1
        if self._view is not self._context:
            self._view.reopen_key_scope()
        return True

    def _why_stop(self, error: Exception | None) -> _Stop | None:
        """Return why no attempt follows; if one does, set the delay before it."""
        retry = self._retry
        hint = 0.0
        if error is not None and not retry._judge.knows_as_passing(error):
            final = self._why_final(error)
            if final is not None:
                return final
            if retry.respect_retry_after:
                hint = retry_after(error) or 0.0
        if retry.max_retries is not None and self._number > retry.max_retries:
            return "max_retries"
        longest = retry.max_retry_after
        if longest is not None and hint > longest:
            return "retry_after"
        if hint or not retry._backoff.is_zero or retry.max_retries is None:
            self._set_delay(hint)
        if self._deadline is not None and not self._is_in_time(self._deadline):
            return "deadline"
        if retry.budget is not None and not retry.budget.take():
            return "budget"
        return None

    def _why_final(self, error: Exception) -> _Stop | None:
        """Return why an error is not one to retry at all."""
        retry = self._retry
        since, owner = self._since, id(retry)
        if not retry.retry_nested and is_exhausted(error, since, owner):
            return "nested"
        idempotent = retry.idempotent
        is_worth = retry._judge.is_worth_retrying(error, idempotent=idempotent)
        return None if is_worth else "not_retryable"

    def _set_delay(self, hint: float) -> None:
        retry = self._retry
        backoff = self._backoff = retry._backoff.delay(self._number, self._backoff)
        self.delay = max(hint, backoff) if retry.jitter == "none" else hint + backoff
        # Endless retries always give way to others, even without a delay.
        self.must_wait = self.delay > 0 or retry.max_retries is None

    def _is_in_time(self, deadline: float) -> bool:
        return now() + self.delay < deadline

    def _tell_retry(self, error: Exception | None) -> None:
        if is_listening():
            number, delay = self._number, self.delay
            emit(
                self._context,
                "retry.scheduled",
                delay=delay,
                attempt=number,
                error=error,
            )
        hook = self._retry.on_retry
        if hook is not None:
            try:
                hook(Attempt(self._number, error, self.delay))
            except Exception as broken:  # noqa: BLE001 - a listener never changes a run
                log_once(hook, broken)

    def _end(self, error: Exception | None) -> None:
        """Tell why no attempt follows, and leave the history on the error."""
        number, stop = self._number, self._stop
        self._retry._counts.note_end(stop)
        if is_listening():
            name = _EVENTS.get(stop, "retry.gave_up")
            reason = {} if stop in _EVENTS else {"reason": stop}
            emit(self._context, name, attempt=number, error=error, **reason)
        if error is None or stop == "nested":
            return
        is_first = number == 1
        if is_first and is_fresh(error, self._since):
            # A retry further inside has told more than this one could.
            return
        is_quiet = is_first and stop in {"max_retries", "not_retryable"}
        keep(self.failures, (number, error, None))
        attach(
            error,
            self.failures,
            title=None if is_quiet else f"{self._title()}:",
            exhausted_by=None if stop == "not_retryable" else self._mark(),
        )
        # The error's traceback leads to the frame that holds this.
        self.failures.clear()

    def _mark(self) -> int | None:
        """Return what tells an outer retry to leave the error; none if switched off."""
        return id(self._retry) if self._retry.max_retries != 0 else None

    def _title(self) -> str:
        where = self._context.position_of(self._retry).path
        attempts = "1 attempt" if self._number == 1 else f"{self._number} attempts"
        reason = _REASONS[self._stop].format(retry=self._retry)
        return f"{where} gave up after {attempts} ({reason})"

    def last_result(self, result: Any) -> Any:  # noqa: ANN401 - any primitive's output
        """Return the last result although it was refused, or raise an error with it.

        Raises:
            RetryResultError: The retry was not told to return it.
        """
        if self._retry.on_exhausted == "return":
            return result
        error = RetryResultError(
            f"{self._title()}: retry_if_result refused the last result",
            last_result=result,
        )
        keep(self.failures, (self._number, None, None))
        attach(error, self.failures, title=None, exhausted_by=self._mark())
        try:
            raise error
        finally:
            # The traceback holds this frame, which must not hold the error.
            del error
