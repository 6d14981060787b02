"""Collect what reports of tests say, where the reports of all workers come together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pytest_tta.commands import run_command
from pytest_tta.report.facts import replay_line
from pytest_tta.report.texts import clean, redacted, safe

if TYPE_CHECKING:
    import pytest

    from pytest_tta.report.record import ItemRecord, Outcome, RunRecord, WrittenTest

__all__ = ["Collected", "Spot"]

MOST_FAILURE: Final = 20_000
"""So long is the text of a failure in a file."""

_MOST_TEXT = 20_000
_MOST_ID = 1_000
# What comes later in this list outweighs what has come before.
_RANKS = ("passed", "skipped", "failed", "error")


class Spot(NamedTuple):
    """Where a test has failed.

    Attributes:
        file: Below the root of the tests, or absolute.
        line: From 1; 0 if it is not known.
        said: What the failure says in short; empty if there is none.
        is_finding: Whether the plugin has something to say of it.
    """

    file: str
    line: int
    said: str = ""
    is_finding: bool = False


class _Attempt:
    """One execution of a test, of which the reports come in one after the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.outcome: Outcome | None = None
        self.seconds = 0.0
        self.failures: list[str] = []
        self.tta: ItemRecord | None = None
        self.run: RunRecord | None = None
        self.location: tuple[str, int] = ("", 0)
        self.spot: Spot | None = None
        self.has_sections = False

    def add(self, report: pytest.TestReport, root: Path) -> None:
        self.seconds += report.duration
        file, line, _ = report.location
        self.location = (file.replace(os.sep, "/"), 0 if line is None else line + 1)
        if hasattr(report, "tta"):
            self.tta = report.tta
        self.run = getattr(report, "tta_run", None) or self.run
        outcome = _outcome_of(report)
        if outcome is not None and not self._outweighs(outcome):
            self.outcome = outcome
        if outcome in ("failed", "error"):
            self.failures.append(str(report.longrepr))
            self.spot = self.spot or _spot_of(report, root, self.location)
            self.has_sections |= any(t.startswith("tta ") for t, _ in report.sections)

    def _outweighs(self, outcome: str) -> bool:
        mine = self.outcome
        return mine is not None and _RANKS.index(mine) > _RANKS.index(outcome)


class Collected:
    """What came of the tests of a session.

    Args:
        root: The folder that node ids are below.
        options: What a command needs for the session to be the same, `--tta` for
            instance.
    """

    def __init__(self, root: Path, options: tuple[str, ...] = ()) -> None:
        self._root = root
        self._options = options
        self._attempts: list[tuple[str, _Attempt]] = []
        # Tests may run on several workers at once, each under its name.
        self._latest: dict[tuple[str, str], _Attempt] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take one report of a test: of its set-up, its body or its tear-down.

        Args:
            report: The report, as `pytest_runtest_logreport` is given it.
        """
        key = (getattr(report, "worker_id", ""), report.nodeid)
        attempt = self._latest.get(key)
        if report.when == "setup" or attempt is None:
            number = self._counts[key] = self._counts.get(key, 0) + 1
            attempt = self._latest[key] = _Attempt(number)
            self._attempts.append((report.nodeid, attempt))
        attempt.add(report, self._root)

    def add_file(self, report: pytest.CollectReport) -> None:
        """Take the report of a file whose tests could not be collected.

        Args:
            report: The report, as `pytest_collectreport` is given it.
        """
        attempt = _Attempt(1)
        attempt.outcome = "error"
        attempt.failures.append(str(report.longrepr))
        attempt.location = (report.nodeid.partition("::")[0], 0)
        self._attempts.append((report.nodeid, attempt))

    def tests(self) -> list[tuple[WrittenTest, Spot]]:
        """Return the tests that have come to an end, and where they have failed."""
        return [
            (self._written(node_id, attempt), _told(attempt))
            for node_id, attempt in self._attempts
            if attempt.outcome is not None
        ]

    def _written(self, node_id: str, attempt: _Attempt) -> WrittenTest:
        file, line = attempt.location
        outcome = cast("Outcome", attempt.outcome)
        return {
            "node_id": safe(node_id, _MOST_ID),
            "outcome": outcome,
            "real_seconds": round(attempt.seconds, 6),
            "file": safe(file, _MOST_ID),
            "line": line,
            "failure": safe("\n\n".join(attempt.failures), MOST_FAILURE),
            "replay": self._replay(node_id, attempt),
            "tta": _fit(attempt.tta, attempt.run),
            "attempt": attempt.number,
        }

    def _replay(self, node_id: str, attempt: _Attempt) -> str:
        """Return the command that brings a failure back; empty if there is none."""
        if attempt.tta is None or attempt.outcome not in ("failed", "error"):
            return ""
        explored = attempt.tta.get("exploration")
        line = None if explored is None else explored["line"]
        if line:
            return replay_line(node_id, line)
        return clean(run_command(redacted(node_id), *self._options))


def _outcome_of(report: pytest.TestReport) -> Outcome | None:
    """Return what a report makes of its test; None if that is still open."""
    if report.skipped:
        return "skipped"
    # Also "rerun": a plugin will run the test again.
    if not report.passed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    return "passed" if report.when == "call" else None


def _spot_of(report: pytest.TestReport, root: Path, location: tuple[str, int]) -> Spot:
    """Return the line of the user's that has failed, that of the test otherwise."""
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return Spot(*location, str(report.longrepr))
    path = Path(root, crash.path)
    if not path.is_relative_to(root):
        return Spot(*location, crash.message)
    return Spot(path.relative_to(root).as_posix(), crash.lineno, crash.message)


def _told(attempt: _Attempt) -> Spot:
    tta = attempt.tta
    has_run = tta is not None and bool(tta["workflows"] or tta.get("exploration"))
    spot = attempt.spot or Spot(*attempt.location)
    return spot._replace(is_finding=has_run or attempt.has_sections)


def _fit(record: ItemRecord | None, run: RunRecord | None) -> ItemRecord | None:
    """Return what is known of a test, fit for a file; a run is so already."""
    if record is None:
        return None
    fit: ItemRecord = {**record}
    run = record.get("run") or run
    for name in ("workflows", "totals"):
        fit[name] = _cleaned(record[name])
    if "exploration" in record:
        explored = record["exploration"]
        line = explored["line"]
        # Names and numbers, and some of it could look like a key.
        fit["exploration"] = _cleaned(explored) | {"line": line and clean(line)}
    if run is not None:
        fit["run"] = run
    return fit


def _cleaned(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return plain data with all its texts fit for a file."""
    if isinstance(value, str):
        return safe(value, _MOST_TEXT)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    return value
