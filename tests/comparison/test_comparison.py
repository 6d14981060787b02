"""The comparison itself: what is found is shown, and the page is up to date."""

from __future__ import annotations

import asyncio
import queue

import pytest

from tests.comparison import __main__ as program
from tests.comparison import page, running
from tests.comparison.cases import (
    OURS,
    Area,
    Finding,
    LacksError,
    Library,
    NoServerError,
    verdict,
)

FIRST = r"One of \[two\] \| holds"


class Ours(Library):
    name = OURS


class Other(Library):
    name = "other, as decorator"
    distribution = "pytest"


class Gone(Library):
    name = "gone"
    distribution = "a-distribution-that-nobody-has"


class Builtin(Library):
    name = "asyncio.thing"


@pytest.fixture
def area():
    """An area with three cases; the libraries other than ours break the first."""
    made = Area("Things", Ours, Other, Gone, Builtin)

    @made.case("One of [two] | holds", 1, 2)
    async def holds(library):
        return verdict(library is Ours, "3 <things> of 2.5")

    @made.case("It is there", "rule 9")
    async def is_there(library):
        if library is not Ours:
            raise LacksError
        return verdict(True, "")

    @made.case("It asks a server", 3)
    async def asks(library):
        raise NoServerError

    return made


def findings_of(area):
    return {
        (area.title, library.name, case.key): running.find(library, case)
        for library in area.libraries
        for case in area.cases
    }


def text_of(area):
    return page.written([area], findings_of(area), page.versions([area]))


def test_page_shows_what_was_found(area) -> None:
    """A row for each case, a mark for each library; what was seen stands below."""
    lines = text_of(area).splitlines()
    begin = lines.index("## Things") + 2
    assert lines[begin : begin + 7] == [
        "| case | what must hold | tta | other, as decorator | gone | asyncio.thing |",
        "| --- | --- | :-: | :-: | :-: | :-: |",
        r"| 1, 2 | One of \[two\] \| holds | ✓ | ✗ | absent | ✗ |",
        "| rule 9 | It is there | ✓ | - | absent | - |",
        "| 3 | It asks a server | no server | no server | absent | no server |",
        "",
        rf"- *{FIRST}*: other, as decorator & asyncio.thing: 3 \<things\> of 2.5",
    ]


def test_page_names_the_versions(area) -> None:
    """One for each library, also where a column shows one of several ways to use it."""
    assert page.versions([area]) == {
        "other": pytest.__version__,
        "gone": "not installed",
        "asyncio": f"of Python {page.platform.python_version()}",
    }


def test_page_is_read_as_it_was_written(area) -> None:
    """Versions, marks, and what was seen come back."""
    found = page.read(text_of(area))
    assert found.versions == page.versions([area])
    assert len(found.marks) == 12
    assert found.marks["Things", "It is there", OURS] == "✓"
    assert found.seen == {
        ("Things", FIRST, name): r"3 \<things\> of 2.5"
        for name in ("other, as decorator", "asyncio.thing")
    }


def test_only_what_must_be_the_same_is_compared(area) -> None:
    """Numbers vary, other versions may do better, and not everybody has a server."""
    found, other = page.read(text_of(area)), page.read(text_of(area))
    assert found.comparable(found)["Things", FIRST, "other, as decorator"] == (
        "✗",
        r"# \<things\> of #",
    )
    other.versions["other"] = "0.1"
    kept = {(case, name) for _, case, name in found.comparable(other)}
    assert kept == {
        *[(FIRST, name) for name in (OURS, "gone", "asyncio.thing")],
        *[("It is there", name) for name in (OURS, "gone", "asyncio.thing")],
        ("It asks a server", "gone"),
    }


def case_of(probe):
    area = Area("Things", Ours)
    area.case("It holds", 1)(probe)
    return area.cases[0]


def test_what_holds_the_second_time_is_kept() -> None:
    """A busy machine must not make a library look worse than it is."""
    outcomes = [False, True]

    async def sometimes(library):
        return verdict(outcomes.pop(0), "not yet")

    assert running.find(Ours, case_of(sometimes)) == Finding("keeps")


def test_a_probe_that_fails_is_no_verdict() -> None:
    """It says that it could not be run, and why."""

    async def broken(library):
        raise TypeError("no such argument")

    assert running.find(Ours, case_of(broken)) == Finding(
        "could not run", "TypeError: no such argument"
    )


def test_a_probe_that_hangs_is_given_up(monkeypatch) -> None:
    """What awaits for ever is told so."""
    monkeypatch.setattr(running, "LIMIT", 0.01)

    async def hangs(library):
        await asyncio.Event().wait()

    finding = running.find(Ours, case_of(hangs))
    assert finding == Finding("breaks", "does not return within 0 s")


def test_a_process_that_hangs_is_given_up(monkeypatch) -> None:
    """What holds the loop for ever is told so, and what was found before is kept."""
    monkeypatch.setattr(running, "LIMIT", 0.01)
    lines = queue.Queue()
    lines.put('{"verdict": "keeps", "seen": ""}\n')
    found = running._gathered(lines)
    assert [finding.verdict for finding in found] == ["keeps", "breaks"]


def test_a_process_that_ends_early_is_told() -> None:
    """The probe in which it ended could not be run; noise between is left out."""
    lines = queue.Queue()
    for line in ('{"verdict": "keeps", "seen": ""}\n', "noise\n", ""):
        lines.put(line)
    assert running._gathered(lines) == [
        Finding("keeps"),
        Finding("could not run", "its process has ended"),
    ]


def test_a_process_goes_on_after_the_one_that_hung(monkeypatch, area) -> None:
    """Each process begins with the case after the last finding of the one before."""
    begun = []

    def in_process(name, begin):
        begun.append(begin)
        return [Finding("keeps")] * (2 - begin) if begin < 2 else [Finding("lacks")]

    monkeypatch.setattr(running, "_in_process", in_process)
    found = running._of_library([area], OURS)
    assert begun == [0, 2]
    assert [one.verdict for one in found.values()] == ["keeps", "keeps", "lacks"]


def test_every_case_has_a_probe_with_a_name_of_its_own() -> None:
    """Findings are filed under the names of the probes, which say what they do."""
    for area in program.AREAS:
        keys = [case.key for case in area.cases]
        assert len(set(keys)) == len(keys)
        assert [key for key in keys if not case_of_key(area, key).probe.__doc__] == []
        assert area.libraries[0].name == OURS


def case_of_key(area, key):
    return next(case for case in area.cases if case.key == key)


@pytest.mark.long
def test_page_says_what_the_probes_find() -> None:
    """The page in the repository is the one that is made today, figures excepted."""
    committed = page.read(program.PATH.read_text("utf-8"))
    made = page.read(program.text())
    assert made.comparable(committed) == committed.comparable(made)
    ours = {key: mark for key, mark in made.marks.items() if key[2] == OURS}
    broken = {key for key, mark in ours.items() if mark not in {"✓", "-", "no server"}}
    assert broken == set()
