"""A session with --tta lets no test leave the machine, whatever swallows the error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic  # noqa: F401 - what a session in this process imports is forgotten
import httpx  # noqa: F401
import httpx2  # noqa: F401
import openai  # noqa: F401
import pytest
import redis.asyncio
import uvloop  # noqa: F401

import pytest_tta.session
from pytest_tta.clock import trampolines

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

trampolines.install()

_PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_tta.plugin")
_OPTIONS = (
    *("-p", "no:cacheprovider", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
BLOCKED = "*NetworkBlocked: {} is not on this machine, and nothing is mocked there"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in this process on the files that the test made."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*_PLUGINS, *_OPTIONS, *args)

    return run_pytest


def test_unmocked_call_fails_by_name(pytester: pytest.Pytester, run: Run) -> None:
    """The failure names the host, the line and what to do."""
    pytester.makepyfile(
        test_it="""
        import urllib.request

        def fetch():
            return urllib.request.urlopen("https://api.example/v1?key=hidden")

        def test_fetches():
            fetch()
    """
    )
    result = run("--tta")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            BLOCKED.format("api.example:443"),
            "*  at: test_it.py:4 in fetch",
            "*tta_allow_hosts = api.example in the ini file, *",
        ]
    )
    result.stdout.no_fnmatch_line("*tta problems*")
    assert "key=hidden" not in result.stdout.str().replace('?key=hidden")', "")
