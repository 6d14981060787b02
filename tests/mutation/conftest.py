"""The sessions of pytest that these tests run are those of the plugin's tests."""

from __future__ import annotations

from tests.plugin.conftest import _no_autoload, run, run_apart

__all__ = ["_no_autoload", "run", "run_apart"]
