"""Providers inside the test: what real clients send is answered here, byte for byte.

The names below are imported when they are first used: the guard, which every session
with `--tta` has, needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tta.wire.audit import Finding as Finding
    from pytest_tta.wire.exchange import WireAnswer as WireAnswer
    from pytest_tta.wire.exchange import WireRequest as WireRequest
    from pytest_tta.wire.guard import NetworkBlocked as NetworkBlocked
    from pytest_tta.wire.provider import Provider as Provider
    from pytest_tta.wire.provider import WireExchange as WireExchange
    from pytest_tta.wire.wire import Wire as Wire

_HOMES = {
    "Finding": "audit",
    "NetworkBlocked": "guard",
    "Provider": "provider",
    "Wire": "wire",
    "WireAnswer": "exchange",
    "WireExchange": "provider",
    "WireRequest": "exchange",
}

__all__ = [
    "Finding",
    "NetworkBlocked",
    "Provider",
    "Wire",
    "WireAnswer",
    "WireExchange",
    "WireRequest",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
