"""How a pytest session inside the tests gets our plugin."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

PLUGIN_IS_INSTALLED = bool(entry_points(group="pytest11", name="tta"))
"""Whether pytest loads the plugin by itself, through its entry point."""

_NEEDS_LOADING = not PLUGIN_IS_INSTALLED and find_spec("pytest_tta.plugin")

PLUGIN_MODULES = ("pytest_tta.plugin",) if _NEEDS_LOADING else ()
"""What a session in this process must load besides."""

PLUGIN_ARGUMENTS = ("-p", "pytest_tta.plugin") if _NEEDS_LOADING else ()
"""What a command line of pytest (or pytester) needs besides; often nothing."""
