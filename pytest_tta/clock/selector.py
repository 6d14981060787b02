"""Ask before each wait for I/O whether time is virtual."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["AskingSelector", "Events"]

Events = list[tuple[selectors.SelectorKey, int]]


class AskingSelector(selectors.BaseSelector):
    """Wrap a selector of whatever kind; `ask` stands in for its `select`.

    Attributes:
        inner: The selector that knows the system's way of waiting.
        ask: Called in place of `inner.select`, or None while time is real.
        outside: How many files are watched besides the loop's own pipe.

    """

    def __init__(self, inner: selectors.BaseSelector) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.ask: Callable[[float | None], Events] | None = None
        self.outside = -1

    def select(self, timeout: float | None = None) -> Events:
        """Wait as asyncio asks to, or as virtual time has it."""
        ask = self.ask
        return self.inner.select(timeout) if ask is None else ask(timeout)

    def register(
        self,
        fileobj: Any,  # noqa: ANN401 - the signature of selectors
        events: int,
        data: Any = None,  # noqa: ANN401
    ) -> selectors.SelectorKey:
        """Watch a file."""
        key = self.inner.register(fileobj, events, data)
        self.outside += 1
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        """Stop to watch a file."""
        key = self.inner.unregister(fileobj)
        self.outside -= 1
        return key

    def modify(
        self,
        fileobj: Any,  # noqa: ANN401
        events: int,
        data: Any = None,  # noqa: ANN401
    ) -> selectors.SelectorKey:
        """Watch a file for something else."""
        return self.inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Give all that is watched."""
        return self.inner.get_map() or {}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        """Give what is watched of one file."""
        return self.inner.get_key(fileobj)

    def close(self) -> None:
        """Close the selector that is wrapped."""
        self.inner.close()
