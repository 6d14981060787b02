"""The observer that writes down what workflows do."""

from __future__ import annotations

from asyncio import current_task, get_running_loop
from typing import TYPE_CHECKING, Any

from pytest_tta.trace.snapshot import ATOMS, detached, snapshot
from pytest_tta.trace.spans import Recording, Trace
from tta_primitives.door import Observer

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tta_primitives.door import Call

__all__ = ["TraceRecorder"]


class TraceRecorder(Observer):
    """Records every call that it is told about.

    Args:
        began: The loop time that counts as zero, in seconds; that of the first call
            unless given.
    """

    def __init__(self, began: float | None = None) -> None:
        self._recording = Recording(began)
        self._loop: AbstractEventLoop | None = None
        self._has_many_loops = False

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
        self._recording = Recording(self._recording.began)

    def started(self, call: Call, /) -> None:
        """Write down that a call began."""
        loop = get_running_loop()
        if loop is not self._loop:
            self._has_many_loops = self._loop is not None
            self._loop = loop
        task = current_task(loop)
        name = "" if task is None else task.get_name()
        given = call.input_data
        if type(given) not in ATOMS:
            given = snapshot(given)
        self._recording.log.append(("began", call, loop.time(), name, given))

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Write down what happened inside a call."""
        kept = {key: snapshot(value) for key, value in detail.items()}
        self._recording.log.append(("event", call, self._time(), name, kept))

    def finished(self, call: Call, /) -> None:
        """Write down how a call ended."""
        # It no longer runs: that status is of no interest here.
        status: Any = call.status
        error = None if status == "ok" else call.error
        if error is not None:
            error = detached(error)
        output = call.output
        if type(output) not in ATOMS:
            output = snapshot(output)
        ended = self._time()
        self._recording.log.append(("ended", call, ended, status, output, error))

    def _time(self) -> float:
        # To ask for the running loop costs a system call on CPython 3.11, so it is not
        # asked for again while there is but one.
        loop = self._loop
        if loop is None or self._has_many_loops:
            loop = get_running_loop()
        return loop.time()
