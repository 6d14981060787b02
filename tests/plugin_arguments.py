"""How a pytest session inside the tests gets our plugin."""

from __future__ import annotations

from importlib.metadata import entry_points

PLUGIN_IS_INSTALLED = bool(entry_points(group="pytest11", name="tta"))
"""Whether pytest loads the plugin by itself, through its entry point."""

PLUGIN_MODULES = () if PLUGIN_IS_INSTALLED else ("pytest_tta.plugin",)
"""What a session in this process must load besides."""

PLUGIN_ARGUMENTS = () if PLUGIN_IS_INSTALLED else ("-p", "pytest_tta.plugin")
"""What a command line of pytest (or pytester) needs besides; often nothing."""
