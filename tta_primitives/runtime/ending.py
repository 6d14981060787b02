"""The time in which a process has to end, and who sees to it that it does."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading

from tta_primitives.loops import now

__all__ = ["Budget", "Watchdog"]

logger: logging.Logger = logging.getLogger("tta_primitives")

# Of the budget: until when what runs is waited for, and until when its cancellation.
_PATIENCE = 0.8
_CANCELLATION = 0.9
# How long a process that is ended by force may take to say so.
_LAST_WORDS_SECONDS = 0.5


class Budget:
    """Until when each part of a drain may take, in seconds of the loop's clock.

    Args:
        duration: Seconds for all of it.

    Attributes:
        began_at: When it began.
        patience: Until when what runs is waited for.
        cancellation: Until when what was cancelled is waited for.
        end: When everything must be closed.
    """

    __slots__ = ("began_at", "cancellation", "end", "patience")

    def __init__(self, duration: float) -> None:
        self.began_at: float = now()
        self.patience: float = self.began_at + duration * _PATIENCE
        self.cancellation: float = self.began_at + duration * _CANCELLATION
        self.end: float = self.began_at + duration

    def cut(self) -> None:
        """Let nobody wait any longer for what runs."""
        rest = self.cancellation - self.patience
        self.patience = min(self.patience, now())
        self.cancellation = self.patience + rest

    def shorten(self, duration: float) -> None:
        """Let it be over after so many seconds from now, if not earlier."""
        other = Budget(duration)
        self.patience = min(self.patience, other.patience)
        self.cancellation = min(self.cancellation, other.cancellation)
        self.end = min(self.end, other.end)


class Watchdog:
    """Ends a process that does not end: the last means, from a thread of its own."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, limit: float, number: int) -> None:
        """End the process after so many seconds, unless it is stopped before.

        Args:
            limit: Seconds.
            number: The signal that asked the process to end.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._watch,
                args=(limit, number),
                name="tta-watchdog",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """Let the process live."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, limit: float, number: int) -> None:
        if self._is_over.wait(limit):
            return
        # What does not end may hold the lock of a log handler, or of a full stream.
        last = threading.Thread(target=_say, args=(limit, number), daemon=True)
        try:
            last.start()
            last.join(_LAST_WORDS_SECONDS)
        finally:
            os._exit(128 + number)


def _say(limit: float, number: int) -> None:
    """Say why the process is ended, as far as that is possible."""
    with contextlib.suppress(Exception):
        logger.critical("still running %.3g s after signal %d: ended", limit, number)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # Closed, or none at all.
            stream.flush()
