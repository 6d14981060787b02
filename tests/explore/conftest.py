"""How the tests of exploring run a session of their own, as those of the plugin do."""

from __future__ import annotations

from tests.plugin.conftest import _no_autoload, run, run_apart

__all__ = ["_no_autoload", "run", "run_apart"]
