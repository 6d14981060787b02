"""What a session says of ten bugs: the outputs that are kept are those of today.

They are read with the eyes of somebody who knows nothing of the bug. After a change of
words, `python -m tests.zoo --outputs` writes them anew: read them before you keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.zoo.documents import (
    DOCUMENTS,
    OPTIONS,
    OUTPUTS,
    bug_named,
    environment,
    normalised,
    source_of,
)

if TYPE_CHECKING:
    from tests.zoo.bug import Bug


def output_of(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, bug: Bug
) -> str:
    """Return what a session in this process says of a bug."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    # There pytest shortens no line.
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(test_shop=source_of(bug))
    result = pytester.runpytest_inprocess(*OPTIONS, "test_shop.py")
    return normalised(result.stdout.str())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_session_says_what_is_kept(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Line by line, but for durations, addresses and the machine."""
    kept = (OUTPUTS / f"{name}.txt").read_text("utf-8")
    said = output_of(pytester, monkeypatch, bug_named(name))
    assert said.splitlines() == kept.splitlines()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_stranger_is_told_all_that_is_needed(name: str) -> None:
    """Which call and line, what happened to it, what broke, and one command."""
    lines = (OUTPUTS / f"{name}.txt").read_text("utf-8").splitlines()
    first = next(line for line in lines if line.startswith("found while exploring: "))
    takes, happened = lines.index("what it takes:"), _begin(lines, "what happened, in ")
    assert takes < happened < lines.index("to reproduce it:")
    assert len(first) > len("found while exploring: ")
    told = "\n".join(lines[takes:happened])
    is_order = " completes before " in told or " begins before " in told
    story = lines[happened + 1 : _begin(lines, "found in ")]
    assert any("test_shop.py:" in line for line in story)
    if not is_order:
        assert "test_shop.py:" in told
        assert any("<- struck" in line for line in story)
    command = lines[lines.index("to reproduce it:") + 1]
    assert command.startswith("pytest test_shop.py::test_")
    assert " --tta-replay='tta1 " in command


def _begin(lines: list[str], text: str) -> int:
    return next(at for at, line in enumerate(lines) if line.startswith(text))


def test_no_output_is_kept_of_anything_else() -> None:
    """Each file belongs to a bug of the list."""
    assert sorted(path.stem for path in OUTPUTS.iterdir()) == sorted(DOCUMENTS)
