"""Closes the async generators that an SDK leaves in the middle.

The SDKs nest several, and break out of the inner ones when they have read the last
event. What is left so is closed by tasks that the event loop starts when garbage is
collected, some turns of the loop later and one after the other: after the stream has
ended, and in tests after the test.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Generator

__all__ = ["Generators"]


class Generators:
    """The async generators that begin while it drives somebody else's code."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: list[AsyncGenerator[Any, Any]] = []

    @types.coroutine
    def drive(self, awaited: Awaitable[Any]) -> Generator[Any, Any, Any]:
        """Await something, and note which generators begin meanwhile.

        The hooks of the interpreter are ours only while that code itself runs, never
        while it waits.

        Args:
            awaited: What to await.
        """
        steps: Any = awaited.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                pending = self._step(steps, value, error)
            except StopIteration as done:
                return done.value
            finally:
                # Its traceback holds this frame, which must not hold it.
                error = None
            try:
                value = yield pending
            except BaseException as thrown:  # noqa: BLE001 - it is thrown in just above
                value, error = None, thrown

    def _step(
        self,
        steps: Any,  # noqa: ANN401 - an iterator with `throw`
        value: Any,  # noqa: ANN401 - what asyncio sends
        error: BaseException | None,
    ) -> Any:  # noqa: ANN401 - what asyncio's futures yield
        hooks = sys.get_asyncgen_hooks()

        def first(generator: AsyncGenerator[Any, Any], /) -> None:
            self._begun.append(generator)
            if hooks.firstiter is not None:
                hooks.firstiter(generator)

        sys.set_asyncgen_hooks(firstiter=first, finalizer=hooks.finalizer)
        try:
            return steps.send(value) if error is None else steps.throw(error)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    async def aclose(self) -> None:
        """Close them all, the outermost first."""
        while self._begun:
            await self._begun.pop(0).aclose()
