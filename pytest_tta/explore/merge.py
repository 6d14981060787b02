"""Join what several machines have found: `python -m pytest_tta merge a.jsonl …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.commands import replay_command
from pytest_tta.explore.campaign import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Finding",
    "Merged",
    "merge",
    "merged_lines",
    "read_records",
    "replay_command",
]


class Finding(NamedTuple):
    """What broke in one test.

    Attributes:
        test: The test.
        kind: What sort of thing broke.
        where: The user's line.
        line: The plan that brings it back.
    """

    test: str
    kind: str
    where: str
    line: str


class Merged(NamedTuple):
    """What all machines have done together.

    Attributes:
        executions: How often each test was executed.
        findings: What broke, each once.
        unreached: What no machine has reached, by test.
    """

    executions: dict[str, int]
    findings: list[Finding]
    unreached: dict[str, list[str]]


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that `--tta-out` has written.

    A last line without an end is left out: its machine was stopped while it wrote.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file; the line is named.
    """
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        record = _record(line)
        if record is None:
            msg = f"{path}:{number} is no record of --tta-out in the form {FORMAT}"
            raise ValueError(msg)
        yield record


def _record(line: str) -> dict[str, Any] | None:
    """Return what a line says, None if it is of another form."""
    try:
        record: dict[str, Any] = json.loads(line)
        _ = str(record["test"]), int(record["executions"])
    except (LookupError, TypeError, ValueError):
        return None
    return record if record.get("format") == FORMAT else None


def merge(records: Iterable[dict[str, Any]]) -> Merged:
    """Join records of any number of machines.

    Args:
        records: Those of all files.
    """
    executions: dict[str, int] = {}
    unreached: dict[str, set[str]] = {}
    findings: dict[Finding, None] = {}
    for record in records:
        test = str(record["test"])
        executions[test] = executions.get(test, 0) + int(record["executions"])
        missed = set(record.get("unreached", ()))
        unreached[test] = unreached.get(test, missed) & missed
        found = record.get("verdict")
        if found:
            kind, where = (str(found.get(name, "")) for name in ("kind", "where"))
            findings[Finding(test, kind, where, str(record.get("line", "")))] = None
    return Merged(
        dict(sorted(executions.items())),
        sorted(findings),
        {test: sorted(missed) for test, missed in sorted(unreached.items()) if missed},
    )


def merged_lines(merged: Merged) -> Iterator[str]:
    """Yield what is printed of joined records.

    Args:
        merged: The joined records.
    """
    total = sum(merged.executions.values())
    tests = "test" if len(merged.executions) == 1 else "tests"
    yield f"{len(merged.executions)} {tests} explored, {total:,} executions"
    for test, missed in merged.unreached.items():
        yield f"not reached in {test}: {', '.join(missed)}"
    for found in merged.findings:
        at = f" at {found.where}" if found.where else ""
        yield f"{found.test}: {found.kind}{at}"
        yield f"  {replay_command(found.test, found.line)}"
    if not merged.findings:
        yield "nothing was found"


def merge_files(names: list[str]) -> int:
    """Print the files of these names, joined.

    Args:
        names: The files.

    Returns:
        0 if nothing was found, 1 if something was.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is of another kind.
    """
    paths = {Path(name).resolve(): Path(name) for name in names}
    if len(paths) < len(names):
        # Executions would be counted twice.
        twice = len(names) - len(paths)
        are = "is" if twice == 1 else "are"
        print(f"{twice} of the files {are} named twice, and counted once")  # noqa: T201 - as below
    records = [record for path in paths.values() for record in read_records(path)]
    merged = merge(records)
    for line in merged_lines(merged):
        print(line)  # noqa: T201 - what the command is for
    return 1 if merged.findings else 0
