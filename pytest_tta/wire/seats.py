"""Places in a client's pool: no more requests at a time than it has connections."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytest_tta.clock.functions import monotonic, sleep

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Seat", "seats_of"]

STEP = 0.005
"""Seconds between two looks of a thread that waits for a place."""

_LATE = "no place came free in time"


class Seats:
    """The places of one pool; who waits gets one in turn.

    Args:
        number: How many there are.
    """

    def __init__(self, number: float) -> None:
        self._number = number
        self._taken = 0
        self._lock = threading.Lock()
        # Each hands a place to somebody who waits, and tells whether he still does.
        self._queue: deque[Callable[[], bool]] = deque()

    async def take_in_task(self, seconds: float | None) -> Seat:
        """Wait for a place.

        Args:
            seconds: For how long; None for ever.

        Raises:
            TimeoutError: There was none in time.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def hand_over() -> bool:
            """Tell whether somebody still waits for it."""
            if turn.done():
                return False
            turn.set_result(None)
            return True

        if not self._takes_or_waits(hand_over):
            try:
                async with asyncio.timeout(seconds):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self.leave()  # It was handed over just now.
                if isinstance(error, TimeoutError):
                    raise TimeoutError(_LATE) from None
                raise
        return Seat(self)

    def take_in_thread(self, seconds: float | None) -> Seat:
        """Wait for a place, as `take_in_task`, and block the thread."""
        turn = threading.Event()
        waits = [True]

        def hand_over() -> bool:
            if waits:
                turn.set()
            return bool(waits)

        if not self._takes_or_waits(hand_over) and not _wait(turn, seconds):
            with self._lock:
                waits.clear()
            if not turn.is_set():
                raise TimeoutError(_LATE)
        return Seat(self)

    def leave(self) -> None:
        """Give a place to the next one."""
        with self._lock:
            while self._queue:
                if self._queue.popleft()():
                    return
            self._taken -= 1

    def _takes_or_waits(self, hand_over: Callable[[], bool]) -> bool:
        with self._lock:
            if self._taken < self._number:
                self._taken += 1
                return True
            self._queue.append(hand_over)
            return False


def _wait(turn: threading.Event, seconds: float | None) -> bool:
    """Wait for an event in steps, which may be of virtual time."""
    end = math.inf if seconds is None else monotonic() + seconds
    while not turn.is_set():
        left = end - monotonic()
        if left <= 0:
            return False
        sleep(min(left, STEP))
    return True


class Seat:
    """A place that is taken.

    Args:
        seats: Where.
    """

    __slots__ = ("_seats",)

    def __init__(self, seats: Seats) -> None:
        self._seats: Seats | None = seats

    def leave(self) -> None:
        """Give it back; more than once is no harm."""
        seats, self._seats = self._seats, None
        if seats is not None:
            seats.leave()


_known: WeakKeyDictionary[Any, Seats] = WeakKeyDictionary()


def seats_of(transport: Any) -> Seats:  # noqa: ANN401 - a transport of either library
    """Return the places of a transport's pool; any number if it has none."""
    seats = _known.get(transport)
    if seats is None:
        pool = getattr(transport, "_pool", None)
        number = getattr(pool, "_max_connections", None)
        seats = _known[transport] = Seats(math.inf if number is None else number)
    return seats
