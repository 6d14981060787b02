"""What must hold of every run, whatever goes wrong: checks of a recorded trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.properties.reading import (
    check_ran,
    executions,
    fail,
    found,
    undecided,
    wrapped,
)
from tta_primitives.primitive import WorkflowPrimitive, labels
from tta_primitives.recovery.fallback import FallbackPrimitive
from tta_primitives.recovery.retry import RetryPrimitive
from tta_primitives.recovery.timeout import TimeoutPrimitive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.trace.spans import Span, Trace

__all__ = ["attempts_bounded", "deadline_kept", "fallback_order"]

# The clock counts whole nanoseconds; sums of seconds are a little off them.
_NANOSECOND = 1e-9


def attempts_bounded(trace: Trace, workflow: WorkflowPrimitive[Any, Any]) -> None:
    """Check that no retry made more attempts than `max_retries` and the first allow.

    Args:
        trace: What was recorded.
        workflow: What was run.

    Raises:
        AssertionError: One made more; or nothing can be decided, because the workflow
            has no retry with `max_retries` or was not run.
    """
    __tracebackhide__ = True
    check_ran(trace, workflow)
    retries = found(workflow, RetryPrimitive)
    if all(retry.max_retries is None for retry in retries):
        undecided(workflow, "has no retry with max_retries")
    for span, retry in executions(trace, RetryPrimitive):
        allowed = span.attempts if retry.max_retries is None else retry.max_retries + 1
        if span.attempts > allowed:
            fail(span, f"made {span.attempts} attempts, and {retry!r} allows {allowed}")


def deadline_kept(trace: Trace, *, cleanup_seconds: float = 0.0) -> None:
    """Check that whatever has a time limit ended within it, in virtual time.

    Limits are those of timeouts, `attempt_timeout` and `max_elapsed` of retries. No
    retry may plan an attempt for a time at which its limit will be over.

    Args:
        trace: What was recorded.
        cleanup_seconds: How long cleanup after a cancellation may take.

    Raises:
        AssertionError: Something took longer; or nothing can be decided, because
            nothing that ran has a limit.
    """
    __tracebackhide__ = True
    limited = list(_limited(trace))
    if not limited:
        msg = f"nothing that ran has a time limit: {trace!r}"
        raise AssertionError(msg)
    for span, retry in executions(trace, RetryPrimitive):
        _check_plans(span, retry)
    for span, began_at, limit, source in limited:
        end = began_at + limit + cleanup_seconds + _NANOSECOND
        if span.ended_at is None:
            fail(span, f"never ended, and {source} allows {limit:g} s")
        if span.ended_at > end:
            over = span.ended_at - began_at - limit
            fail(span, f"ended {over:g} s after the {limit:g} s that {source} allows")


def fallback_order(trace: Trace) -> None:
    """Check that alternatives ran in their order, one after the other, as needed.

    Args:
        trace: What was recorded.

    Raises:
        AssertionError: One ran out of turn, beside another, or although the one before
            had answered; or nothing can be decided, because no fallback ran.
    """
    __tracebackhide__ = True
    ran = list(executions(trace, FallbackPrimitive))
    if not ran:
        msg = f"no fallback ran: {trace!r}"
        raise AssertionError(msg)
    for span, fallback in ran:
        _check_order(span, fallback)


def _check_order(span: Span, fallback: FallbackPrimitive[Any, Any]) -> None:
    __tracebackhide__ = True
    ran = [child.label for child in span.children]
    order = list(labels(fallback.children()))
    if ran != order[: len(ran)]:
        fail(span, f"ran {_listed(ran)}, and their order is {_listed(order)}")
    for before, after in zip(span.children, span.children[1:], strict=False):
        if before.ended_at is None or after.started_at < before.ended_at:
            fail(span, f"began {after.label!r} while {before.label!r} was running")
        if before.status == "ok" and fallback.fallback_if_result is None:
            fail(span, f"began {after.label!r} although {before.label!r} had answered")


def _limited(trace: Trace) -> Iterator[tuple[Span, float, float, str]]:
    """Yield executions, since when a limit counts for each, the limit, and whose."""
    for span, timeout in executions(trace, TimeoutPrimitive):
        limit = timeout.options()["timeout_seconds"]
        if not callable(limit):
            for child in wrapped(span, timeout):
                yield child, span.started_at, limit, repr(timeout)
    for span, retry in executions(trace, RetryPrimitive):
        for child in wrapped(span, retry):
            if retry.max_elapsed is not None:
                yield child, span.started_at, retry.max_elapsed, repr(retry)
            if retry.attempt_timeout is not None:
                yield child, child.started_at, retry.attempt_timeout, repr(retry)


def _check_plans(span: Span, retry: RetryPrimitive[Any, Any]) -> None:
    """Check that no delay of a retry reaches beyond `max_elapsed`."""
    __tracebackhide__ = True
    if retry.max_elapsed is None:
        return
    end = span.started_at + retry.max_elapsed
    for event in span.events:
        if event.name == "retry.scheduled" and event.at + event.detail["delay"] > end:
            delay = event.detail["delay"]
            fail(span, f"planned a delay of {delay:g} s beyond its limit, {retry!r}")


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
