"""The dashboard and the alerts ask for metrics that are exported, and for no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.processes import ROOT
from tta_primitives.observability.__main__ import main
from tta_primitives.observability.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What Prometheus and Grafana add.
THEIRS = {"job", "instance", "le"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool, which comes with Prometheus, is not installed"
)


def printed(what: str) -> str:
    """Return what the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tta_primitives.observability", what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(printed("dashboard"))


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(printed("alerts"))["groups"]
    return group["rules"]


def queries_of(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def labels_of() -> dict[str, set[str]]:
    """Return the labels of each series that is exported."""
    found = {}
    for family in FAMILIES:
        names = [family.name]
        if family.kind == "histogram":
            names = [family.name + end for end in ("_bucket", "_sum", "_count")]
        for name in names:
            found[name] = set(family.labels)
    return found


def unknown_in(query: str) -> set[str]:
    """Return the metrics and labels of a query that are not exported."""
    known = labels_of()
    names = set(re.findall(r"\btta_\w+", query))
    labels = {label for name in names & known.keys() for label in known[name]} | THEIRS
    asked = set()
    for inside in re.findall(r"\{([^{}]*)\}", query):
        asked |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside))
    for listed in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^()]*)\)", query):
        asked |= set(re.findall(r"\w+", listed))
    return (names - known.keys()) | (asked - labels)


def test_panels_ask_for_what_is_exported(dashboard) -> None:
    """Every metric and label of every panel and variable is one of ours."""
    variables = [one.get("definition", "") for one in dashboard["templating"]["list"]]
    queries = list(queries_of(dashboard))
    assert len(queries) > 20
    assert {query: unknown_in(query) for query in queries if unknown_in(query)} == {}
    for definition in variables:
        assert not re.findall(r"\btta_\w+", definition) or not unknown_in(definition)


def test_alerts_ask_for_what_is_exported(rules) -> None:
    """The same for the alerts, with the labels that their texts show."""
    assert len(rules) > 10
    assert {
        r["alert"]: unknown_in(r["expr"]) for r in rules if unknown_in(r["expr"])
    } == {}
    known = set().union(*labels_of().values()) | THEIRS
    for rule in rules:
        texts = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= known
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_metric_is_seen(dashboard) -> None:
    """Nothing is exported that no panel shows."""
    shown = " ".join(queries_of(dashboard))
    assert [one.name for one in FAMILIES if one.name not in shown] == []


def test_an_unknown_name_would_be_found() -> None:
    """The search itself works, for metrics and for labels."""
    query = (
        'sum by (route, nobody) (rate(tta_nothing{a="b"}[5m])) / tta_processes{x=~"y"}'
    )
    assert unknown_in(query) == {"route", "nobody", "tta_nothing", "a", "x"}


def test_the_dashboard_can_be_provisioned(dashboard) -> None:
    """It names no data source of ours, panels do not overlap, ids are unique."""
    (source, *_) = dashboard["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {
        panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"
    } == {"${datasource}"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y)
            for x in range(place["w"])
            for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")


@needs_promtool
def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    """Its own tool checks them."""
    file = tmp_path / "alerts.yml"
    file.write_text(printed("alerts"))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", file], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@needs_promtool
def test_prometheus_takes_the_queries_of_panels(tmp_path: Path, dashboard) -> None:
    """They are rules as well, once Grafana's variables are filled in."""
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries_of(dashboard))
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", file], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


COUNT = "tta_primitive_duration_seconds_count"


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "labels"),
    [
        (
            "TtaRunsFail",
            {
                f'{COUNT}{{job="a",path="answer",status="ok"}}': "0+90x60",
                f'{COUNT}{{job="a",path="answer",status="failed"}}': "0+10x60",
                f'{COUNT}{{job="a",path="answer/llm",status="failed"}}': "0+90x60",
                f'{COUNT}{{job="a",path="fine",status="ok"}}': "0+90x60",
            },
            {"job": "a", "path": "answer", "severity": "critical"},
        ),
        (
            "TtaRunsHang",
            {
                'tta_primitive_in_flight{job="a",path="answer"}': "3x60",
                'tta_primitive_in_flight{job="a",path="busy"}': "3x60",
                f'{COUNT}{{job="a",path="answer",status="ok"}}': "7x60",
                f'{COUNT}{{job="a",path="busy",status="ok"}}': "0+1x60",
            },
            {"job": "a", "path": "answer", "severity": "critical"},
        ),
        (
            "TtaCircuitOpen",
            {
                'tta_circuit_state{job="a",path="llm",state="open"}': "2x60",
                'tta_circuit_state{job="a",path="other",state="closed"}': "2x60",
                'tta_circuit_state{job="a",path="other",state="open"}': "0x60",
            },
            {"job": "a", "path": "llm", "severity": "warning"},
        ),
        (
            "TtaCallsRejected",
            {
                'tta_rejections_total{job="a",path="llm",by="bulkhead"}': "0+50x60",
                f'{COUNT}{{job="a",path="llm",status="failed"}}': "0+60x60",
            },
            {"job": "a", "path": "llm", "by": "bulkhead", "severity": "warning"},
        ),
    ],
)
def test_alerts_fire_when_they_should(tmp_path: Path, alert, series, labels) -> None:
    """On series with one culprit, that one is named and nobody else."""
    (tmp_path / "alerts.yml").write_text(printed("alerts"))
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    firing = [{"exp_labels": labels}]
    tests = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [],
                "alert_rule_test": [
                    {"alertname": alert, "eval_time": "50m", "exp_alerts": firing}
                ],
            }
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", file], check=False, capture_output=True
    )
    said = (done.stdout + done.stderr).decode()
    # The texts of annotations are not what is tested.
    got = re.findall(r"Labels:\{([^}]*)\}", said.partition("got:")[2])
    wanted = ", ".join(
        f'{name}="{value}"'
        for name, value in sorted({"alertname": alert, **labels}.items())
    )
    assert got == [wanted], said


def test_the_command_says_what_there_is(capsys) -> None:
    """A wrong word shows the right ones."""
    with pytest.raises(SystemExit):
        main(["metrics"])
    assert "choose from" in capsys.readouterr().err
