"""One line that tells how a long exploration goes, rewritten until it is over.

It stands below the line with pytest's dots, which stay as they are: when it is erased,
the cursor goes back to where it was.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from pytest_tta.report.sections import fit
from pytest_tta.report.summary import shortened_name, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from pytest_tta.clock.choices import Chooser
    from pytest_tta.explore.outcome import Execute, Outcome
    from pytest_tta.explore.plan import Plan

__all__ = ["Progress", "Screen", "Terminal", "progress_on", "watching"]

_PATIENCE: Final = 2.0
"""Seconds of real time before a line is shown; most explorations are over by then."""

_EVERY: Final = 0.2
"""Seconds between two lines."""

_SHORTEST_NAME: Final = 12
_TO_THE_BEGINNING: Final = "\r\x1b[K"
_UP: Final = "\x1b[A"


class Screen(Protocol):
    """Where one line can be shown and taken back."""

    @property
    def width(self) -> int:
        """How many cells a line has."""
        ...

    def show(self, line: str, /) -> None:
        """Show a line in the place of the one that is shown."""

    def erase(self) -> None:
        """Take back the line, if one is shown."""


class Terminal:
    """The terminal that pytest reports to, while a test's output is captured.

    Args:
        reporter: The reporter of pytest.
        capturing: The manager of its captures; None if nothing is captured.
    """

    def __init__(self, reporter: pytest.TerminalReporter, capturing: Any) -> None:  # noqa: ANN401 - pytest tells no type
        self._writer: Any = reporter._tw
        self._capturing = capturing
        # Where pytest's own line ends; None while ours is not shown.
        self._column: int | None = None

    @property
    def width(self) -> int:
        """How many cells a line has."""
        width: int = self._writer.fullwidth
        return width

    def show(self, line: str, /) -> None:
        """Show a line below pytest's own, or in the place of the last."""
        start = _TO_THE_BEGINNING
        if self._column is None:
            self._column = self._writer.width_of_current_line
            start = "\n"
        self._write(start + line)

    def erase(self) -> None:
        """Take back the line, and return to the end of pytest's own."""
        if self._column is None:
            return
        right = f"\x1b[{self._column}C" if self._column else ""
        self._column = None
        self._write(f"{_TO_THE_BEGINNING}{_UP}{right}")

    def _write(self, text: str) -> None:
        """Write past pytest's writer, which keeps count of what is on its line."""
        redirected = sys.stdout, sys.stderr
        with self._uncaptured():
            file = self._writer._file
            file.write(text)
            file.flush()
        # Captures that go on set them to what they were before the redirection.
        sys.stdout, sys.stderr = redirected

    def _uncaptured(self) -> AbstractContextManager[object]:
        if self._capturing is None:
            return nullcontext()
        uncaptured: AbstractContextManager[object] = (
            self._capturing.global_and_fixture_disabled()
        )
        return uncaptured


class Progress:
    """Shows how exploring goes, test after test.

    Args:
        screen: Where.
        now: Reads a clock, in seconds of real time.
    """

    def __init__(self, screen: Screen, *, now: Callable[[], float]) -> None:
        self._screen = screen
        self._now = now
        self._found = 0

    @contextmanager
    def watching(
        self, node_id: str, execute: Execute, *, stage: Callable[[], str]
    ) -> Iterator[Execute]:
        """Count the executions of one test, and show the count if it takes long.

        Args:
            node_id: The test.
            execute: Executes it.
            stage: Says what is done now, and what is left of it.

        Yields:
            What executes the test and is counted.
        """
        watched = _Watched(execute, self._now)

        def counted(plan: Plan, choose: Chooser | None = None) -> Outcome:
            outcome = watched(plan, choose)
            if watched.is_due:
                found = self._found + watched.has_found
                doing = "shrinking" if watched.has_found else stage()
                said = f"{watched.told}, {found} found, {doing}"
                self._screen.show(_fitted(node_id, said, self._screen.width))
            return outcome

        try:
            yield counted
        finally:
            self._found += watched.has_found
            self._screen.erase()


class _Watched:
    """Executes a test, and knows how often and since when."""

    def __init__(self, execute: Execute, now: Callable[[], float]) -> None:
        self._execute = execute
        self._now = now
        self._began = self._moment = now()
        self._next = self._began + _PATIENCE
        self._count = 0
        self.has_found = False

    def __call__(self, plan: Plan, choose: Chooser | None) -> Outcome:
        outcome = self._execute(plan, choose)
        self._count += 1
        self.has_found |= outcome.verdict is not None
        self._moment = self._now()
        return outcome

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next line; asked once for each."""
        if self._moment < self._next:
            return False
        self._next = self._moment + _EVERY
        return True

    @property
    def told(self) -> str:
        rate = self._count / (self._moment - self._began)
        times = "execution" if self._count == 1 else "executions"
        return f"{self._count:,} {times}, {rate:,.0f}/s"


def _fitted(node_id: str, said: str, width: int) -> str:
    """Return one line that does not wrap; the name goes before the numbers do."""
    room = width - 1 - width_of(said) - len("exploring : ")
    if room < _SHORTEST_NAME:
        return said[: width - 1]
    return f"exploring {shortened_name(fit([node_id]), room)}: {said}"


def progress_on(config: pytest.Config) -> Progress | None:
    """Return what shows progress in a session; None where nobody could see it.

    That is so without a terminal, in a worker of pytest-xdist, with `-q`, and with
    `-s`, where tests themselves write to the terminal.

    Args:
        config: Of the session.
    """
    plugins = config.pluginmanager
    reporter: pytest.TerminalReporter | None = plugins.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return None
    is_seen = reporter.isatty and os.environ.get("TERM") != "dumb"
    if not is_seen or config.get_verbosity() < 0:
        return None
    if config.getoption("capture", "no") == "no":
        return None
    screen = Terminal(reporter, plugins.get_plugin("capturemanager"))
    return Progress(screen, now=time.perf_counter)


def watching(
    progress: Progress | None,
    node_id: str,
    execute: Execute,
    *,
    stage: Callable[[], str],
) -> AbstractContextManager[Execute]:
    """Return what executes a test: as it is, unless somebody can see its progress.

    Args:
        progress: Shows it; None for nobody.
        node_id: The test.
        execute: Executes it.
        stage: Says what is done now, and what is left of it.
    """
    if progress is None:
        return nullcontext(execute)
    return progress.watching(node_id, execute, stage=stage)
