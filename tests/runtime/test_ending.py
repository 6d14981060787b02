"""A process that does not end is ended, whatever is broken in it."""

from __future__ import annotations

import sys
import threading

import pytest

from tta_primitives.runtime import ending
from tta_primitives.runtime.ending import Watchdog

PATIENCE = 30.0


class Stream:
    """A stream whose reader hangs, or which is closed."""

    def __init__(self, *, is_closed: bool) -> None:
        self._is_closed = is_closed
        self.may_go_on = threading.Event()

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        if self._is_closed:
            raise ValueError("I/O operation on closed file")
        assert self.may_go_on.wait(PATIENCE)


@pytest.mark.parametrize("stream", ["hangs", "closed", "none"])
def test_process_is_ended_whatever_its_streams_do(monkeypatch, stream) -> None:
    """What it would still say must not keep it from ending."""
    codes, is_over = [], threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        is_over.set()

    monkeypatch.setattr(ending.os, "_exit", end)
    found = Stream(is_closed=stream == "closed")
    monkeypatch.setattr(sys, "stdout", None if stream == "none" else found)
    watchdog = Watchdog()
    watchdog.start(0.01, 15)
    try:
        assert is_over.wait(PATIENCE / 2)
    finally:
        found.may_go_on.set()
        watchdog.stop()
    assert codes == [143]
