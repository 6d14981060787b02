"""The contract of the catalogue for the majors of the SDKs that send with httpx."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.repository.source import ROOT
from tests.wire import record

OLDER = ["openai>=2,<3", "anthropic<1"]
# What the surroundings may have set for another environment, or another server.
LEFT_OUT = ("PYTHONPATH", "PYTHONHOME", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")


def run(*command: object) -> str:
    """Run a command of the project, and fail with all it says if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=kept,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(900)
def test_older_sdks_do_what_is_recorded_of_them(tmp_path) -> None:
    """All rows, on sockets and without any; the two are alike, and as the page has it.

    What a release does that is newer than the recorded one is no reason to fail. If an
    older major is to be recorded again, run `python -m tests.wire.catalogue_page` in an
    environment that has it.
    """
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = tmp_path / "venv" / folder / "python"
    run(python, "-m", "pip", "install", "-q", f"{ROOT}[pytest]", *OLDER)
    run(python, "-m", "tests.wire.record", tmp_path / "seen.json")
    seen = record.read(tmp_path / "seen.json")
    assert {sdk: one.major for sdk, [one] in seen.items()} == {
        "openai": 2,
        "anthropic": 0,
    }
    for sdk, [one] in seen.items():
        kept = {str(other): other.rows for other in record.read()[sdk]}
        assert kept.get(str(one), one.rows) == one.rows
        assert set(one.rows) == set(kept.popitem()[1])
