"""The observer that writes down what workflows do."""

from __future__ import annotations

from asyncio import current_task, get_running_loop
from typing import TYPE_CHECKING, Any

from pytest_tta.trace.snapshot import ATOMS, detached, snapshot
from pytest_tta.trace.spans import Recording, Span, Trace
from tta_primitives.door import Observer

if TYPE_CHECKING:
    from tta_primitives.door import Call

__all__ = ["TraceRecorder"]


class TraceRecorder(Observer):
    """Records every call that it is told about.

    Args:
        began: The loop time that counts as zero, in seconds; that of the first call
            unless given.
    """

    def __init__(self, began: float | None = None) -> None:
        self._recording = Recording()
        self._recording.began = began

    @property
    def trace(self) -> Trace:
        """What was recorded so far; it goes on growing."""
        return Trace(self._recording)

    @property
    def began(self) -> float | None:
        """The loop time that counts as zero, None before the first call."""
        return self._recording.began

    @began.setter
    def began(self, moment: float | None) -> None:
        self._recording.began = moment

    def known_paths(self) -> list[str]:
        """Return the paths of all positions in the workflows that ran."""
        return self._recording.known_paths()

    def clear(self) -> None:
        """Forget everything; traces that were handed out keep what they have."""
        began = self._recording.began
        self._recording = Recording()
        self._recording.began = began

    def started(self, call: Call, /) -> None:
        """Begin a span."""
        recording = self._recording
        span = Span()
        span._recording = recording
        span._call = call
        span._loop = loop = get_running_loop()
        span._began = now = loop.time()
        task = current_task(loop)
        span.task = "" if task is None else task.get_name()
        given = call.input_data
        span.input = given if type(given) in ATOMS else snapshot(given)
        by_call = recording.by_call
        by_call[call] = span
        above = by_call.get(call.parent)  # type: ignore[arg-type] - a mere position is not found
        if above is None:
            above = _above(call, recording)
        span.parent = above
        if above is None:
            recording.roots.append(span)
            if recording.began is None:
                recording.began = now
        elif above._children is None:
            above._children = [span]
        else:
            above._children.append(span)

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Keep an event."""
        span = self._recording.by_call.get(call)
        if span is None:
            return
        if span._events is None:
            span._events = []
        kept = {key: snapshot(value) for key, value in detail.items()}
        span._events.append((span._loop.time(), name, kept))

    def finished(self, call: Call, /) -> None:
        """End a span."""
        span = self._recording.by_call.get(call)
        if span is None:
            return
        span._ended = span._loop.time()
        span.status = call.status  # type: ignore[assignment] - no longer running
        output = call.output
        span.output = output if type(output) in ATOMS else snapshot(output)
        if call.error is not None:
            span.error = detached(call.error)


def _above(call: Call, recording: Recording) -> Span | None:
    """Return the span of the call around one, past positions that were never called."""
    parent = call.parent_call
    return None if parent is None else recording.by_call.get(parent)
