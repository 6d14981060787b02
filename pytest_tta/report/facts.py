"""What every report of a test tells: `report.tta`, without what it was given.

It is made for every test, so it reads the spans that there are and copies nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_tta.commands import replay_command
from pytest_tta.report.texts import clean, redacted, safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_tta.harness import Harness
    from pytest_tta.report.record import (
        ExplorationRecord,
        ItemRecord,
        TotalRecord,
    )
    from pytest_tta.trace.spans import Span

__all__ = ["VERSION", "facts", "properties", "replay_line"]

VERSION: Final = 1
"""The version of the format, in every record."""

_MOST_TEXT = 2_000
_GOOD_ENDS = frozenset({"ok", "cancelled"})


def facts(harness: Harness) -> ItemRecord:
    """Return what other plugins may want to know of a test, as plain data.

    Args:
        harness: What the test held.
    """
    spans = harness.trace.spans
    return {
        "version": VERSION,
        "seed": harness.seed,
        "virtual_seconds": harness.elapsed,
        "workflows": [clean(span.path) for span in spans if span.parent is None],
        "totals": _totals(spans),
    }


def _totals(spans: list[Span]) -> list[TotalRecord]:
    """Add up what the runs of each workflow did; parents come before children."""
    totals: dict[str, TotalRecord] = {}
    total_of: dict[Span, TotalRecord] = {}
    for span in spans:
        parent = span.parent
        if parent is None:
            total = totals.get(span.path) or totals.setdefault(
                span.path, _nothing_of(span.path)
            )
            total["runs"] += 1
            total["failed"] += span.status not in _GOOD_ENDS
            total["virtual_seconds"] += span.duration or 0.0
        else:
            total = total_of[parent]
        total_of[span] = total
        total["calls"] += 1
        # Read as they are: to copy the list of events is dear, and most are empty.
        for event in span._events:
            if event.name == "retry.attempt":
                # Whoever writes a primitive may name an event so, and tell else of it.
                attempt = event.detail.get("attempt")
                total["retries"] += isinstance(attempt, int) and attempt > 1
            elif event.name == "fault.injected":
                total["faults"] += 1
    return list(totals.values())


def _nothing_of(workflow: str) -> TotalRecord:
    return {
        "workflow": clean(workflow),
        "runs": 0,
        "failed": 0,
        "calls": 0,
        "retries": 0,
        "faults": 0,
        "virtual_seconds": 0.0,
    }


def properties(node_id: str, record: ItemRecord) -> Iterator[tuple[str, str]]:
    """Yield names and values that reports such as JUnit's have for each test.

    Args:
        node_id: The test.
        record: What is known of it.
    """
    totals = record["totals"]
    yield "tta_seed", str(record["seed"])
    yield "tta_virtual_seconds", f"{record['virtual_seconds']:.9g}"
    if totals:
        names = ", ".join(total["workflow"] for total in totals)
        yield "tta_workflows", safe(names, _MOST_TEXT)
        for name in ("calls", "retries", "faults"):
            yield f"tta_{name}", str(sum(total[name] for total in totals))
    explored = record.get("exploration")
    if explored is not None:
        yield "tta_executions", str(explored["executions"])
        yield from _finding(node_id, explored)


def _finding(node_id: str, explored: ExplorationRecord) -> Iterator[tuple[str, str]]:
    verdict, line = explored["verdict"], explored["line"]
    if verdict is not None:
        said = f"{verdict['kind']}: {verdict['text']}"
        yield "tta_verdict", safe(said, _MOST_TEXT)
    if line:
        yield "tta_replay", replay_line(node_id, line)


def replay_line(node_id: str, line: str) -> str:
    """Return the command that executes a plan again, fit for any report.

    Args:
        node_id: The test.
        line: The plan.
    """
    # The line itself holds names and numbers; some of it could look like a key.
    return clean(replay_command(redacted(node_id), line))
