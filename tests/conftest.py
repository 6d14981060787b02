"""What every test session needs: pytester, Redis, and our plugin exactly once."""

from __future__ import annotations

import gc

import hypothesis  # noqa: F401 - before the heap is frozen: it looks for referrers
import pytest

from tests.plugin_arguments import PLUGIN_MODULES

pytest_plugins = ["pytester", "tests.redis_server", *PLUGIN_MODULES]


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
    """Take all garbage back in: Hypothesis asks at the end who holds its randomness."""
    gc.unfreeze()
