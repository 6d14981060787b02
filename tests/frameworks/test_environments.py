"""Each framework is tested in an environment of its own, beside what it asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.repository.source import ROOT

HERE = Path(__file__).parent
# The file of the tests, and what has to be installed for it.
FRAMEWORKS = {
    "test_langchain.py": ["langchain-openai", "langchain-anthropic"],
    "test_litellm.py": ["litellm"],
    "test_pydantic_ai.py": ["pydantic-ai-slim[anthropic,openai]"],
}
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
# LiteLLM fetches a list of prices when it is imported, unless it is told not to.
SETTINGS = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
OURS = ("PYTHONPATH", "PYTEST_ADDOPTS", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")


def run(*command: object, cwd: Path) -> None:
    """Run a command in a folder, and fail with all it says if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **SETTINGS},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


def test_every_framework_has_an_environment() -> None:
    """No file of tests here is skipped everywhere."""
    files = {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert files == set(FRAMEWORKS)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", FRAMEWORKS)
def test_a_framework_needs_nothing_of_ours_but_the_plugin(tmp_path, file) -> None:
    """Its newest release, installed beside this project; every test of it runs."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = tmp_path / "venv" / folder / "python"
    run(
        *(python, "-m", "pip", "install", "-q", f"{ROOT}[pytest]"),
        *FRAMEWORKS[file],
        cwd=tmp_path,
    )
    (tmp_path / "pytest.ini").write_text(INI, "utf-8")
    shutil.copy(HERE / file, tmp_path)
    run(python, "-m", "pytest", "--tta", "--junitxml=results.xml", file, cwd=tmp_path)
    [suite] = ET.parse(tmp_path / "results.xml").iter("testsuite")
    assert int(suite.get("tests")) > 5
    assert suite.get("skipped") == "0"
