"""The observer that writes down what workflows do."""

from __future__ import annotations

from asyncio import current_task, get_running_loop
from threading import get_ident
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
        # A thread and the loop that it runs; no thread has the number 0.
        self._found: tuple[int, Any] = (0, None)

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
        thread, loop = self._found
        # A loop that executes a task is running.
        if thread != get_ident() or (task := current_task(loop)) is None:
            loop = self._running_loop()
            task = current_task(loop)
        name = "" if task is None else task.get_name()
        given = call.input_data
        if type(given) not in ATOMS:
            given = snapshot(given)
        self._recording.log.extend(("began", call, loop.time(), name, given, None))

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Write down what happened inside a call."""
        kept = {key: snapshot(value) for key, value in detail.items()}
        now = self._running_loop().time()
        self._recording.log.extend(("event", call, now, name, kept, None))

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
        thread, loop = self._found
        if thread != get_ident() or not loop.is_running():
            loop = self._running_loop()
        self._recording.log.extend(("ended", call, loop.time(), status, output, error))

    def _running_loop(self) -> AbstractEventLoop:
        # To ask for it costs a system call on CPython 3.11. A thread runs one loop at a
        # time, so the one that was found is the one as long as it runs.
        loop = get_running_loop()
        self._found = get_ident(), loop
        return loop
