"""The hooks of a session that collects coverage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tta.coverage.collector import Collector, install
from pytest_tta.coverage.data import CoverageData
from pytest_tta.coverage.settings import CoverageSettings, read_coverage_settings
from pytest_tta.coverage.table import table
from pytest_tta.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["CoverageSession"]

_SENT = "tta_coverage"


class CoverageSession:
    """Collects in every test, joins what workers send, and reports at the end.

    Args:
        config: The configuration of the session.

    Raises:
        pytest.UsageError: An option has a value that is not allowed.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings: CoverageSettings = read_coverage_settings(config)
        root = str(config.rootpath)
        self._collector = Collector(root, keeps_trees=self._settings.suggests)
        self._data = self._collector.data
        self._is_over = False
        self._collector.births.begin()
        install(self._collector)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count what one test reaches, its fixtures included."""
        with self._collector.observing(item.nodeid, "test"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Look at the test's arguments while they are there, to suggest others."""
        try:
            return (yield)
        finally:
            if self._settings.suggests:
                from pytest_tta.coverage.suggest import suggest

                suggest(self._collector, item)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # noqa: ANN401 - of xdist
        """Add what a worker of pytest-xdist has collected."""
        sent = getattr(node, "workeroutput", {}).get(_SENT)
        if sent is not None:
            self._data.merge(CoverageData.from_plain(sent))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send what was collected to the controller; there, write and judge it."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_SENT] = self._data.to_plain()
            return
        self._is_over = True
        self._data.exclude(self._settings.exclude)
        for name in self._settings.files:
            path = Path(self._config.invocation_params.dir, name)
            write_whole(path, self._data.to_json())
        if self._is_under and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def _percent(self) -> float:
        return self._data.percent(sweep=not self._settings.only_tests)

    @property
    def _is_under(self) -> bool:
        least = self._settings.fail_under
        return least is not None and self._percent < least

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Print the table, and what is missing."""
        if not self._is_over:
            return
        if self._settings.shows_table and terminalreporter.verbosity >= -1:
            self._print_table(terminalreporter)
        if self._settings.suggests:
            self._print_suggestions(terminalreporter)
        if self._is_under:
            terminalreporter.write_line(
                f"FAIL tta resilience coverage of {self._percent:.2f}% is under "
                f"the required {self._settings.fail_under:g}%",
                red=True,
            )

    def _print_table(self, reporter: pytest.TerminalReporter) -> None:
        reporter.section("tta resilience coverage", sep="-")
        if not self._data.workflows:
            reporter.write_line("no workflow has run")
            return
        only_tests = self._settings.only_tests
        width = reporter._tw.fullwidth
        for line in table(self._data, width=width, only_tests=only_tests):
            reporter.write_line(line.text, bold=line.is_title)

    def _print_suggestions(self, reporter: pytest.TerminalReporter) -> None:
        from pytest_tta.coverage.suggest import suggestions

        reporter.section("tta suggested tests", sep="-")
        for text in suggestions(self._data, sweep=not self._settings.only_tests):
            reporter.write_line(text)

    def pytest_unconfigure(self) -> None:
        """Listen no more."""
        self._collector.births.end()
        install(None)
