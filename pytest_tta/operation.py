"""An operation of the outside, in a double that a test has written itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from types import TracebackType

    from pytest_tta.clock.simulation import Entered

__all__ = ["op"]


class op:  # noqa: N801 - used as a function is: `await op("db.read")`
    """Stand for something outside, such as a query, that takes an unknown time.

    In a double, awaited before the effect, or entered around it:

        async def read(self, key):
            await op("db.read")
            return self.rows.get(key)

        async def charge(self, order, amount):
            async with op("bank.charge"):
                self.charges.append((order, amount))

    Usually it lets others run once and takes no time. While a test is explored it is a
    call site: its completion comes when the schedule says, and faults strike it. Only
    around an effect can the answer be lost after the effect.

    Args:
        label: The site: what it is, and of whom, such as `db.read`.
    """

    __slots__ = ("_held", "label")

    def __init__(self, label: str = "op") -> None:
        if not isinstance(label, str) or not label:
            msg = f"label={label!r} must be a text, such as 'db.read'"
            raise TypeError(msg)
        self.label: str = label
        self._held: Any = None

    def __await__(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        site: Any = getattr(loop, "site", None)
        if site is None:
            return _answer(loop, self.label).__await__()
        # The effect comes after it, so that no answer can be lost here.
        held: Entered = site(self.label, around=False)
        return held.__aenter__().__await__()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        site = getattr(loop, "site", None)
        if site is None:
            await _answer(loop, self.label)
            return
        self._held = site(self.label)
        await self._held.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.__aexit__(kind, error, trace)


def _answer(loop: asyncio.AbstractEventLoop, label: str) -> Awaitable[None]:
    """Ask for the answer where there are no call sites; usually it takes one round."""
    answer = getattr(loop, "answer", None)
    return asyncio.sleep(0) if answer is None else answer(label)
