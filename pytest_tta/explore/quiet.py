"""Keep what a test prints and logs, over and over, out of its report."""

from __future__ import annotations

import io
import logging
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

__all__ = ["Patched", "patched_before", "quietly"]

_CAPTURING = ("capfd", "capfdbinary", "capsys", "capsysbinary")
# Where pytest's own handlers live, which collect all that is logged during a test.
_OF_PYTEST = "_pytest.logging"


class Patched(NamedTuple):
    """What the fixture `monkeypatch` has to undo.

    Attributes:
        attributes: How many attributes.
        items: How many items of dictionaries.
        cwd: Where to return to, if anywhere.
        path: The path for imports to go back to, if to any.
    """

    attributes: int
    items: int
    cwd: str | None
    path: list[str] | None


class _Nowhere(io.TextIOBase):
    """Takes text and keeps nothing."""

    def write(self, text: str, /) -> int:
        return len(text)


@contextmanager
def quietly(item: pytest.Item, patched: Patched | None) -> Iterator[Callable[[], None]]:
    """Let nothing be printed and collected while a test is executed again and again.

    A test that looks at its own output with a fixture of pytest goes on seeing it.

    Args:
        item: The test.
        patched: What was patched before its body began.

    Yields:
        What makes such fixtures forget the last execution.
    """
    made: dict[str, Any] = getattr(item, "funcargs", {})
    forget: list[Callable[[], object]] = [
        made[name].readouterr for name in _CAPTURING if name in made
    ]
    with ExitStack() as stack:
        if not forget:
            stack.enter_context(redirect_stdout(_Nowhere()))
            stack.enter_context(redirect_stderr(_Nowhere()))
        if "caplog" in made:
            forget.append(made["caplog"].clear)
        else:
            stack.enter_context(_nothing_collected())

        if patched is not None:
            unpatching = _Unpatching(made["monkeypatch"], patched)
            stack.callback(unpatching.give_back)
            forget.append(unpatching)

        def forget_all() -> None:
            for forget_one in forget:
                forget_one()

        yield forget_all


def patched_before(item: pytest.Item) -> Patched | None:
    """Return what `monkeypatch` has to undo before the body of a test begins.

    Args:
        item: The test; None comes back if it does not hold that fixture.
    """
    patching = getattr(item, "funcargs", {}).get("monkeypatch")
    if patching is None:
        return None
    return Patched(
        len(patching._setattr),
        len(patching._setitem),
        patching._cwd,
        patching._savesyspath,
    )


class _Unpatching:
    """Undoes what the body of a test has patched, and leaves what fixtures did.

    Args:
        patching: The fixture `monkeypatch`.
        before: What it had to undo before the body began.
    """

    def __init__(self, patching: Any, before: Patched) -> None:  # noqa: ANN401 - its parts are private
        attributes, items, cwd, path = before
        self._patching = patching
        self._of_fixtures = (
            patching._setattr[:attributes],
            patching._setitem[:items],
            cwd,
            path,
        )
        del patching._setattr[:attributes]
        del patching._setitem[:items]
        # A place that a fixture has left already is where the end returns to.
        patching._cwd = patching._cwd if cwd is None else None
        patching._savesyspath = patching._savesyspath if path is None else None

    def __call__(self) -> None:
        """Undo what the last execution of the body has patched."""
        self._patching.undo()

    def give_back(self) -> None:
        """Undo the last of all, and hand over what is to be undone after the test."""
        patching = self._patching
        patching.undo()
        attributes, items, patching._cwd, patching._savesyspath = self._of_fixtures
        patching._setattr[:], patching._setitem[:] = attributes, items


@contextmanager
def _nothing_collected() -> Iterator[None]:
    root = logging.getLogger()
    collecting = [
        handler for handler in root.handlers if type(handler).__module__ == _OF_PYTEST
    ]
    for handler in collecting:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in collecting:
            root.addHandler(handler)
