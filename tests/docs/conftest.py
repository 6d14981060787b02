"""How the tests of the documentation run what is written there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_tta.clock import trampolines
from tests.repository.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    Shell = Callable[[str], str]

# As in tests/plugin: the clock's import finder must outlive sessions in this process.
trampolines.install()

# What a reader has installed; everything else of this machine stays out.
_PLUGINS = ("pytest_asyncio.plugin", "anyio.pytest_plugin", "_hypothesis_pytestplugin")
_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
_LOADED = [word for name in (*_PLUGINS, "pytest_tta.plugin") for word in ("-p", name)]


@pytest.fixture
def shell(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run one command line of a page, and return what it prints.

    pytest runs in this process, in a folder of its own; `python` runs apart.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CI"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(_INI)

    def run(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "pytest":
            options = [*_LOADED, "-p", "no:cacheprovider", *arguments]
            return pytester.runpytest_inprocess(*options).stdout.str()
        if program != "python":
            msg = f"{command!r}: a page may show `pytest` and `python` at work"
            raise ValueError(msg)
        return _python(arguments, pytester)

    return run


def _python(arguments: list[str], pytester: pytest.Pytester) -> str:
    # An example is run where it lies, a file of the page where the page's files are.
    is_example = arguments[:1] == ["-m"]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT if is_example else pytester.path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout
