"""What GitHub Actions shows: annotations beside the code, and a summary of the job.

Annotations are lines on the terminal that the runner reads, which is why they are not
silent at `-q`: no person reads them there. See "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_tta.report.texts import safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_tta.report.collecting import Spot
    from pytest_tta.report.record import TotalRecord, WrittenTest

__all__ = ["append", "commands", "is_here", "summary"]

_MOST_ANNOTATIONS: Final = 50
_MOST_MESSAGE: Final = 3_000
_MOST_SAID: Final = 1_500
_MOST_FINDINGS: Final = 20
_MOST_WORKFLOWS: Final = 50
_BAD: Final = ("failed", "error")
# As entities, Markdown takes them for text.
_MARKUP: Final = {ord(one): f"&#{ord(one)};" for one in "\\`*_{}[]()+!|~@:$"}


def commands(
    tests: Iterable[tuple[WrittenTest, Spot]],
    root: Path,
    environment: Mapping[str, str],
) -> Iterator[str]:
    """Yield a command for the runner for each failure that the plugin explains.

    Of very many failures the last command says how many have none.

    Args:
        tests: What came of the tests, and where they have failed.
        root: The folder that their files are below.
        environment: Where the runner says which folder files are to be below.
    """
    found = [
        (test, spot)
        for test, spot in tests
        if test["outcome"] in _BAD and spot.is_finding
    ]
    folder = _workspace(environment) or root
    for test, spot in found[:_MOST_ANNOTATIONS]:
        named = {
            "file": _below(folder, Path(root, spot.file)),
            "line": str(spot.line) if spot.line else "",
            "title": f"tta: {test['node_id']}",
        }
        properties = ",".join(
            f"{name}={_property(value)}" for name, value in named.items() if value
        )
        yield f"::error {properties}::{_data(_message(test, spot))}"
    left_out = len(found) - _MOST_ANNOTATIONS
    if left_out > 0:
        have = "failure has" if left_out == 1 else "failures have"
        yield f"::notice title=tta::{left_out:,} more {have} no annotation"


def _workspace(environment: Mapping[str, str]) -> Path | None:
    """Return the folder that files are to be below; None if it is gone."""
    named = environment.get("GITHUB_WORKSPACE", "")
    if named:
        return Path(named)
    try:
        return Path.cwd()
    except OSError:
        # A test has removed the folder that it stood in.
        return None


def _below(folder: Path, path: Path) -> str:
    is_below = path.is_relative_to(folder)
    return safe((path.relative_to(folder) if is_below else path).as_posix(), 1_000)


def _message(test: WrittenTest, spot: Spot) -> str:
    """Say what broke, which faults there were, and how to bring it back."""
    lines = [safe(spot.said.strip() or test["failure"].strip(), _MOST_SAID)]
    tta = test["tta"]
    struck = [one for one in tta["totals"] if one["faults"]] if tta else []
    lines += [f"faults in {one['workflow']}: {one['faults']}" for one in struck]
    if test["replay"] and test["replay"] not in lines[0]:
        lines.append(f"again: {test['replay']}")
    return safe("\n".join(lines), _MOST_MESSAGE)


def _data(text: str) -> str:
    """Escape what ends a command: the runner reads line by line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(tests: Iterable[tuple[WrittenTest, Spot]]) -> str:
    """Return the job's summary as Markdown; empty if no test used the plugin.

    Args:
        tests: What came of the tests, and where they have failed.
    """
    ours = [test for test, spot in tests if test["tta"] or spot.is_finding]
    if not ours:
        return ""
    failed = [test for test in ours if test["outcome"] in _BAD]
    lines = ["## tta", "", *_table(ours)]
    for test in failed[:_MOST_FINDINGS]:
        lines += ["", *_finding(test)]
    if len(failed) > _MOST_FINDINGS:
        lines += ["", f"... and {len(failed) - _MOST_FINDINGS:,} more."]
    return "\n".join(lines) + "\n\n"


def _table(tests: list[WrittenTest]) -> Iterator[str]:
    totals = _added_up(tests)
    if not totals:
        yield "No workflow has run."
        return
    yield "| workflow | runs | failed | retries | faults | virtual time |"
    yield "| :--- | ---: | ---: | ---: | ---: | ---: |"
    # What failed is what is looked for.
    ranked = sorted(totals, key=lambda one: (-one["failed"], -one["retries"]))
    for one in ranked[:_MOST_WORKFLOWS]:
        yield _row(_code(one["workflow"]), one)
    if len(ranked) > _MOST_WORKFLOWS:
        yield f"| ... and {len(ranked) - _MOST_WORKFLOWS:,} more | | | | | |"
    if len(ranked) > 1:
        yield _row("**total**", _sum("", totals))


def _row(name: str, total: TotalRecord) -> str:
    return (
        f"| {name} | {total['runs']:,} | {total['failed']:,} | {total['retries']:,} "
        f"| {total['faults']:,} | {total['virtual_seconds']:,.10g} s |"
    )


def _added_up(tests: list[WrittenTest]) -> list[TotalRecord]:
    by_name: dict[str, list[TotalRecord]] = {}
    for test in tests:
        for one in test["tta"]["totals"] if test["tta"] else ():
            by_name.setdefault(one["workflow"], []).append(one)
    return [_sum(name, totals) for name, totals in by_name.items()]


def _sum(workflow: str, totals: list[TotalRecord]) -> TotalRecord:
    return {
        "workflow": workflow,
        "runs": sum(one["runs"] for one in totals),
        "failed": sum(one["failed"] for one in totals),
        "calls": sum(one["calls"] for one in totals),
        "retries": sum(one["retries"] for one in totals),
        "faults": sum(one["faults"] for one in totals),
        "virtual_seconds": sum(one["virtual_seconds"] for one in totals),
    }


def _finding(test: WrittenTest) -> Iterator[str]:
    yield f"### {_code(test['node_id'])}"
    yield ""
    yield _block(safe(test["failure"].strip(), _MOST_MESSAGE))
    if test["replay"]:
        yield ""
        yield "Again:"
        yield ""
        yield _block(test["replay"])


def _code(text: str) -> str:
    """Return text as code: neither Markdown nor HTML, and no end of a cell."""
    one_line = " ".join(safe(text, 1_000).split())
    return f"<code>{html.escape(one_line).translate(_MARKUP)}</code>"


def _block(text: str) -> str:
    """Return text as a block of code, which no text can end.

    An empty line would end HTML within Markdown.
    """
    escaped = html.escape(text).translate(_MARKUP).replace("\n", "&#10;")
    return f"<pre>{escaped}</pre>"


def append(path: str, text: str) -> None:
    """Add to the file that the runner makes the job's summary of.

    Args:
        path: The file.
        text: Markdown.

    Raises:
        OSError: It cannot be written.
    """
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text)


def is_here(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether GitHub Actions runs this process."""
    known = os.environ if environment is None else environment
    return known.get("GITHUB_ACTIONS") == "true"
