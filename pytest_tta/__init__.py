"""Prove that async workflows are resilient: `pytest --tta`.

The names below are imported when they are first used, so that loading the plugin does
not load them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tta.clock.clock import VirtualClock as VirtualClock
    from pytest_tta.harness import Harness as Harness
    from pytest_tta.harness import HarnessError as HarnessError

_HOMES = {
    "Harness": "pytest_tta.harness",
    "HarnessError": "pytest_tta.harness",
    "VirtualClock": "pytest_tta.clock.clock",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a list, made from the table above


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
