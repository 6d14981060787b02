"""The hooks of a session whose reports go into files, or to GitHub."""

from __future__ import annotations

import datetime as dt
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_tta.report import github, json_file
from pytest_tta.report.collecting import Collected
from pytest_tta.report.facts import VERSION
from pytest_tta.report.record import SCHEMA
from pytest_tta.settings import read_settings
from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from pytest_tta.report.record import CoverageRecord, SessionRecord, WrittenTest

__all__ = ["ReportSession"]

_DISTRIBUTION = "tta-dev-primitives"
_COVERAGE = "tta-coverage"


class _File(NamedTuple):
    """A file that somebody asked for."""

    kind: str
    path: Path

    @property
    def option(self) -> str:
        return f"--tta-{self.kind}"

    def check(self) -> None:
        """Make its folders, and see now whether it can be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            with self.path.open("a", encoding="utf-8"):
                pass
            if is_new:
                # What was made, which is not the path itself if that is a link.
                self.path.resolve().unlink()
        except OSError as error:
            msg = f"{self.option}={str(self.path)!r} cannot be written: {error}"
            raise pytest.UsageError(msg) from None

    def write(self, record: SessionRecord) -> None:
        if self.kind == "json":
            json_file.write(record, self.path)
            return
        from pytest_tta.report.html import page

        write_whole(self.path, page(record))


class ReportSession:
    """Collects the reports of all tests, and writes them down when all is over.

    It is registered where the reports of all workers arrive.

    Args:
        config: The configuration of the session.

    Raises:
        pytest.UsageError: A file cannot be one.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings = read_settings(config, on=bool(config.getoption("tta")))
        self._files = [
            _File(kind, _path_of(config, kind))
            for kind in ("json", "html")
            if config.getoption(f"tta_{kind}") is not None
        ]
        # Now: tests may change the environment.
        self._environment = dict(os.environ)
        self._is_on_github = github.is_here() and bool(config.getini("tta_github"))
        self._collected = Collected(config.rootpath, _options(config))
        self._began = time.perf_counter()
        self._lines: list[tuple[str, bool]] = []

    def pytest_sessionstart(self) -> None:
        """See at once whether the files can be written, and not after an hour.

        Raises:
            pytest.UsageError: One cannot.
        """
        for file in self._files:
            file.check()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the report of a test, from whichever worker it comes."""
        self._collected.add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take the report of a file that could not be collected."""
        if report.failed:
            self._collected.add_file(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the files, also if the session was interrupted."""
        if not self._files:
            return
        record = self._record([test for test, _ in self._collected.tests()])
        for file in self._files:
            try:
                file.write(record)
            except OSError as error:
                self._lines.append((f"tta report not written: {error}", True))
                if session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            else:
                self._lines.append((f"generated tta report: {file.path}", False))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Say where the files are; tell GitHub what has failed."""
        for line, is_bad in self._lines:
            if is_bad:
                terminalreporter.write_line(line, red=True)
            elif terminalreporter.verbosity >= 0:
                terminalreporter.write_sep("-", line)
        if self._is_on_github:
            self._tell_github(terminalreporter)

    def _tell_github(self, reporter: pytest.TerminalReporter) -> None:
        tests = self._collected.tests()
        root = self._config.rootpath
        reporter.ensure_newline()
        for line in github.commands(tests, root, self._environment):
            reporter.write_line(line)
        path = self._environment.get("GITHUB_STEP_SUMMARY")
        text = github.summary(tests) if path else ""
        if path and text:
            try:
                github.append(path, text)
            except OSError as error:
                reporter.write_line(f"tta summary not written: {error}", red=True)

    def _record(self, tests: list[WrittenTest]) -> SessionRecord:
        settings = self._settings
        return {
            "version": VERSION,
            "schema": SCHEMA,
            "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "pytest": pytest.__version__,
            "tta": _version(),
            "seed": settings.seed,
            "clock": settings.clock,
            "real_seconds": round(time.perf_counter() - self._began, 3),
            "tests": tests,
            "coverage": self._coverage(),
        }

    def _coverage(self) -> CoverageRecord | None:
        collecting: Any = self._config.pluginmanager.get_plugin(_COVERAGE)
        if collecting is None:
            return None
        from pytest_tta.report.coverage_record import coverage_record

        sweep = not collecting._settings.only_tests
        return coverage_record(collecting._data, sweep=sweep)


def _path_of(config: pytest.Config, kind: str) -> Path:
    """Return the file of an option, below the folder in which pytest was called."""
    given = str(config.getoption(f"tta_{kind}"))
    expanded = os.path.expanduser(os.path.expandvars(given))  # noqa: PTH111 - as --junitxml does it
    path = Path(config.invocation_params.dir, expanded)
    if not given or path.is_dir():
        msg = f"--tta-{kind} must be a filename, given: {given!r}"
        raise pytest.UsageError(msg)
    return path


def _options(config: pytest.Config) -> tuple[str, ...]:
    """Return what a command needs besides the test for the same session."""
    seed = config.getoption("tta_seed")
    is_on = ("--tta",) if config.getoption("tta") else ()
    return is_on if seed is None else (*is_on, f"--tta-seed={seed}")


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
