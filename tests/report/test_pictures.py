"""Coverage as a record, and as a picture."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from pytest_tta.coverage.collector import Collector
from pytest_tta.coverage.data import CoverageData, NodeCoverage
from pytest_tta.coverage.nodes import node_of
from pytest_tta.report.coverage_record import coverage_record
from pytest_tta.report.pictures import coverage_svg
from tests.coverage import shop
from tests.workflow_pictures.reading import boxes, chips, nodes, read, words
from tests.workflow_pictures.test_svg import check
from tta_primitives import WorkflowContext, step
from tta_primitives.recovery import RetryPrimitive

MAKERS = [name for name in vars(shop) if name.startswith("make_")]


@step
async def llm(value):
    return value


def collected(workflow, hits=()):
    """Return coverage of one workflow, of which nothing else has run.

    Args:
        workflow: The workflow.
        hits: Triples of path, outcome and way.
    """
    data = CoverageData()
    covered = data.workflow("shop.py:1", workflow.name, "12345678")
    for node in node_of(workflow).all():
        covered.nodes[node.path] = NodeCoverage(
            node.path, node.type, "", node.config, node.universe
        )
    for path, outcome, via in hits:
        covered.nodes[path].hit(outcome, via, 1, ["test_a"])
    return data


def patient():
    """Return coverage in which an outcome was reached in each way."""
    data = collected(
        RetryPrimitive(llm, max_retries=1),
        [
            ("retry", "ok@1", "test"),
            ("retry", "ok@1", "sweep"),
            ("retry", "ok@2", "sweep"),
            ("retry/llm", "ok", "test"),
        ],
    )
    data.exclude(["retry: cancelled*, hint*, not retried", "retry/llm: cancelled"])
    return data


def test_the_record_says_who_reached_what() -> None:
    """Tests count more than sweeps, and what does not count is no part of the sum."""
    record = coverage_record(patient())
    assert record == json.loads(json.dumps(record))
    assert (record["covered"], record["total"], record["percent"]) == (3, 5, 60.0)
    [workflow] = record["workflows"]
    assert workflow["name"] == "retry"
    assert workflow["tree"] == {
        "type": "RetryPrimitive",
        "name": "retry",
        "options": {"max_retries": 1},
        "children": [
            {"type": "StepPrimitive", "name": "llm", "options": {}, "children": []}
        ],
    }
    assert workflow["nodes"] == {
        "retry": {
            "primitive": "RetryPrimitive",
            "outcomes": [
                {"name": "ok@1", "by": "tests", "excluded": False},
                {"name": "ok@2", "by": "sweep", "excluded": False},
                {"name": "exhausted", "by": "", "excluded": False},
                {"name": "not retried", "by": "", "excluded": True},
                {"name": "hint honoured", "by": "", "excluded": True},
                {"name": "cancelled in attempt", "by": "", "excluded": True},
                {"name": "cancelled in backoff", "by": "", "excluded": True},
            ],
        },
        "retry/llm": {
            "primitive": "StepPrimitive",
            "outcomes": [
                {"name": "ok", "by": "tests", "excluded": False},
                {"name": "failed", "by": "", "excluded": False},
                {"name": "cancelled", "by": "", "excluded": True},
            ],
        },
    }


def test_sweeps_may_be_left_out_of_the_sum() -> None:
    """As with `tta_cov_via = tests`, the table of the terminal."""
    record = coverage_record(patient(), sweep=False)
    assert (record["covered"], record["percent"]) == (2, 40.0)


def test_workflows_that_do_not_count_are_left_out() -> None:
    """One of which every outcome is excluded would be a picture of nothing."""
    data = patient()
    data.exclude(["*"])
    assert coverage_record(data)["workflows"] == []
    assert coverage_record(data)["percent"] == 100.0


def test_no_coverage_is_a_record_too() -> None:
    """Nothing has run: nothing is missing."""
    assert coverage_record(CoverageData()) == {
        "covered": 0,
        "total": 0,
        "percent": 100.0,
        "workflows": [],
    }


def test_each_outcome_has_a_chip() -> None:
    """How it was reached is told by a sign, a look, and a legend."""
    [workflow] = coverage_record(patient())["workflows"]
    svg = coverage_svg(workflow)
    assert words(svg) == [
        *("retry", "2/3", "max_retries=1"),
        *("ok@1", "ok@2", "exhausted", "not retried", "hint honoured"),
        *("cancelled in attempt", "cancelled in backoff"),
        *("llm", "1/2", "ok", "failed", "cancelled"),
        *("reached by tests", "reached by sweeps only", "not reached"),
        "does not count",
    ]
    assert chips(svg) == [
        *("chip full", "chip pale", "chip void", *["chip flat"] * 4),
        *("chip full", "chip void", "chip flat"),
        *("chip full", "chip pale", "chip void", "chip flat"),
    ]
    assert "ok@2: reached by sweeps only" in "".join(ET.fromstring(svg).itertext())


def test_the_picture_tells_what_is_missing_in_words() -> None:
    """Those who cannot see it hear the same."""
    [workflow] = coverage_record(patient())["workflows"]
    title, tale = ET.fromstring(coverage_svg(workflow))[:2]
    assert title.text == "Coverage of retry"
    assert tale.text == (
        "retry [max_retries=1] around llm. 3 of 5 outcomes are reached. "
        "Not reached of retry: exhausted. Not reached of retry/llm: failed."
    )


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("width", [360, 736])
def test_every_kind_of_workflow_has_a_picture(name, width) -> None:
    """The tree of the record has the same positions, and no box touches another."""
    made = getattr(shop, name)()
    [workflow] = coverage_record(collected(made))["workflows"]
    svg = coverage_svg(workflow, width=width)
    check(svg)
    assert {box.title.split(" (")[0] for box in boxes(read(svg))} == set(
        workflow["nodes"]
    )
    assert len(nodes(svg)) == len(workflow["nodes"])


async def test_what_a_session_collects_becomes_a_record() -> None:
    """The collector's data is what the record is made of."""
    collector = Collector(".")
    workflow = RetryPrimitive(llm, max_retries=1)
    with collector.observing("test_a", "test"):
        await workflow.execute("a", WorkflowContext())
    [record] = coverage_record(collector.data)["workflows"]
    assert record["nodes"]["retry"]["outcomes"][0] == {
        "name": "ok@1",
        "by": "tests",
        "excluded": False,
    }


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    """An outcome is named after a step, and a step may be called anything."""
    workflow = (llm >> llm.named("<script>]]>\x1b\u202e")).named("a & b")
    [record] = coverage_record(collected(workflow))["workflows"]
    svg = coverage_svg(record)
    check(svg)
    assert "script" not in {e.tag.rpartition("}")[2] for e in ET.fromstring(svg).iter()}
    assert "\x1b" not in svg
