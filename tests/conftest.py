"""What every test session needs: pytester, Redis, our plugin once, and no network."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import hypothesis  # before the heap is frozen: it looks for referrers
import pytest

from pytest_tta.wire.guard import Guard
from tests.plugin_arguments import PLUGIN_MODULES

if TYPE_CHECKING:
    from collections.abc import Generator

pytest_plugins = [
    "pytester",
    # In the order in which they import each other: assertions are rewritten before.
    "tests.processes",
    "tests.redis_server",
    "tests.postgres_server",
    "tests.rabbitmq_server",
    *PLUGIN_MODULES,
]

# A busy machine is no finding: neither an example nor drawing one has a limit.
hypothesis.settings.register_profile(
    "patient",
    parent=hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

# Around all tests, in each worker; what the guards of tests allow goes no further.
_outermost = Guard()


def pytest_configure(config: pytest.Config) -> None:
    """Let nothing that runs here leave the machine."""
    _outermost.__enter__()
    # Sessions inside the tests have nothing to tell it; this one has read them already.
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        os.environ.pop(name, None)
    config.add_cleanup(lambda: _outermost.__exit__(None, None, None))


@pytest.fixture
def outermost_guard() -> Guard:
    """Return the guard around all tests, for those that are about guards."""
    return _outermost


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return pytest's own, after what earlier tests have dropped has had its say.

    A task whose error nobody asked for is logged when it is collected: whenever that
    happens, and in whichever test.
    """
    gc.collect()
    caplog.clear()
    return caplog


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """Fail a test that tried to leave the machine, also if it swallowed the error."""
    yield
    problems = _outermost.untold()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that differ from run to run: two workers would not agree on them."""
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:
        msg = f"an address in the id of a test, give it ids=[...]: {changing[0]}"
        raise pytest.UsageError(msg)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collection.

    Tests that count garbage collect it several times each, and would walk the whole
    session every time: seconds for each of them.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Take all garbage back in: Hypothesis asks at the end who holds its randomness.

    What coverage has counted is written down at once: a worker that takes ten seconds
    to end is killed.
    """
    gc.unfreeze()
    coverage = sys.modules.get("coverage")
    counting = None if coverage is None else coverage.Coverage.current()
    if counting is not None:
        counting.save()
