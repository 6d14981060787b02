"""How the tests of the plugin run a session of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# pytester forgets what a session in this process imported; what is there before is
# imported once, and a name that `pytest_tta` has handed out stays the same object.
import pytest_tta.session  # noqa: F401
import tta_primitives.performance
import tta_primitives.recovery  # noqa: F401
from pytest_tta.clock import trampolines

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

# pytester takes back what a session in this process does to the import system, and
# the clock's own finder stands there; so it is put in place before the first of them.
trampolines.install()

# Nothing is loaded by itself: the plugins of the machine would cost seconds a session.
_PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_tta.plugin")
_QUIET = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")


@pytest.fixture(autouse=True)
def _no_autoload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run pytest in this process on the files that the test made."""

    def run_pytest(*args: str, **options: bool) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*_PLUGINS, *_QUIET, *args, **options)

    return run_pytest


@pytest.fixture
def run_apart(pytester: pytest.Pytester) -> Run:
    """Run pytest in a process of its own."""

    def run_pytest(*args: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(*_PLUGINS, *_QUIET, *args)

    return run_pytest
