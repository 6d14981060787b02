"""The failures that are kept: one file each, tried first, forgotten when fixed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_tta.explore.failures import FailureStore, Stored
from pytest_tta.explore.outcome import Verdict

if TYPE_CHECKING:
    from pathlib import Path

LINE = "tta1 f=pay#1:lost-ack"
VERDICT = Verdict("assertion", "assert 'sk-1' == 'x'", "test_pay.py:7", KeyError("s"))


@pytest.fixture
def store(tmp_path: Path) -> FailureStore:
    """Return the failures of one test."""
    return FailureStore(tmp_path / "kept", "test_pay.py::test_pay[sk-2]")


def test_a_failure_is_kept_without_inputs(store: FailureStore) -> None:
    """The file has the plan and what broke; no text of it, and no parameter."""
    path = store.keep(LINE, VERDICT)
    assert json.loads(path.read_text("utf-8")) == {
        "tta_failure": 1,
        "test": "test_pay.py::test_pay",
        "line": LINE,
        "kind": "assertion",
        "error": "KeyError",
        "where": "test_pay.py:7",
        "green": 0,
    }
    assert "sk-" not in str(path)


def test_what_was_kept_is_loaded(store: FailureStore) -> None:
    """The same plan is kept once, others beside it."""
    assert store.load() == []
    paths = {
        store.keep(LINE, VERDICT),
        store.keep(LINE, VERDICT),
        store.keep("", VERDICT),
    }
    loaded = store.load()
    assert {stored.path for stored in loaded} == paths
    assert sorted(stored.line for stored in loaded) == ["", LINE]


def test_tests_do_not_see_each_others_failures(tmp_path: Path) -> None:
    """Each test, and each of its parameters, has a folder of its own."""
    FailureStore(tmp_path, "test_a.py::test[1]").keep(LINE, VERDICT)
    assert FailureStore(tmp_path, "test_a.py::test[2]").load() == []
    assert len(FailureStore(tmp_path, "test_a.py::test[1]").load()) == 1


def test_what_is_fixed_is_forgotten_after_two_green_runs(store: FailureStore) -> None:
    """One run in which it does not happen may be luck."""
    store.keep(LINE, VERDICT)
    assert store.note(store.load()[0], "fixed") is False
    assert store.load()[0].green == 1
    assert store.note(store.load()[0], "fixed") is True
    assert store.load() == []


def test_what_fails_again_begins_anew(store: FailureStore) -> None:
    """A green run between two failures does not count."""
    store.keep(LINE, VERDICT)
    store.note(store.load()[0], "fixed")
    store.note(store.load()[0], "still failing")
    assert store.load()[0].green == 0


def test_what_is_stale_is_left(store: FailureStore) -> None:
    """Its site may be back on the next branch."""
    store.keep(LINE, VERDICT)
    before = store.load()
    assert store.note(before[0], "stale") is False
    assert store.load() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"tta_failure": 1}', '{"tta_failure": 9, "line": "tta9"}'],
)
def test_a_file_that_cannot_be_read_has_no_line(store: FailureStore, text: str) -> None:
    """Half of a file, or one of another version, stops nobody."""
    path = store.keep(LINE, VERDICT)
    path.write_text(text, encoding="utf-8")
    assert store.load() == [Stored(path, "")]


def test_nothing_is_left_beside_the_files(store: FailureStore) -> None:
    """A file is written under another name and then put in its place."""
    path = store.keep(LINE, VERDICT)
    store.note(store.load()[0], "fixed")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
