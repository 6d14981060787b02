"""How the tests of the zoo run a session of their own, as those of the plugin do."""

from __future__ import annotations

from tests.plugin.conftest import _no_autoload, run

__all__ = ["_no_autoload", "run"]
