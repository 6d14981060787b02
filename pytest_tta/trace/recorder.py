"""The observer that writes down what workflows do."""

from __future__ import annotations

from asyncio import current_task
from typing import TYPE_CHECKING, Any

from pytest_tta.trace.snapshot import ATOMS, detached, snapshot
from pytest_tta.trace.spans import BEGAN, ENDED, EVENT, RETURNED, Recording, Trace
from tta_primitives.door import Observer
from tta_primitives.loops import now, running_loop

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
        self._recording = recording = Recording(began)
        self._note = recording.log.extend

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
        self._recording = recording = Recording(self._recording.began)
        self._note = recording.log.extend

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
