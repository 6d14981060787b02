"""The session that runs these tests: its plugin, and the servers it may use."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests import services
from tests.repository.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Listen where the tests expect Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        monkeypatch.setenv("TTA_REDIS_ADDRESS", f"{host}:{port}")
        yield host, port


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a Redis that was there a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("TTA_REDIS_ADDRESS", address)
    return address


def test_the_plugin_is_loaded_once(pytestconfig: pytest.Config) -> None:
    """By its entry point where it is installed, else by these tests' conftest."""
    loaded = [
        plugin
        for plugin in pytestconfig.pluginmanager.get_plugins()
        if getattr(plugin, "__name__", None) == "pytest_tta.plugin"
    ]
    assert len(loaded) == 1


def test_long_tests_are_left_out_unless_asked_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain `pytest` stays short, and `-m long` runs what it left out."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = "pytest_asyncio.plugin,pytest_tta.plugin"  # Those that it has options of.
    monkeypatch.setenv("PYTEST_PLUGINS", plugins)
    pytester.makepyprojecttoml((ROOT / "pyproject.toml").read_text("utf-8"))
    test = pytester.makepyfile(
        "import pytest\n@pytest.mark.long\ndef test_soak():\n    pass\n"
    )
    pytester.runpytest(test).assert_outcomes(deselected=1)
    pytester.runpytest(test, "-m", "long").assert_outcomes(passed=1)


def test_a_server_that_listens_is_used(server: tuple[str, int]) -> None:
    """The test gets the address, from the environment if that gives one."""
    assert services.require_service("redis") == server


def test_a_test_without_its_server_is_skipped(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason says which server was looked for, and where."""
    monkeypatch.delenv("TTA_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"^no redis server at {absent}$"):
        services.require_service("redis")


def test_a_required_server_that_is_absent_fails_the_test(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where servers are promised, nothing is skipped for lack of one."""
    monkeypatch.setenv("TTA_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match=f"redis server at {absent}, and"):
        services.require_service("redis")
