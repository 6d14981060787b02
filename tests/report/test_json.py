"""The file of --tta-json is what its published schema says."""

from __future__ import annotations

import copy
import json
import typing
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import jsonschema
import pytest

from pytest_tta import __main__ as command_line
from pytest_tta.harness import Harness
from pytest_tta.report import record as records
from pytest_tta.report import runs
from pytest_tta.report.facts import facts
from pytest_tta.report.json_file import schema_text, text, write
from pytest_tta.writing import write_whole
from tests.report.test_session import BAD, EXPLORED, GOOD, HEAD, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Run

SCHEMA: dict[str, Any] = json.loads(schema_text())
PARTS = {
    "test": records.WrittenTest,
    "item": records.ItemRecord,
    "total": records.TotalRecord,
    "exploration": records.ExplorationRecord,
    "verdict": records.ExploredVerdict,
    "stored_failure": records.StoredFailure,
    "run": records.RunRecord,
    "span": records.SpanRecord,
    "error": records.ErrorRecord,
    "event": records.EventRecord,
    "message": records.MessageRecord,
    "sleep": records.SleepRecord,
    "coverage": records.CoverageRecord,
    "workflow": records.CoveredWorkflow,
    "node": records.CoveredNode,
    "outcome": records.CoveredOutcome,
}


def closed(schema: Any) -> Any:
    """Return a schema that allows nothing but what it names."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: closed(one) for name, one in schema.items()}
    if "properties" in strict:
        strict.setdefault("additionalProperties", False)
    return strict


def check(record: Any) -> None:
    """Fail if a report is not as the schema says, or says more than that."""
    jsonschema.Draft202012Validator(
        closed(SCHEMA), format_checker=jsonschema.FormatChecker()
    ).validate(record)


def read(pytester: pytest.Pytester) -> dict[str, Any]:
    """Return what is in the report."""
    found: dict[str, Any] = json.loads((pytester.path / "r.json").read_text("utf-8"))
    return found


def test_the_schema_is_one() -> None:
    """It is valid by the rules of its draft, and names its version."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == records.SCHEMA
    assert SCHEMA["properties"]["version"] == {
        "description": "Of the format.",
        "const": records.VERSION,
    }


@pytest.mark.parametrize("name", PARTS, ids=str)
def test_schema_and_types_name_the_same(name: str) -> None:
    """What Python's types say and what the schema says cannot drift apart."""
    part, kind = SCHEMA["$defs"][name], PARTS[name]
    assert set(part["properties"]) == set(kind.__annotations__)
    optional = {
        key
        for key, hint in get_type_hints(kind, include_extras=True).items()
        if get_origin(hint) is typing.NotRequired
    }
    assert set(part["required"]) == set(kind.__annotations__) - optional


def test_the_whole_and_its_words_are_named_alike() -> None:
    """The session's keys, and the words for outcomes and statuses, are the same."""
    assert set(SCHEMA["properties"]) == set(records.SessionRecord.__annotations__)
    assert SCHEMA["required"] == list(SCHEMA["properties"])
    parts = SCHEMA["$defs"]
    outcome = parts["test"]["properties"]["outcome"]["enum"]
    assert outcome == list(get_args(records.Outcome))
    status = parts["span"]["properties"]["status"]["enum"]
    assert status == list(get_args(records.Status))
    hints = get_type_hints(records.RunRecord)
    assert get_origin(hints["of"]) is Literal
    assert parts["run"]["properties"]["of"]["enum"] == list(get_args(hints["of"]))


def test_a_real_report_is_as_the_schema_says(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Tests of all kinds, with faults, messages, an exploration and coverage."""
    talk = """
def test_talk(tta):
    tta.llm.at("model").reply("Hello")
    tta.run(tta.llm.primitive("model"), "Hi?")
    assert not tta.llm.calls
"""
    pytester.makepyfile(HEAD + GOOD + BAD + PLAIN + EXPLORED + talk)
    run("--tta", "--tta-explore", "--tta-cov", "--tta-json=r.json", "--tta-runs=all")
    record = read(pytester)
    check(record)
    assert record["coverage"] is not None
    *_, explored, talked = record["tests"]
    assert explored["tta"]["exploration"]["verdict"]["kind"] == "invariant"
    assert talked["tta"]["run"]["spans"][0]["messages"] == [
        {"role": "user", "text": "Hi?"},
        {"role": "assistant", "text": "Hello"},
    ]


def test_a_report_of_no_tests_is_as_the_schema_says(
    pytester: pytest.Pytester, run: Run
) -> None:
    """An empty session has a report, too."""
    result = run("--tta-json=r.json")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    record = read(pytester)
    check(record)
    assert (record["tests"], record["coverage"]) == ([], None)


def test_the_check_sees_what_is_wrong(pytester: pytest.Pytester, run: Run) -> None:
    """A report with a key too many, one too few or a wrong word is refused."""
    pytester.makepyfile(HEAD + GOOD)
    run("--tta-json=r.json", "--tta-runs=all")
    record = read(pytester)
    for path, value in (
        (("tests", 0, "outcome"), "green"),
        (("tests", 0, "tta", "run", "spans", 0, "more"), 1),
        (("version",), 2),
    ):
        wrong = copy.deepcopy(record)
        place: Any = wrong
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError, match=str(value)):
            check(wrong)
    del record["seed"]
    with pytest.raises(jsonschema.ValidationError, match="'seed' is a required"):
        check(record)


def test_a_report_has_no_number_that_json_has_not() -> None:
    """Infinity would make a file that other languages cannot read."""
    broken: Any = {"real_seconds": float("inf")}
    with pytest.raises(ValueError, match=r"Out of range float values"):
        text(broken)


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m pytest_tta schema` prints it for those who check reports."""
    assert command_line.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def test_half_a_file_is_never_seen(tmp_path: Path) -> None:
    """If writing fails the earlier file is as it was, and nothing else is left."""
    path = tmp_path / "r.json"
    write_whole(path, "before")
    with pytest.raises(UnicodeEncodeError, match=r"surrogates not allowed"):
        write_whole(path, "after \ud800")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    """/dev/null is no file to put another one in the place of."""
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    record: Any = {}
    write(record, link)
    assert link.is_symlink()


def test_versions_are_the_same_everywhere() -> None:
    """Facts, records and schema speak of one version."""
    with Harness() as tta:
        assert facts(tta)["version"] == records.VERSION
    assert runs.MOST_SPANS == 20_000
