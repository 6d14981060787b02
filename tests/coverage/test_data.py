"""Coverage as data: merged in any order, written and read the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_tta.coverage import CoverageData, NodeCoverage

if TYPE_CHECKING:
    from pytest_tta.coverage.data import Via


def collected(
    tests: list[str], via: Via = "test", place: str = "shop.py:12", outcome: str = "ok"
) -> CoverageData:
    """Return data of one workflow with one node, one outcome of which was reached."""
    data = CoverageData()
    workflow = data.workflow(place, "till", "12345678")
    node = NodeCoverage("till", "RetryPrimitive", place, {"a": 1}, ("ok", "failed"))
    workflow.nodes["till"] = node
    node.hit(outcome, via, len(tests), tests)
    return data


def test_merging_adds_in_any_order() -> None:
    """Hits are added, and the tests are the same whoever comes first."""
    parts = [collected(["b", "c"]), collected(["a"]), collected(["d"], "sweep")]
    found = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        data = CoverageData()
        for number in order:
            data.merge(parts[number])
        found.append(data.to_json())
    assert len(set(found)) == 1
    node = json.loads(found[0])["workflows"][0]["nodes"][0]
    assert node["outcomes"] == {
        "ok": {
            "sweep": {"hits": 1, "tests": ["d"]},
            "test": {"hits": 3, "tests": ["a", "b", "c"]},
        },
        "failed": {},
    }


def test_tests_of_an_outcome_are_bounded() -> None:
    """A few ids say where to look, and the number of hits says the rest."""
    names = [f"test_{number:03}" for number in range(50)]
    data = collected(names)
    hit = data.workflows[0].nodes["till"].hits["ok"]["test"]
    assert hit.hits == 50
    assert hit.tests == names[:10]


def test_written_data_is_read_again() -> None:
    """Nothing is lost on the way."""
    data = collected(["a"])
    data.exclude(["till: failed"])
    data.workflows[0].suggestions["till"] = {"failed": "def test_it(): ..."}
    read = CoverageData.from_plain(json.loads(data.to_json()))
    assert read.to_json() == data.to_json()
    assert read.ratio(sweep=False) == (1, 1)


def test_data_of_another_schema_is_refused() -> None:
    """Whoever reads it would take it for something else."""
    with pytest.raises(ValueError, match="schema='tta/2' is not 'tta-resilience/1'"):
        CoverageData.from_plain({"schema": "tta/2"})


def test_workflows_stand_in_the_order_of_their_lines() -> None:
    """Line 9 comes before line 10."""
    data = collected(["a"], place="shop.py:10")
    data.merge(collected(["a"], place="shop.py:9"))
    data.merge(collected(["a"], place="bar.py:99"))
    places = [workflow.place for workflow in data.workflows]
    assert places == ["bar.py:99", "shop.py:9", "shop.py:10"]


def test_what_only_a_sweep_has_reached_is_counted_apart() -> None:
    """A sweep without assertions does not make tests look better."""
    data = collected(["a"], "sweep")
    assert data.ratio(sweep=False) == (0, 2)
    assert data.ratio(sweep=True) == (1, 2)
    assert data.percent(sweep=True) == 50.0


@pytest.mark.parametrize(
    ("rule", "counted"),
    [
        ("till", []),
        ("t*: fail*", ["ok"]),
        ("till: ok, failed", []),
        ("other", ["ok", "failed"]),
    ],
)
def test_rules_leave_outcomes_out(rule: str, counted: list[str]) -> None:
    """A path alone means everything there."""
    data = collected(["a"])
    data.exclude([rule])
    assert data.workflows[0].nodes["till"].counted == counted


def test_rule_may_name_files() -> None:
    """Workflows that tests make for themselves can be left out."""
    data = collected(["a"], place="tests/test_shop.py:3")
    data.merge(collected(["a"], place="src/shop.py:12"))
    data.exclude(["tests/*.py"])
    assert [workflow.place for workflow in data.workflows] == ["src/shop.py:12"]


def test_nothing_to_reach_is_all_reached() -> None:
    """A session without workflows fails under no percentage."""
    assert CoverageData().percent(sweep=True) == 100.0
