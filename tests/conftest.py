"""What every test session needs: pytester, and our plugin exactly once."""

from __future__ import annotations

import pytest

from tests.plugin_arguments import PLUGIN_MODULES

pytest_plugins = ["pytester", *PLUGIN_MODULES]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that differ from run to run: two workers would not agree on them."""
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:
        msg = f"an address in the id of a test, give it ids=[...]: {changing[0]}"
        raise pytest.UsageError(msg)
