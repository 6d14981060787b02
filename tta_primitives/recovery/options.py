"""Options that several primitives have, and which of them differ from the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["SharedOptions", "changed"]


class SharedOptions(TypedDict, total=False):
    """The keyword arguments of a primitive whose state all processes can share."""

    storage: Redis | None
    namespace: str | None


def changed(primitive: object, constructor: Any) -> dict[str, Any]:  # noqa: ANN401 - an unbound `__init__`
    """Return the options of a primitive that differ from the constructor's defaults.

    Args:
        primitive: Has an attribute for each keyword-only parameter.
        constructor: The `__init__` that declares the parameters.
    """
    return {
        name: getattr(primitive, name)
        for name, usual in (constructor.__kwdefaults__ or {}).items()
        if getattr(primitive, name) is not usual and getattr(primitive, name) != usual
    }
