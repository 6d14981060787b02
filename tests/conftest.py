"""What every test session needs: pytester, and our plugin exactly once."""

from __future__ import annotations

from tests.plugin_arguments import PLUGIN_MODULES

pytest_plugins = ["pytester", *PLUGIN_MODULES]
