"""Another attempt after a failure: `RetryPrimitive`."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, overload

from tta_primitives import door
from tta_primitives.arguments import check_choice, check_count, check_flag, seconds
from tta_primitives.door import closing
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand
from tta_primitives.recovery.attempts import Attempt, attached
from tta_primitives.recovery.backoff import (
    Backoff,
    BackoffStrategy,
    Jitter,
    check_factor,
    check_strategy,
)
from tta_primitives.recovery.budget import RetryBudget
from tta_primitives.recovery.classify import (
    ErrorFilter,
    Judge,
    check_filter,
    check_predicate,
)
from tta_primitives.recovery.options import changed
from tta_primitives.recovery.repetition import Counts, Repetition
from tta_primitives.recovery.results import discard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta
    from typing import Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["RetryOptions", "RetryPrimitive", "RetryStats"]

_JITTERS = ("full", "equal", "none")
_ENDINGS = ("raise", "return")


class RetryOptions(TypedDict, total=False):
    """The keyword arguments of `RetryPrimitive`, which documents them."""

    max_retries: int | None
    backoff_strategy: BackoffStrategy
    initial_delay: float | timedelta
    backoff_factor: float
    max_delay: float | timedelta
    jitter: Jitter
    max_elapsed: float | timedelta | None
    attempt_timeout: float | timedelta | None
    retry_on: ErrorFilter | None
    give_up_on: ErrorFilter
    retry_if_result: Callable[[Any], Any] | None
    respect_retry_after: bool
    max_retry_after: float | timedelta | None
    budget: RetryBudget | None
    on_exhausted: Literal["raise", "return"]
    on_retry: Callable[[Attempt], None] | None
    retry_nested: bool


@dataclass(frozen=True, slots=True)
class RetryStats:
    """What a retry has done so far.

    What ended in a cancellation is among the calls, and nowhere else.

    Attributes:
        calls: Executions that began, those that succeed at once included.
        retries: Attempts that followed a failed one.
        recovered: Executions that succeeded after a failed attempt.
        exhausted: Executions that failed because `max_retries` was reached.
        budget_exhausted: Executions that failed because the budget allowed no retry.
        gave_up: Executions that failed for another reason: the error was not one to
            retry, the deadline left no time, or it was told to wait for too long.
    """

    calls: int
    retries: int
    recovered: int
    exhausted: int
    budget_exhausted: int
    gave_up: int

    @property
    def failures(self) -> int:
        """Executions that failed, for whatever reason."""
        return self.exhausted + self.budget_exhausted + self.gave_up

    @property
    def retry_ratio(self) -> float:
        """Retries for each call: 1.0 is twice the load; 0.0 before the first call."""
        return self.retries / self.calls if self.calls else 0.0


class RetryPrimitive(Wrapper[In, Out]):
    """Executes a primitive again after a failure that may pass.

    The error of the last attempt is raised itself, with a note that lists all attempts;
    `attempts_of(error)` returns them. Cancellation is never retried, nor is an error
    that a step has made of it. When the deadline leaves no time for the next attempt,
    the error is raised at once, without waiting.

    A step that is not idempotent is repeated only after a rejection, which means that
    nothing was executed, and after errors that `retry_on` lists. All attempts see the
    same idempotency keys in their context. A stream is retried until its first chunk.

    Observers hear `retry.attempt` (attempt), `retry.scheduled` (delay, attempt, error),
    and at the end `retry.exhausted` (attempt, error), `retry.budget_exhausted`
    (attempt, error) or `retry.gave_up` (reason, attempt, error).

    Args:
        primitive: A primitive or a function; without it the retry is open.
        max_retries: How many attempts may follow the first. None for any number, which
            needs `max_elapsed` or a budget.
        backoff_strategy: How delays grow: `"constant"`, `"linear"`, `"exponential"`,
            `"fibonacci"`, `"decorrelated"`, a list of seconds whose last value is
            repeated, or a function from the number of the retry (1, 2, ...) to seconds.
        initial_delay: Before the first retry, in seconds.
        backoff_factor: Growth of the exponential strategy, at least 1.
        max_delay: No backoff is longer, in seconds, not even `initial_delay`.
        jitter: `"full"` (between 0 and the delay), `"equal"` (between its half and the
            whole) or `"none"`.
        max_elapsed: All attempts and delays together may take so long, in seconds; an
            attempt that is under way then is cancelled.
        attempt_timeout: Limit on each attempt, in seconds.
        retry_on: Which errors are retried: a type, a tuple of types, or a predicate.
            None for all that do not say they are permanent (HTTP statuses like 401 or
            404, an exhausted quota, an open circuit, programming errors).
        give_up_on: Which errors are not, whatever `retry_on` says.
        retry_if_result: A predicate on results; one that it refuses is retried, after
            `await result.aclose()` if it has that.
        respect_retry_after: Whether to wait as long as an error asks: by its attribute
            `retry_after` or the headers `Retry-After` and `retry-after-ms`. The
            jittered backoff is added to it; with `jitter="none"` the longer of the two
            counts.
        max_retry_after: An error that asks to wait for more seconds is raised at once;
            None to wait for however long.
        budget: An allowance of retries shared with others.
        on_exhausted: Whether a last result that was refused raises a
            `RetryResultError` (`"raise"`) or is returned (`"return"`).
        on_retry: Called before each delay with the failed `Attempt`; what it raises is
            logged once and ignored.
        retry_nested: Whether to retry an error that a retry further inside has already
            exhausted, which multiplies their attempts.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or nothing bounds the retries.
    """

    @overload
    def __init__(
        self: RetryPrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[RetryOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: AsyncOperand[In, Out], **options: Unpack[RetryOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: SyncOperand[In, Out], **options: Unpack[RetryOptions]
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        max_retries: int | None = 3,
        backoff_strategy: BackoffStrategy = "exponential",
        initial_delay: float | timedelta = 0.5,
        backoff_factor: float = 2.0,
        max_delay: float | timedelta = 30.0,
        jitter: Jitter = "full",
        max_elapsed: float | timedelta | None = None,
        attempt_timeout: float | timedelta | None = None,
        retry_on: ErrorFilter | None = None,
        give_up_on: ErrorFilter = (),
        retry_if_result: Callable[[Any], Any] | None = None,
        respect_retry_after: bool = True,
        max_retry_after: float | timedelta | None = 60.0,
        budget: RetryBudget | None = None,
        on_exhausted: Literal["raise", "return"] = "raise",
        on_retry: Callable[[Attempt], None] | None = None,
        retry_nested: bool = False,
    ) -> None:
        self._set_limits(max_retries, max_elapsed, attempt_timeout, budget)
        self.initial_delay: float = seconds("initial_delay", initial_delay, zero=True)
        self.backoff_factor: float = check_factor(backoff_factor)
        self.max_delay: float = seconds("max_delay", max_delay, zero=True)
        self.jitter = cast("Jitter", check_choice("jitter", jitter, _JITTERS))
        self.backoff_strategy = check_strategy(backoff_strategy, self.max_delay)
        self.retry_on: ErrorFilter | None = (
            None if retry_on is None else check_filter("retry_on", retry_on)
        )
        self.give_up_on: ErrorFilter = check_filter("give_up_on", give_up_on)
        self.retry_if_result: Callable[[Any], Any] | None = check_predicate(
            "retry_if_result", retry_if_result
        )
        self.respect_retry_after: bool = check_flag(
            "respect_retry_after", respect_retry_after
        )
        self.max_retry_after: float | None = (
            None
            if max_retry_after is None
            else seconds("max_retry_after", max_retry_after, infinite=True)
        )
        self.on_exhausted: str = check_choice("on_exhausted", on_exhausted, _ENDINGS)
        self.on_retry: Callable[[Attempt], None] | None = _check_hook(on_retry)
        self.retry_nested: bool = check_flag("retry_nested", retry_nested)
        self._backoff = Backoff(
            self.backoff_strategy,
            self.initial_delay,
            self.backoff_factor,
            self.max_delay,
            self.jitter,
        )
        if primitive is not None:
            self._wrap(as_operand(primitive))

    _bound_attributes = (
        *Wrapper._bound_attributes,
        *("_counts", "_judge", "_is_limited", "_plain"),
    )
    # What is executed without further ado: what is wrapped, if nothing has to be
    # prepared or checked for it.
    _plain: WorkflowPrimitive[Any, Any] | None = None

    def _set_limits(
        self,
        max_retries: int | None,
        max_elapsed: float | timedelta | None,
        attempt_timeout: float | timedelta | None,
        budget: RetryBudget | None,
    ) -> None:
        if max_retries is not None:
            check_count("max_retries", max_retries)
        elif max_elapsed is None and budget is None:
            msg = (
                "max_retries=None needs max_elapsed= or budget=, "
                "or nothing would end the retries"
            )
            raise ValueError(msg)
        if budget is not None and not isinstance(budget, RetryBudget):
            msg = f"budget={budget!r} must be a RetryBudget or None"
            raise TypeError(msg)
        self.max_retries = max_retries
        self.budget = budget
        self.max_elapsed: float | None = _optional_seconds("max_elapsed", max_elapsed)
        self.attempt_timeout: float | None = _optional_seconds(
            "attempt_timeout", attempt_timeout
        )

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._counts = Counts()
        self._needs_position = primitive._needs_position
        self._judge = Judge(self.retry_on, self.give_up_on, primitive)
        self._is_limited = not (self.max_elapsed is self.attempt_timeout is None)
        is_special = self._is_limited or self.budget or self.retry_if_result
        is_plain = not (is_special or primitive._needs_position)
        self._plain = primitive if is_plain else None

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the usual ones."""
        return changed(self, RetryPrimitive.__init__)

    @property
    def stats(self) -> RetryStats:
        """Return what was counted so far, also for renamed twins of this retry.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts = self._counts
        return RetryStats(
            calls=int(counts.calls),
            retries=counts.retries,
            recovered=counts.recovered,
            exhausted=counts.exhausted,
            budget_exhausted=counts.budget_exhausted,
            gave_up=counts.gave_up,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive, again and again while that is worth it."""
        plain = self._plain
        if plain is None or door._anyone:
            run = Repetition(self, context, attached[0])
            self._counts.calls += 1.0
            return await self._repeat(input_data, run)
        since = attached[0]
        self._counts.calls += 1.0
        try:
            return await plain.execute(input_data, context)  # type: ignore[no-any-return]
        except Exception as error:
            run = Repetition(self, context, since)
            if not run.goes_on(error):
                raise
        return await self._repeat(input_data, run)

    async def _repeat(self, input_data: In, run: Repetition) -> Out:
        refuses = self.retry_if_result
        try:
            while True:
                if run.must_wait:
                    await asyncio.sleep(run.delay)
                try:
                    result = await run.attempt(input_data)
                except Exception as error:
                    if not run.goes_on(error):
                        raise
                    continue
                if refuses is None or not refuses(result):
                    if run.failures:
                        self._counts.recovered += 1
                    return cast("Out", result)
                if not run.goes_on(None):
                    return cast("Out", run.last_result(result))
                await discard(result)
        finally:
            run.failures.clear()

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the chunks of the first attempt that has a first chunk."""
        run = Repetition(self, context, attached[0])
        self._counts.calls += 1.0
        is_committed = False
        try:
            while True:
                if run.must_wait:
                    await asyncio.sleep(run.delay)
                try:
                    async with closing(run.stream(input_data)) as chunks:
                        async for chunk in chunks:
                            is_committed = True
                            yield chunk
                    if run.failures:
                        self._counts.recovered += 1
                    return
                except Exception as error:
                    if is_committed or not run.goes_on(error):
                        raise
        finally:
            run.failures.clear()


def _optional_seconds(name: str, value: object) -> float | None:
    return None if value is None else seconds(name, value)


def _check_hook(value: object) -> Callable[[Attempt], None] | None:
    hook = check_predicate("on_retry", value)
    if inspect.iscoroutinefunction(hook):
        msg = f"on_retry={value!r} must be a sync function: it is called, not awaited"
        raise TypeError(msg)
    return hook
