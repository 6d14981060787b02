"""The observer that writes down what workflows do."""

from __future__ import annotations

from asyncio import current_task
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.trace.snapshot import ATOMS, detached, snapshot
from pytest_tta.trace.spans import BEGAN, ENDED, EVENT, RETURNED, Recording, Trace
from tta_primitives.door import Observer
from tta_primitives.loops import now, running_loop

if TYPE_CHECKING:
    from pytest_tta.trace.spans import Span
    from tta_primitives.door import Call

__all__ = ["RecorderMark", "TraceRecorder"]


class RecorderMark(NamedTuple):
    """What was recorded until some moment.

    Attributes:
        recording: Where it is written.
        length: How long its log was.
        above: What stood below something else than its caller.
        events: The names of what had happened inside calls.
    """

    recording: Recording
    length: int
    above: dict[Call, Call]
    events: frozenset[str]


class TraceRecorder(Observer):
    """Records every call that it is told about.

    Args:
        began: The loop time that counts as zero, in seconds; that of the first call
            unless given.

    Attributes:
        events: The names of what has happened inside calls.
    """

    def __init__(self, began: float | None = None) -> None:
        self._recording = recording = Recording(began)
        self._note = recording.log.extend
        self.events: set[str] = set()

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

    def unfinished(self) -> list[Span]:
        """Return the executions that have not ended, mostly by a look at the log."""
        return self._recording.unfinished()

    def clear(self) -> None:
        """Forget everything; traces that were handed out keep what they have."""
        self._recording = recording = Recording(self._recording.began)
        self._note = recording.log.extend
        self.events = set()

    def mark(self) -> RecorderMark:
        """Remember what was recorded so far."""
        recording = self._recording
        above, events = dict(recording.above), frozenset(self.events)
        return RecorderMark(recording, len(recording.log), above, events)

    def rewind(self, mark: RecorderMark) -> None:
        """Go on after what was recorded until a mark; forget what came later.

        Traces that were handed out keep what they have.

        Args:
            mark: What `mark` gave.
        """
        recording = Recording(mark.recording.began)
        if mark.length:
            recording.log = mark.recording.log[: mark.length]
            recording.above = dict(mark.above)
        self._recording = recording
        self._note = recording.log.extend
        self.events = set(mark.events)

    @property
    def log(self) -> list[Any]:
        """What was written down, entry after entry."""
        return self._recording.log

    def note(self, entry: tuple[Any, ...]) -> None:
        """Write an entry of the log that others have made."""
        self._note(entry)

    def put_below(self, call: Call, above: Call) -> None:
        """Let the span of a call stand below another one than that of its caller."""
        self._recording.above[call] = above

    def started(self, call: Call, /) -> None:
        """Write down that a call began."""
        loop = running_loop()
        task = current_task(loop)
        name = "" if task is None else task.get_name()
        given = call.input_data
        if type(given) not in ATOMS:
            given = snapshot(given)
        note = self._note
        note((BEGAN, call, loop.time(), name, given))

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Write down what happened inside a call."""
        self.events.add(name)
        kept = {key: snapshot(value) for key, value in detail.items()}
        self._note((EVENT, call, now(), name, kept))

    def finished(self, call: Call, /) -> None:
        """Write down how a call ended."""
        output = call.output
        if type(output) not in ATOMS:
            output = snapshot(output)
        loop = running_loop()
        note = self._note
        if call.status == "ok":
            note((RETURNED, call, loop.time(), output))
            return
        error = None if call.error is None else detached(call.error)
        note((ENDED, call, loop.time(), output, call.status, error))
