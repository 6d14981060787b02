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
        ask: Called in place of `wait`, or None while time is real.
        outside: How many files are watched besides the loop's own pipe.
        prepare: Called before the first wait that takes time; it tells whether there is
            something to do after all. None once it was called.

    """

    def __init__(self, inner: selectors.BaseSelector) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.ask: Callable[[float | None], Events] | None = None
        self.outside: int = 0
        self.prepare: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> Events:
        """Wait as asyncio asks to, or as virtual time has it."""
        ask = self.ask
        return self.wait(timeout) if ask is None else ask(timeout)

    def wait(self, timeout: float | None) -> Events:
        """Wait for I/O in real time.

        Args:
            timeout: For how many seconds at most; None for as long as it takes.
        """
        if self.prepare is None:
            return self.inner.select(timeout)
        if timeout == 0:
            # Not every system can look at no file at all.
            return self.inner.select(0) if self.outside else []
        prepare, self.prepare = self.prepare, None
        return self.inner.select(0 if prepare() else timeout)

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
