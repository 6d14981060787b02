"""What all APIs have in common: a name, and how a request asks for a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JSONApi"]


class JSONApi:
    """An API whose requests are JSON objects.

    Args:
        name: The provider and the API.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def streams(self, body: Mapping[str, Any], /) -> bool:
        """Tell whether a request asks for a stream."""
        return body.get("stream") is True
