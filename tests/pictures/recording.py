"""Run a scene in virtual time, and read what was recorded of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.clock.clock import VirtualClock
from pytest_tta.trace import TraceRecorder
from tests.pictures.timing import Bar
from tta_primitives import chance
from tta_primitives.door import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pytest_tta.trace.spans import Span, Trace

__all__ = ["bar_of", "bars_at", "events_of", "recorded"]


def recorded(scene: Callable[[], Coroutine[Any, Any, object]]) -> Trace:
    """Run a scene from the time 0, with the same chance each time.

    Args:
        scene: Makes the primitives, and executes them.
    """
    recorder = TraceRecorder(0.0)
    with chance.seeded(7), listening(observers=(recorder,)):
        VirtualClock().run(scene())
    return recorder.trace


def bar_of(span: Span, words: str | None = None, *, is_outer: bool = False) -> Bar:
    """Return a span as a bar, which ends as the span has ended.

    Args:
        span: The span.
        words: What stands in the bar; how it has ended unless given.
        is_outer: Whether it is of a wrapper.
    """
    assert span.ended_at is not None
    assert span.status != "unfinished"
    if words is None:
        words = _end_of(span)
    return Bar(span.started_at, span.ended_at, span.status, words, is_outer)


def _end_of(span: Span) -> str:
    if span.status == "ok":
        return "" if span.output is None else str(span.output)
    if span.status == "cancelled":
        return "cancelled"
    return type(span.error).__name__


def bars_at(trace: Trace, path: str, *, is_outer: bool = False) -> list[Bar]:
    """Return all executions at a place as bars."""
    return [bar_of(span, is_outer=is_outer) for span in trace.spans_at(path)]


def events_of(trace: Trace, *names: str) -> list[tuple[float, str, dict[str, Any]]]:
    """Return the events of these names, in order of time."""
    found = [
        (event.at, event.name, event.detail)
        for span in trace.spans
        for event in span.events
        if event.name in names
    ]
    return sorted(found, key=lambda one: one[0])
