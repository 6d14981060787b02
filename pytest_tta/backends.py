"""Who runs an async test besides asyncio: trio, or a loop that anyio is told to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_tta.clock.loop import VirtualLoop

if TYPE_CHECKING:
    import pytest

__all__ = ["anyio_loop", "is_trio", "is_trio_backend"]


def is_trio(item: pytest.Item) -> bool:
    """Tell whether trio runs a test, as far as it is known yet."""
    return item.get_closest_marker("trio") is not None or is_trio_backend(
        _backend(item)
    )


def is_trio_backend(backend: object) -> bool:
    """Tell whether a value of the fixture `anyio_backend` means trio."""
    return _name_and_options(backend)[0] == "trio"


def anyio_loop(item: pytest.Item) -> str:
    """Name what gives a test of anyio's a time of its own; empty if nothing does."""
    name, options = _name_and_options(_backend(item))
    factory = options.get("loop_factory")
    if name == "trio":
        return "trio's"
    if factory is not None and factory is not VirtualLoop:
        return f"made by {factory!r}"
    return "uvloop.Loop" if options.get("use_uvloop") and factory is None else ""


def _backend(item: pytest.Item) -> object:
    """Return the value of `anyio_backend`, before its set-up that of the parameter."""
    made: dict[str, Any] = getattr(item, "funcargs", {})
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return made.get("anyio_backend", parameters.get("anyio_backend"))


def _name_and_options(backend: object) -> tuple[object, dict[str, Any]]:
    match backend:
        case (name, dict(options)):
            return name, options
    return backend, {}
