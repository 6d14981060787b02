"""Each framework is tested in an environment of its own, beside what it asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.docs.pages import read_page
from tests.repository.source import ROOT

HERE = Path(__file__).parent
PAGE = read_page(ROOT / "docs" / "howto" / "llm-frameworks.md")
# Whose settings the files of the page are written for.
SETTINGS = read_page(ROOT / "docs" / "howto" / "test-openai-code.md").files()

# What has to be installed for a file of the page, and for one that is beside this.
FRAMEWORKS = {
    "test_agent.py": (["pydantic-ai-slim[anthropic,openai]"], "test_pydantic_ai.py"),
    "test_chain.py": (["langchain-openai", "langchain-anthropic"], "test_langchain.py"),
    "test_completion.py": (["litellm"], "test_litellm.py"),
    "test_route.py": (["fastapi", "openai"], None),
}
# LiteLLM fetches a list of prices when it is imported, unless it is told not to.
OURS = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
UNSET = ("OPENAI_API_KEY", "PYTEST_ADDOPTS", "PYTHONPATH")


def run(*command: object, cwd: Path) -> None:
    """Run a command in a folder, and fail with all it says if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **OURS},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


def test_every_framework_has_an_environment() -> None:
    """No file of tests is skipped everywhere, none of the page is never run."""
    beside = {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert beside == {file for _, file in FRAMEWORKS.values() if file}
    assert set(PAGE.files()) == set(FRAMEWORKS)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shown", FRAMEWORKS)
def test_a_framework_needs_nothing_of_ours_but_the_plugin(tmp_path, shown) -> None:
    """Its newest release, installed beside this project; every test of it runs."""
    packages, beside = FRAMEWORKS[shown]
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = tmp_path / "venv" / folder / "python"
    install = (python, "-m", "pip", "install", "-q")
    run(*install, f"{ROOT}[pytest]", *packages, cwd=tmp_path)
    for name in ("pytest.ini", "conftest.py"):
        (tmp_path / name).write_text(SETTINGS[name], "utf-8")
    (tmp_path / shown).write_text(PAGE.files()[shown], "utf-8")
    files = [shown]
    if beside is not None:
        shutil.copy(HERE / beside, tmp_path)
        files.append(beside)
    run(python, "-m", "pytest", "--junitxml=results.xml", *files, cwd=tmp_path)
    [suite] = ET.parse(tmp_path / "results.xml").iter("testsuite")
    assert int(suite.get("tests")) >= len(files)
    assert suite.get("skipped") == "0"
