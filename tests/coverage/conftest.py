"""How the tests of coverage run a session of their own, as those of the plugin do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

# What a session in this process finds imported is imported once, as in `tests.plugin`.
import pytest_tta.coverage.session  # noqa: F401
from tests.plugin.conftest import _no_autoload, run
from tests.plugin.conftest import run_apart as _apart

if TYPE_CHECKING:
    from tests.plugin.conftest import Run

__all__ = ["_apart", "_no_autoload", "_wide", "run", "run_apart"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run_apart(_apart: Run) -> Run:
    """Run pytest in a process of its own, with pytest-xdist."""
    return partial(_apart, "-p", "xdist.plugin")
