"""One load for all who want the same key at the same time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from types import TracebackType

    from tta_primitives.performance.leases import Lease

__all__ = ["Flight", "Flights", "Load"]


class Load:
    """An execution of the wrapped primitive whose value is to be kept.

    Attributes:
        key: What the value will be found by.
        is_void: Whether the key was invalidated meanwhile, or everybody left: then the
            value is not kept, and nobody else may wait for it.
        is_closed: Whether nobody else may wait for it, as it is as good as over.
        is_outdated: Whether it had no lease, or lost it: another process may have
            invalidated the key while it was under way.
        has_begun: Whether the wrapped primitive is being executed.
        fresh_for: Seconds for which the value is fresh; None if it was not kept.
        tags: What it can be invalidated by.
        lease: What other processes go by; None if they load for themselves.
    """

    __slots__ = (
        "fresh_for",
        "has_begun",
        "is_closed",
        "is_outdated",
        "is_void",
        "key",
        "lease",
        "tags",
    )

    def __init__(self, key: Hashable) -> None:
        self.key: Hashable = key
        self.is_void: bool = False
        self.is_closed: bool = False
        self.is_outdated: bool = False
        self.has_begun: bool = False
        self.fresh_for: float | None = None
        self.tags: tuple[str, ...] = ()
        self.lease: Lease | None = None


class Flight(Load):
    """A load in a task of its own, for which any number of callers wait.

    None of them leads: one that is cancelled leaves alone, and with the last one the
    load is cancelled.

    Attributes:
        task: The load.
        deadline: The deadline that it runs under, that of the call which began it.
        is_taken: Whether a caller has already been handed the value itself.
    """

    __slots__ = (
        "_in_background",
        "_traceback",
        "_waiting",
        "deadline",
        "is_taken",
        "task",
    )

    task: asyncio.Task[Any]

    def __init__(
        self, key: Hashable, deadline: float | None, *, in_background: bool
    ) -> None:
        super().__init__(key)
        self.deadline: float | None = deadline
        self.is_taken: bool = False
        self._in_background = in_background
        self._waiting = 0
        self._traceback: TracebackType | None = None

    async def landed(self) -> None:
        """Wait until the load has ended, however it did."""
        self._waiting += 1
        try:
            # Unlike `shield`, this needs no future that somebody must look at.
            await asyncio.wait((self.task,))
        except asyncio.CancelledError:
            if self._waiting == 1 and not self._in_background:
                await self._abandon()
            raise
        finally:
            self._waiting -= 1

    async def _abandon(self) -> None:
        """Cancel the load and see it end, as if its last caller had awaited it."""
        self.is_void = True
        while not self.task.done():
            self.task.cancel()
            try:
                await asyncio.wait((self.task,))
            except asyncio.CancelledError:
                continue  # Cancelled once more, and so is the load.

    @property
    def has_failed(self) -> bool:
        """Whether the load, which must have ended, raised or was cancelled."""
        return self.task.cancelled() or self.task.exception() is not None

    def error(self) -> BaseException:
        """Return what the load raised, with the traceback of the load alone.

        All callers raise one error. Without this each would find in it the frames of
        those who raised it before him.
        """
        error = None if self.task.cancelled() else self.task.exception()
        if error is None:
            return asyncio.CancelledError()
        if self._traceback is None:
            self._traceback = error.__traceback__
        return error.with_traceback(self._traceback)

    def was_short_for(self, deadline: float | None) -> bool:
        """Tell whether a caller has much more time than this load was given.

        A load that fails under a short deadline may have given up because of it, for
        instance on a retry. Who had more than twice the time left is not bound by that
        failure; who had about as much shares it, so that callers who arrive one after
        the other do not load one after the other.

        Args:
            deadline: The caller's, in seconds of the loop's clock.
        """
        if self.deadline is None or self.deadline == deadline:
            return False
        if deadline is None:
            return True
        now = asyncio.get_running_loop().time()
        return deadline - now > 2 * max(0.0, self.deadline - now)


class Flights:
    """The loads of one cache that are under way.

    Callers share a load only on their own event loop: nobody waits for a task of a loop
    that may be closed, or may run in another thread.
    """

    def __init__(self) -> None:
        self._loads: set[Load] = set()
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[Hashable, Flight]] = {}

    def __len__(self) -> int:
        return len(self._loads)

    def find(self, key: Hashable) -> Flight | None:
        """Return the load of a key that a caller on this loop may wait for."""
        flights = self._by_loop.get(asyncio.get_running_loop())
        flight = None if flights is None else flights.get(key)
        if flight is None or flight.is_void or flight.is_closed or flight.task.done():
            return None
        lease = flight.lease
        return None if lease is not None and lease.is_lost else flight

    def begin(
        self,
        key: Hashable,
        run: Callable[[Load], Coroutine[Any, Any, Any]],
        name: str,
        *,
        deadline: float | None = None,
        in_background: bool = False,
    ) -> Flight:
        """Start a load in a task, which has the caller's context variables.

        Args:
            key: What the value will be found by.
            run: Makes the load's coroutine.
            name: The task's name.
            deadline: The deadline that the load runs under.
            in_background: Whether the load goes on when nobody waits for it.
        """
        loop = asyncio.get_running_loop()
        flights = self._of(loop)
        flight = Flight(key, deadline, in_background=in_background)
        self._loads.add(flight)
        flight.task = loop.create_task(run(flight), name=name)
        flights[key] = flight
        flight.task.add_done_callback(partial(self._land, flights, flight))
        return flight

    def _of(self, loop: asyncio.AbstractEventLoop) -> dict[Hashable, Flight]:
        flights = self._by_loop.get(loop)
        if flights is None:
            self._forget_closed_loops()
            flights = self._by_loop[loop] = {}
        return flights

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            self._loads.difference_update(self._by_loop.pop(loop).values())

    def _land(
        self, flights: dict[Hashable, Flight], flight: Flight, task: asyncio.Task[Any]
    ) -> None:
        self._loads.discard(flight)
        if flights.get(flight.key) is flight:
            del flights[flight.key]
        if not task.cancelled():
            task.exception()  # Seen, even if all who waited have left.

    def enter(self, key: Hashable) -> Load:
        """Note a load that its only caller runs himself."""
        load = Load(key)
        self._loads.add(load)
        return load

    def leave(self, load: Load) -> None:
        """Note that a load has ended."""
        self._loads.discard(load)

    def void(self, key: Hashable) -> None:
        """Keep nothing of the loads of this key that are under way."""
        for load in tuple(self._loads):
            if load.key == key:
                load.is_void = True

    def void_all(self) -> None:
        """Keep nothing of all loads that are under way."""
        for load in tuple(self._loads):
            load.is_void = True
