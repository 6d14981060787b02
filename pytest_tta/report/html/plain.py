"""The page as plain tables: what is seen where no script runs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pytest_tta.trace.spans import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_tta.report.record import (
        CoverageRecord,
        CoveredNode,
        CoveredOutcome,
        CoveredWorkflow,
        RunRecord,
        SessionRecord,
        SpanRecord,
        WrittenTest,
    )

__all__ = ["body", "title"]

_ORDER: Final = ("failed", "error", "passed", "skipped")
_MOST_SPANS: Final = 200
_WORDS: Final = {
    "tests": ("by-tests", "✓ {}"),
    "sweep": ("by-sweep", "✓ {} (sweep only)"),
    "": ("missed", "✗ {} (not reached)"),
}


def title(record: SessionRecord) -> str:
    """Return what a tab of the browser shows, as HTML.

    Args:
        record: What is told of the session.
    """
    return f"{escape(_counted(record))} - test report"


def body(record: SessionRecord) -> str:
    """Return the session as headings and tables, as HTML.

    Args:
        record: What is told of the session.
    """
    return "\n".join(_parts(record))


def _parts(record: SessionRecord) -> Iterator[str]:
    tests = sorted(record["tests"], key=lambda test: _ORDER.index(test["outcome"]))
    said = (
        _counted(record),
        f"{seconds(round(record['real_seconds'], 2))} s",
        f"seed {record['seed']}",
        f"clock {record['clock']}",
        record["created_at"],
    )
    yield "<header><h1>Test report</h1>"
    yield f"<p>{escape(' · '.join(said))}</p></header>"
    yield "<main>"
    yield from _table(tests)
    for test in tests:
        if test["failure"]:
            yield from _failure(test)
    if record["coverage"] is not None:
        yield from _coverage(record["coverage"])
    yield "</main>"


def _counted(record: SessionRecord) -> str:
    outcomes = [test["outcome"] for test in record["tests"]]
    counted = [f"{outcomes.count(one)} {one}" for one in _ORDER if one in outcomes]
    return ", ".join(counted) or "no tests"


def _table(tests: list[WrittenTest]) -> Iterator[str]:
    yield "<table><thead><tr>"
    yield from (
        f'<th scope="col">{name}</th>'
        for name in ("Outcome", "Test", "Virtual time", "Real time")
    )
    yield "</tr></thead><tbody>"
    for test in tests:
        tta = test["tta"]
        virtual = "" if tta is None else f"{seconds(tta['virtual_seconds'])} s"
        real = seconds(round(test["real_seconds"], 3))
        outcome = test["outcome"]
        yield (
            f'<tr><td class="outcome-{outcome}">{outcome}</td>'
            f"<td><bdi>{escape(test['node_id'])}</bdi></td>"
            f"<td>{virtual}</td><td>{real} s</td></tr>"
        )
    yield "</tbody></table>"


def _failure(test: WrittenTest) -> Iterator[str]:
    yield f"<section><h2><bdi>{escape(test['node_id'])}</bdi></h2>"
    if test["replay"]:
        yield f"<p>Bring it back:</p>{_pre(test['replay'])}"
    yield _pre(test["failure"])
    run = test["tta"] and test["tta"].get("run")
    if run and run["spans"]:
        yield f"<p>What ran, in virtual seconds:</p>{_pre(_outline(run))}"
    yield "</section>"


def _pre(text: str) -> str:
    # The first newline of the element is not part of its text.
    return f'<pre tabindex="0">\n{escape(text)}</pre>'


def _outline(run: RunRecord) -> str:
    spans = run["spans"]
    depths: list[int] = []
    for span in spans:
        parent = span["parent"]
        depths.append(0 if parent is None else depths[parent] + 1)
    lines = [
        "  " * depth + _line(span)
        for span, depth in zip(spans[:_MOST_SPANS], depths, strict=False)
    ]
    rest = len(spans) - len(lines) + run["left_out"]
    return "\n".join([*lines, *([f"and {rest:,} more"] if rest else [])])


def _line(span: SpanRecord) -> str:
    number = f"@{span['execution']}" if span["execution"] > 1 else ""
    ended = span["ended_at"]
    when = f"{seconds(span['started_at'])}-{'' if ended is None else seconds(ended)}"
    said = [f"{span['label']}{number}", when]
    if span["status"] != "ok":
        said.append(span["status"].replace("_", " "))
    if span["error"] is not None and span["status"] != "cancelled":
        said.append(span["error"]["type"])
    if span["fault"]:
        said.append(f"injected: {span['fault']}")
    return " ".join(said)


def _coverage(coverage: CoverageRecord) -> Iterator[str]:
    """Yield the coverage; the page with scripts moves it to where it is shown."""
    yield '<section id="coverage" class="coverage"><div><h2>Coverage of outcomes</h2>'
    yield (
        f"<p>{coverage['covered']} of {coverage['total']} outcomes of primitives are "
        f"reached, {int(coverage['percent'])} %.</p></div>"
    )
    for workflow in coverage["workflows"]:
        yield from _workflow(workflow)
    yield "</section>"


def _workflow(workflow: CoveredWorkflow) -> Iterator[str]:
    from pytest_tta.report.pictures import coverage_svg

    name = escape(workflow["name"])
    picture = quote(coverage_svg(workflow), errors="replace")
    yield f"<article><h3><bdi>{name}</bdi></h3>"
    yield (
        f'<div class="picture" tabindex="0" role="group" aria-label="Picture">'
        f'<img alt="The workflow {name}; the table beside it tells the same" '
        f'src="data:image/svg+xml;charset=utf-8,{picture}"></div>'
    )
    yield '<div class="wide" tabindex="0" role="group" aria-label="Outcomes"><table>'
    yield '<thead><tr><th scope="col">At</th><th scope="col">Primitive</th>'
    yield '<th scope="col">Outcomes</th></tr></thead><tbody>'
    for path, node in workflow["nodes"].items():
        yield _node(path, node)
    yield "</tbody></table></div></article>"


def _node(path: str, node: CoveredNode) -> str:
    return (
        f'<tr><th scope="row"><bdi class="code">{escape(path)}</bdi></th>'
        f"<td>{escape(node['primitive'])}</td>"
        f'<td><ul class="chips">{"".join(_chips(node["outcomes"]))}</ul></td></tr>'
    )


def _chips(outcomes: Iterable[CoveredOutcome]) -> Iterator[str]:
    for outcome in outcomes:
        kind, words = _WORDS[outcome["by"]]
        if outcome["excluded"]:
            kind, words = "excluded", "{} (excluded)"
        said = words.format(outcome["name"])
        yield f'<li class="chip {kind}">{escape(said)}</li>'
