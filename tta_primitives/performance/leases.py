"""One load for all processes that share a storage: who holds the lease of a key loads.

A lease ends by itself, so that the death of its holder costs the others a moment and no
more; while it loads, the holder renews it. Its end, or the lack of a storage that could
hold it, never stands in the way of a load: what it saves is work, not correctness.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from tta_primitives.chance import new_id, rng

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tta_primitives.performance.shelves import Found
    from tta_primitives.performance.storage import LeaseStorage

__all__ = ["Lease", "turn"]

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks at what somebody else loads."""

PAUSE_SHARE = 0.1
"""The part of the time waited so far that a pause takes, and so may waste."""

PATIENCE = 12
"""For how many lengths of a lease somebody waits before he ends that of another."""


class Lease:
    """What one load knows of the lease of its key.

    Attributes:
        token: What tells this holder from others while it is held; None otherwise.
        seconds: For how long it is held, unless it is renewed.
        has_waited: Whether somebody else had it when it was first asked for.
        is_lost: Whether it was taken away while it was held: the key was invalidated,
            or this process did not renew it in time.
    """

    __slots__ = (
        "_key",
        "_renewing",
        "_storage",
        "_timer",
        "has_waited",
        "is_lost",
        "seconds",
        "token",
    )

    def __init__(self, storage: LeaseStorage, key: str, seconds: float) -> None:
        self._storage = storage
        self._key = key
        self.seconds: float = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.token: str | None = None
        self.is_lost: bool = False
        self.has_waited: bool = False

    async def acquire(self) -> bool:
        """Take it, if nobody else has it, and renew it from now on."""
        token = new_id()
        if not await self._storage.acquire(self._key, token, self.seconds):
            return False
        self.token = token
        loop = asyncio.get_running_loop()
        # Most loads are over before there is anything to renew: then no task is made.
        self._timer = loop.call_later(self.seconds / 3, self._begin_to_renew, loop)
        return True

    async def is_held(self) -> bool:
        """Ask whether it is still held; whoever cannot be asked does not say so."""
        if self.token is None or self.is_lost:
            return False
        with suppress(Exception):
            return await self._storage.renew(self._key, self.token, self.seconds)
        return False

    async def end_anothers(self) -> None:
        """Take it away from whoever holds it: what he loads will not be kept."""
        await self._storage.delete([self._key])

    def spend(self) -> None:
        """Note that it has ended with the writing of what was loaded."""
        self.token = None

    async def end(self) -> None:
        """Stop renewing it, and give it back if it is still held."""
        if self._timer is not None:
            self._timer.cancel()
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait((renewing,))
        token, self.token = self.token, None
        if token is not None and not self.is_lost:
            with suppress(Exception):  # It ends by itself.
                await self._storage.release(self._key, token)

    def _begin_to_renew(self, loop: asyncio.AbstractEventLoop) -> None:
        name = f"renewal of the lease of {self._key}"
        self._renewing = loop.create_task(self._renew(), name=name)

    async def _renew(self) -> None:
        while self.token is not None:
            # A storage that fails may have come back in time for the next time.
            with suppress(Exception):
                if not await self._storage.renew(self._key, self.token, self.seconds):
                    self.is_lost = True
                    return
            await asyncio.sleep(self.seconds / 3)


async def turn(
    lease: Lease,
    look: Callable[[], Awaitable[Found | None]],
    deadline: float | None,
) -> Found | None:
    """Wait until the value of a key is there, or until it is one's turn to load it.

    Args:
        lease: The lease of the key. If on return it is not held, there was no time to
            wait for it, and what is loaded must not be kept.
        look: Returns the value if somebody has loaded it.
        deadline: Half of the time until then is left for one's own load.

    Returns:
        The value; None if the caller is to load it.

    Raises:
        Exception: What the storage raised.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    patience = began + PATIENCE * lease.seconds
    urgent = math.inf if deadline is None else began + (deadline - began) / 2
    while not await lease.acquire():
        lease.has_waited = True
        now = clock()
        if now >= urgent:
            return None
        if now >= patience:
            await lease.end_anothers()
            patience = math.inf
            continue
        pause = min(max(PAUSE_SHARE * (now - began), SHORTEST_PAUSE), LONGEST_PAUSE)
        pause *= 1 - rng().random() / 2
        await asyncio.sleep(min(pause, urgent - now, patience - now))
        found = await look()
        if found is not None:
            return found
    # Who had it before may have written between the caller's first look and now.
    return await look()
