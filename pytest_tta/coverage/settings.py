"""What the command line and the ini file say of coverage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CoverageSettings", "read_coverage_settings"]

_TERM = "term-missing"
_VIAS = ("all", "tests")


class CoverageSettings(NamedTuple):
    """What is to be done with what is collected.

    Attributes:
        shows_table: Whether a table is printed.
        files: Where JSON is written to.
        only_tests: Whether what sweeps reach does not count.
        fail_under: The session fails below so many percent; None for never.
        suggests: Whether a test is printed for each missing outcome.
        exclude: What does not count, as `CoverageData.exclude` takes it.
    """

    shows_table: bool
    files: tuple[str, ...]
    only_tests: bool
    fail_under: float | None
    suggests: bool
    exclude: tuple[str, ...]


def read_coverage_settings(config: pytest.Config) -> CoverageSettings:
    """Read them, the command line first.

    Raises:
        pytest.UsageError: A value is not allowed.
    """
    reports = config.getoption("tta_cov_report") or config.getini("tta_cov_report")
    shows_table, files = _reports(reports or [_TERM])
    for file in files:
        _check_file(Path(config.invocation_params.dir, file), file)
    return CoverageSettings(
        shows_table=shows_table,
        files=files,
        only_tests=_via(config) == "tests",
        fail_under=_fail_under(config),
        suggests=bool(config.getoption("tta_suggest")),
        exclude=tuple(line for line in config.getini("tta_cov_exclude") if line),
    )


def _reports(reports: Iterable[str]) -> tuple[bool, tuple[str, ...]]:
    shows_table, files = False, []
    for report in reports:
        kind, _, path = report.partition(":")
        if report == _TERM:
            shows_table = True
        elif kind == "json" and path:
            files.append(path)
        else:
            msg = f"--tta-cov-report={report!r} must be {_TERM!r} or 'json:PATH'"
            raise pytest.UsageError(msg)
    return shows_table, tuple(files)


def _check_file(path: Path, given: str) -> None:
    """Refuse a file that cannot be written, now and not after an hour."""
    there = path.parent
    while not there.exists() and there != there.parent:
        there = there.parent
    target = path if path.exists() else there
    may_be = not path.is_dir() and there.is_dir() and os.access(target, os.W_OK)
    if not may_be:
        msg = f"--tta-cov-report={'json:' + given!r}: {str(path)!r} cannot be written"
        raise pytest.UsageError(msg)


def _via(config: pytest.Config) -> str:
    via = str(config.getoption("tta_cov_via") or config.getini("tta_cov_via") or "all")
    if via not in _VIAS:
        msg = f"tta_cov_via = {via!r} must be 'tests' or 'all'"
        raise pytest.UsageError(msg)
    return via


def _fail_under(config: pytest.Config) -> float | None:
    asked = config.getoption("tta_fail_under")
    written = config.getini("tta_fail_under") if asked is None else asked
    if written in (None, ""):
        return None
    try:
        percent = float(written)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        msg = f"tta_fail_under = {written!r} must be a percentage between 0 and 100"
        raise pytest.UsageError(msg)
    return percent
