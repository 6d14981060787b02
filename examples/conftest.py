"""Tells at the end how long the tests would have taken without virtual time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the virtual time of all tests together; `-q` leaves it out.

    `report.tta` has the facts of a test in plain types: any plugin may read it.
    """
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call" and hasattr(report, "tta")
    ]
    if not reports or config.get_verbosity() < 0:
        return
    virtual = sum(report.tta["virtual_seconds"] for report in reports)
    real = sum(report.duration for report in reports)
    terminalreporter.write_line(
        f"{len(reports)} tests lived through {timedelta(seconds=round(virtual))} "
        f"of virtual time in {real:.1f} s"
    )
