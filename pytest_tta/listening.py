"""How a harness stands at the door: what it hears of calls, and how it acts in them.

Calls inside another harness are left to that one.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_tta.whereabouts import go_back, go_in
from tta_primitives.door import Interceptor, Observer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pytest_tta.doubles.watch import DoublesWatch
    from pytest_tta.harness import Harness
    from pytest_tta.parts import Parts
    from pytest_tta.trace.otel import SpanIntake
    from pytest_tta.trace.recorder import TraceRecorder
    from tta_primitives.door import Call

__all__ = ["Acting", "Hearing", "current"]

_OPENTELEMETRY = "opentelemetry.trace"

current: ContextVar[Harness | None] = ContextVar("tta_harness", default=None)
"""The innermost harness that watches."""


def _is_foreign(harness: Harness) -> bool:
    """Tell whether the current task belongs to another harness."""
    inner = current.get()
    return inner is not None and inner is not harness


class Hearing(Observer):
    """Tells a harness's observers of calls, but of none inside another harness.

    Each is told of what it wants to know and no more: this is done for every call.

    Args:
        harness: Whose calls these are.
        recorder: Writes them down.
        watch: Looks at mocks, if there are any.
        take_spans_in: Begins to hear of the spans that code makes with OpenTelemetry.
    """

    def __init__(
        self,
        harness: Harness,
        recorder: TraceRecorder,
        watch: DoublesWatch | None,
        take_spans_in: Callable[[], SpanIntake],
    ) -> None:
        self._harness = harness
        self._watch = watch
        self._note_start, self._note_end = recorder.started, recorder.finished
        self._note_event = recorder.event
        self._take_spans_in = take_spans_in
        # Made when OpenTelemetry is imported, which may be in the test.
        self._intake: SpanIntake | None = None

    def started(self, call: Call, /) -> None:
        """Write down that a call begins."""
        inner = current.get()
        if inner is not None and inner is not self._harness:
            return
        if self._intake is None and _OPENTELEMETRY in sys.modules:
            self._intake = self._take_spans_in()
        if self._intake is not None:
            self._intake.started(call)
        go_in(call)
        self._note_start(call)
        if call.parent is None and self._watch is not None:
            self._watch.started(call)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Write down what happens inside a call."""
        if not _is_foreign(self._harness):
            self._note_event(call, name, detail)

    def finished(self, call: Call, /) -> None:
        """Write down how a call has ended."""
        inner = current.get()
        if inner is not None and inner is not self._harness:
            return
        go_back(call)
        self._note_end(call)
        if call.status != "ok" and self._watch is not None:
            self._watch.finished(call)
        if self._intake is not None:
            self._intake.finished(call)

    def resumed(self, call: Call, /) -> None:
        """Tell spans of OpenTelemetry that a stream goes on below its call."""
        if self._intake is not None and not _is_foreign(self._harness):
            self._intake.resumed(call)

    def suspended(self, call: Call, /) -> None:
        """Tell them that a stream has given a chunk to whoever reads it."""
        if self._intake is not None and not _is_foreign(self._harness):
            self._intake.suspended(call)


class Acting(Interceptor):
    """Lets the double answer, faults strike around it, and a fleet around both.

    Not in another harness.

    Args:
        harness: Whose calls these are.
        parts: What it has made.
    """

    def __init__(self, harness: Harness, parts: Parts) -> None:
        self._harness = harness
        self._parts = parts

    def execute(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        """Hand their own coroutine on: a traceback needs no frame of this."""
        parts = self._parts
        if parts.llm is None and parts.faults is None and parts.fleet is None:
            # Nothing of what follows: in an exploration this is done for every call.
            harness = self._harness
            site, inner = harness.site, current.get()
            if site is None or (inner is not None and inner is not harness):
                return proceed()
            return site.execute(call, proceed)
        return self._through(call, proceed, "execute")

    def stream(
        self, call: Call, proceed: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Hand their own stream on, for the same reason."""
        stream: AsyncIterator[Any] = self._through(call, proceed, "stream")
        return stream

    def _through(self, call: Call, proceed: Callable[[], Any], how: str) -> Any:  # noqa: ANN401
        parts, site = self._parts, self._harness.site
        llm, faults, fleet = parts.llm, parts.faults, parts.fleet
        is_idle = llm is None and faults is None and fleet is None
        if (is_idle and site is None) or _is_foreign(self._harness):
            return proceed()
        if is_idle:
            return getattr(site, how)(call, proceed)
        answer = proceed
        if llm is not None:
            answer = partial(getattr(llm, how), call, answer)
        if site is not None:
            answer = partial(getattr(site, how), call, answer)
        if faults is not None:
            answer = partial(getattr(faults, how), call, answer)
        # Outermost: what fails, fails on the worker.
        return answer() if fleet is None else getattr(fleet, how)(call, answer)
