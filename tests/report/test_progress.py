"""The line that tells how a long exploration goes."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.explore.outcome import Verdict
from pytest_tta.report.progress import Progress, Terminal, progress_on, watching

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

pty = pytest.importorskip("pty", reason="there are pseudo-terminals on POSIX only")


class FakeScreen:
    """Remembers what was shown; None stands for erasing."""

    def __init__(self, width: int = 80) -> None:
        self.width = width
        self.lines: list[str | None] = []

    def show(self, line: str, /) -> None:
        """Remember a line."""
        self.lines.append(line)

    def erase(self) -> None:
        """Remember that the line was taken back."""
        self.lines.append(None)


class Clock:
    """Goes on by itself with each look."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.moment = -step

    def __call__(self) -> float:
        """Read the clock."""
        self.moment += self.step
        return self.moment


class Came:
    """What the progress reads of an outcome."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.verdict = verdict


def shown(
    executions: int, *, step: float = 0.125, width: int = 80, fails_at: int = -1
) -> list[str | None]:
    """Return what is shown of so many executions that take so many seconds each."""
    screen = FakeScreen(width)
    outcomes = iter(
        Came(Verdict("error", "x") if number == fails_at else None)
        for number in range(executions)
    )
    progress = Progress(screen, now=Clock(step))

    def execute(*_: Any) -> Any:
        return next(outcomes)

    node_id = "tests/test_shop.py::test_pay"
    with watching(progress, node_id, execute, stage=lambda: "faults") as counted:
        for _ in range(executions):
            counted(None)  # type: ignore[arg-type]  # not looked at
    return screen.lines


def test_what_is_over_soon_shows_nothing() -> None:
    """For two seconds nothing is to be seen."""
    assert shown(15) == [None]


def test_after_two_seconds_the_line_is_rewritten_now_and_then() -> None:
    """Five times a second at most, with the count, the rate and what is done."""
    assert shown(21) == [
        "exploring tests/test_shop.py::test_pay: 16 executions, 8/s, 0 found, faults",
        "exploring tests/test_shop.py::test_pay: 18 executions, 8/s, 0 found, faults",
        "exploring tests/test_shop.py::test_pay: 20 executions, 8/s, 0 found, faults",
        None,
    ]


def test_what_was_found_is_made_small() -> None:
    """After a failure the search is over, and the executions are those of shrinking."""
    line = shown(17, fails_at=15)[0]
    assert line is not None
    assert line.endswith("::test_pay: 16 executions, 8/s, 1 found, shrinking")


@pytest.mark.parametrize("width", [20, 40, 50, 60, 100, 200])
def test_the_line_never_wraps(width: int) -> None:
    """In a narrow terminal the name goes first; in a wide one it is whole."""
    line = shown(16, width=width)[0]
    assert line is not None
    assert len(line) < width
    assert ("tests/test_shop.py::test_pay" in line) == (width >= 100)


def test_findings_are_counted_over_all_tests() -> None:
    """The number is that of the session."""
    screen = FakeScreen()
    progress = Progress(screen, now=Clock(1.0))
    for verdict in (Verdict("error", "x"), None):
        with progress.watching(
            "t", lambda *_, v=verdict: Came(v), stage=lambda: "faults"
        ) as counted:
            for _ in range(2):
                counted(None)  # type: ignore[arg-type]  # not looked at
    assert screen.lines == [
        "exploring t: 2 executions, 1/s, 1 found, shrinking",
        None,
        "exploring t: 2 executions, 1/s, 1 found, faults",
        None,
    ]


def test_the_line_is_erased_whatever_happens() -> None:
    """An interrupted session has its dots, too."""
    screen = FakeScreen()
    progress = Progress(screen, now=Clock(3.0))

    def execute(*_: Any) -> Any:
        if screen.lines:
            raise KeyboardInterrupt
        return Came()

    def explore() -> None:
        with progress.watching("t", execute, stage=lambda: "faults") as counted:
            counted(None)  # type: ignore[arg-type]  # not looked at
            counted(None)  # type: ignore[arg-type]  # not looked at

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        explore()
    assert screen.lines == ["exploring t: 1 execution, 0/s, 0 found, faults", None]


def test_without_a_screen_a_test_is_executed_as_it_is() -> None:
    """Who cannot see the line does not pay for it."""

    def execute(*_: Any) -> Any:
        return None

    with watching(None, "t", execute, stage=lambda: "") as counted:
        assert counted is execute


class Writer:
    """What the terminal reads of pytest's writer."""

    def __init__(self, column: int) -> None:
        self._file = io.StringIO()
        self.fullwidth = 80
        self.width_of_current_line = column


class Capturing:
    """Suspends captures as pytest does, and resumes them with streams of its own."""

    def __init__(self) -> None:
        self.suspended = 0

    def global_and_fixture_disabled(self) -> Any:
        """Suspend all captures."""
        self.suspended += 1
        return nullcontext()


@pytest.mark.parametrize(("column", "back"), [(14, "\x1b[14C"), (0, "")])
def test_the_cursor_returns_to_the_end_of_pytests_line(column: int, back: str) -> None:
    """The line stands below the dots, and nothing is left of it."""
    reporter: Any = type("Reporter", (), {"_tw": Writer(column)})()
    capturing = Capturing()
    terminal = Terminal(reporter, capturing)
    terminal.erase()
    for line in ("one", "two"):
        terminal.show(line)
    terminal.erase()
    terminal.erase()
    written = reporter._tw._file.getvalue()
    assert written == f"\none\r\x1b[Ktwo\r\x1b[K\x1b[A{back}"
    assert (terminal.width, capturing.suspended) == (80, 3)


def test_what_redirects_output_goes_on_after_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pytest resumes its captures, which would undo the redirection of a search."""
    nowhere = io.StringIO()
    monkeypatch.setattr(sys, "stdout", nowhere)
    capturing = Capturing()

    class Resuming(Capturing):
        def global_and_fixture_disabled(self) -> Any:
            sys.stdout = io.StringIO()
            return nullcontext()

    reporter: Any = type("Reporter", (), {"_tw": Writer(0)})()
    Terminal(reporter, Resuming()).show("one")
    assert sys.stdout is nowhere
    assert capturing.suspended == 0


@pytest.mark.parametrize(
    ("options", "terminal", "is_shown"),
    [
        ((), "xterm", True),
        ((), "", False),
        ((), "dumb", False),
        (("-q",), "xterm", False),
        (("-s",), "xterm", False),
        (("-v",), "xterm", True),
        (("-p", "no:terminal"), "xterm", False),
    ],
)
def test_the_line_is_for_those_who_see_it(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    terminal: str,
    is_shown: bool,
) -> None:
    """Not for files, pipes, dumb terminals, -q, and tests that write themselves."""
    monkeypatch.setenv("TERM", terminal)
    config = pytester.parseconfigure(*options)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        monkeypatch.setattr(reporter, "isatty", bool(terminal))
    assert (progress_on(config) is not None) == is_shown
    config.workerinput = {}  # type: ignore[attr-defined]  # as pytest-xdist does
    assert progress_on(config) is None


LONG = """
import asyncio
from tta_primitives import step
from tta_primitives.recovery import RetryPrimitive

charges = []

@step
async def charge(text):
    print("never seen")
    charges.append(text)
    await asyncio.sleep(1)

pay = RetryPrimitive(charge, max_retries=2).named("pay")

def test_a(): pass

def test_long(tta):
    charges.clear()
    tta.run(pay, "q")
    assert charges == ["q"]

def test_b(): pass
"""

AT_ONCE = """
import pytest_tta.report.progress as progress
progress._PATIENCE = progress._EVERY = 0.0
"""


def in_terminal(command: list[str]) -> str:
    """Return what a program writes to a terminal of its own."""
    written: list[bytes] = []

    def read(fd: int) -> bytes:
        data = os.read(fd, 65536)
        written.append(data)
        # What is read is also printed, and the test's own output is captured.
        return data

    devnull = os.open(os.devnull, os.O_WRONLY)
    before = os.dup(1)
    os.dup2(devnull, 1)
    try:
        pty.spawn(command, read, stdin_is_silent)
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(devnull)
    return b"".join(written).decode()


def stdin_is_silent(_: int) -> bytes:
    """Type nothing."""
    return b""


def screen_after(written: str) -> list[str]:
    """Return the lines of a terminal to which this was written."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.", written, re.DOTALL):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif piece.endswith("K") and piece[0] == "\x1b":
            rows[row] = rows[row][:column]
        elif piece.endswith("A") and piece[0] == "\x1b":
            row -= int(piece[2:-1] or 1)
        elif piece.endswith("C") and piece[0] == "\x1b":
            column += int(piece[2:-1] or 1)
        elif piece[0] != "\x1b":
            line = rows[row].ljust(column)
            rows[row] = line[:column] + piece + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in rows]


def session(*options: str) -> list[str]:
    """Return the command of a session in a terminal."""
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "pytest_tta.plugin"]
    usual = ["-p", "no:cacheprovider", "--tta-failures=none", "--no-header"]
    return [sys.executable, "-m", "pytest", *plugins, *usual, *options]


@pytest.fixture
def _terminal(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    pytester.makepyfile(test_it=LONG)
    pytester.makeconftest(AT_ONCE)


@pytest.mark.usefixtures("_terminal")
def test_in_a_real_terminal_the_dots_stay_as_they_are() -> None:
    """While a test is explored the line is there, and afterwards it never was."""
    written = in_terminal(session("--tta", "--tta-explore"))
    assert re.search(
        r"\nexploring test_it.py::test_long: 1 execution, [\d,]+/s, 0 found, faults",
        written,
    )
    assert re.search(r"\d+ executions, [\d,]+/s, 1 found, shrinking", written)
    lines = screen_after(written.replace("\r\n", "\n\r"))
    (dots,) = [line for line in lines if line.startswith("test_it.py ")]
    assert dots == "test_it.py .F.".ljust(73) + "[100%]"
    assert not [line for line in lines if "exploring test_it" in line]
    assert "never seen" not in "".join(lines).partition("Captured stdout")[0]


@pytest.mark.usefixtures("_terminal")
@pytest.mark.parametrize("option", ["-q", "-s", "--no-tta-explore"])
def test_in_a_real_terminal_some_see_no_line(option: str) -> None:
    """Who asks for less, or for the output of tests, is not disturbed."""
    written = in_terminal(session("--tta", "--tta-explore", option))
    assert "exploring test_it" not in written


@pytest.mark.usefixtures("_terminal")
def test_without_a_terminal_there_is_no_line(run_apart: Run) -> None:
    """Files and pipes keep what was rewritten, and nobody wants that."""
    for options in ((), ("-n1",)):
        result = run_apart("--tta", "--tta-explore", "--tta-failures=none", *options)
        assert "exploring test_it" not in result.stdout.str()
