"""How the tests of the documentation run what is written there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.docs.pages import pages
from tests.repository.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Shell = Callable[[str], str]
    # For each module: for each of its tests, what it failed with; "" if it passed.
    Results = dict[str, dict[str, str]]

# What a reader has installed; everything else of this machine stays out.
_PLUGINS = ("pytest_asyncio.plugin", "pytest_tta.plugin")
_LOADED = [word for name in _PLUGINS for word in ("-p", name)]
_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
# Hypothesis' deadlines are of real time, and this machine may be busy.
_CONFTEST = "from pytest_tta.properties import load_profile\n\nload_profile()\n"
# Hypothesis warns of how trio, which it loads if it is installed, registers itself.
_STRICT = ("-W", "error", "-W", "ignore:It looks like `register_random`")
_UNSET = ("CI", "OPENAI_API_KEY", "OPENAI_BASE_URL")


def run_python(arguments: list[str], folder: Path) -> str:
    """Run a command of Python in a folder, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
    ours = {
        "COLUMNS": "80",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, **ours},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run one command line of a page as a reader would, and return what it prints."""
    (tmp_path / "pytest.ini").write_text(_INI, "utf-8")

    def run(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "pytest":
            options = [*_LOADED, "-p", "no:cacheprovider"]
            return run_python(["-m", "pytest", *options, *arguments], tmp_path)
        if program != "python":
            msg = f"{command!r}: a page may show `pytest` and `python` at work"
            raise ValueError(msg)
        # An example is run where it lies, a file of the page where its files are.
        is_example = arguments[:1] == ["-m"]
        return run_python(arguments, ROOT if is_example else tmp_path)

    return run


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the Python of all pages in one session; return how each test ended."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "pytest.ini").write_text(_INI, "utf-8")
    (folder / "conftest.py").write_text(_CONFTEST, "utf-8")
    for page in pages():
        (folder / f"{page.module_name}.py").write_text(page.module(), "utf-8")
    extra = ("-p", "anyio.pytest_plugin", "-p", "_hypothesis_pytestplugin")
    options = ["--tta", "-q", *_STRICT, "-p", "no:cacheprovider", *extra]
    output = run_python(
        ["-m", "pytest", *_LOADED, *options, "--junitxml=results.xml"], folder
    )
    written = folder / "results.xml"
    if not written.exists():
        pytest.fail(output)
    return _read(written)


def _read(path: Path) -> Results:
    found: Results = {}
    for case in ET.parse(path).iter("testcase"):
        # A module that could not be imported is a case without a class.
        module = case.get("classname") or case.get("name", "")
        texts = [*case.itertext()] if len(case) else []
        found.setdefault(module, {})[case.get("name", "")] = "\n".join(texts)
    return found
