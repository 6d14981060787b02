"""What a line says that a thread waits for, read without parsing it."""

from __future__ import annotations

import ast
import sys
import threading

import pytest

from pytest_tta.clock import waits


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("lock.acquire()", "lock.acquire"),
        ("self._items.get()", "self._items.get"),
        ("lock.acquire( )", "lock.acquire"),
        ("lock.acquire(True)", "lock.acquire"),
        ("lock.acquire(1, -1)", "lock.acquire"),
        ("lock.acquire(blocking=True, timeout=-1,)", "lock.acquire"),
        ("items.get(True, None)", "items.get"),
        ("items.get(\n    block=True,\n    timeout=None,\n)", "items.get"),
        ("with lock:", "lock"),
        ("with self.lock: work()", "self.lock"),
        ("with self.lock as held:  # why\n", "self.lock"),
        ("with lock :", "lock"),
        ("self.lock", "self.lock"),
        ("schloß.öffne.acquire()", "schloß.öffne.acquire"),
    ],
)
def test_a_wait_without_a_limit_has_a_name(source: str, name: str) -> None:
    """However it is written."""
    assert waits.waited_name(source) == tuple(name.split("."))


@pytest.mark.parametrize(
    "source",
    [
        "",
        "lock.acquire(timeout=3)",
        "lock.acquire(False)",
        "lock.acquire(0)",
        "items.get(True, 5)",
        "items.get(True, limit)",
        "items.get(f(None, None))",
        "items.get(**options)",
        "items.get(11)",
        "acquire()",
        "lock.release()",
        "rows[0].get()",
        "make().acquire()",
        "with first, second:",
        "with make():",
        "without:",
        "1.5",
    ],
)
def test_everything_else_has_none(source: str) -> None:
    """A limit, another call, or what cannot be found without running code."""
    assert waits.waited_name(source) is None


def test_a_look_at_another_thread_parses_nothing(monkeypatch) -> None:
    """CPython counts the depth of syntax trees for all threads together.

    A thread that parses while another one does ends that one's with a SystemError; the
    main thread's is pytest's, which rewrites what is imported.
    """

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    lock = threading.Lock()
    lock.acquire()

    def wait_here() -> None:
        lock.acquire()

    thread = threading.Thread(target=wait_here, daemon=True)
    thread.start()
    monkeypatch.setattr(ast, "parse", refuse)
    found = None
    while found is None:
        frame = sys._current_frames()[thread.ident or 0]
        found = waits.still_waiting(frame)
        del frame
    assert found()
    lock.release()
    thread.join()
    assert "ast" not in vars(waits)
