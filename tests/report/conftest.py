"""How the tests of reports run a session of their own, as those of the plugin do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import _no_autoload, run
from tests.plugin.conftest import run_apart as _apart

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

__all__ = ["_apart", "_no_autoload", "_no_widths", "run", "run_apart"]


@pytest.fixture(autouse=True)
def _no_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have lines of 80 columns, and the same output on machines of continuous tests."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)


@pytest.fixture
def run_apart(_apart: Run) -> Run:
    """Run pytest in a process of its own, with pytest-xdist."""
    return partial(_apart, "-p", "xdist.plugin")
