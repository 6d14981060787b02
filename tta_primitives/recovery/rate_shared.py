"""One rate limit for all processes that share a Redis."""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio.events import _get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tta_primitives.context import Enforced
from tta_primitives.door import emit
from tta_primitives.errors import CacheKeyError
from tta_primitives.keys import canonical, digest
from tta_primitives.recovery.rate_scripts import SCRIPTS, SHIFT
from tta_primitives.redis_link import link_to

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable

    from redis.asyncio import Redis

    from tta_primitives.context import WorkflowContext
    from tta_primitives.recovery.rate_algorithms import Limit
    from tta_primitives.redis_link import Script

__all__ = ["Reservation", "SharedLimit"]

logger: logging.Logger = logging.getLogger("tta_primitives")

_MICRO: Final = 1_000_000
# Stands for "no limit" in the scripts, whose numbers are doubles.
_NONE: Final = 9e15


class Reservation(NamedTuple):
    """What Redis answers to a call that asks when it may start.

    Attributes:
        keys: Where that is kept.
        cost: The call's units.
        is_reserved: Whether its start is reserved; else it would be too late.
        wait: Seconds from now until it.
        number: Of the reservation.
        shift: By how much penalties had put off everything, in microseconds.
        before: The start that was reserved before, in microseconds.
        was_malformed: Whether something was found that could not be read.
    """

    keys: tuple[str, ...]
    cost: float
    is_reserved: bool
    wait: float
    number: int
    shift: int
    before: int
    was_malformed: bool


class SharedLimit:
    """Reserves starts in Redis, and gives back those that are not used.

    What must be said to Redis although its caller was cancelled is said in a task of
    its own, which ends with the limit on commands.

    Args:
        limit: What is allowed.
        storage: The Redis client.
        namespace: What tells this limit from others in the same Redis.

    Attributes:
        waiting: How many calls of this process wait for the start that they reserved.
    """

    def __init__(self, limit: Limit, storage: Redis, namespace: str) -> None:
        self._link = link_to("storage", storage)
        self._limit = limit
        self._scripts = SCRIPTS[limit.algorithm]
        capacity = _NONE if math.isinf(limit.capacity) else limit.capacity
        figures = (limit.rate, limit.period * _MICRO, capacity)
        self._figures = tuple(map(_text, figures))
        # A limit with other figures is another limit.
        marks = ":".join((limit.algorithm, *self._figures))
        self._prefix = f"tta:rate:{namespace}:{digest(marks)[:8]}"
        self._errands: set[asyncio.Task[Any]] = set()
        self._is_away = False
        self.waiting = 0

    async def reserve(
        self, key: Hashable, cost: float, most: float, context: WorkflowContext
    ) -> Reservation | None:
        """Reserve the next start; return None if Redis cannot be asked.

        Args:
            key: Whose start.
            cost: Its units.
            most: It is reserved only if the wait is no longer than so many seconds.
            context: The call's view.

        Raises:
            TypeError: The key is nothing that other processes would recognise.
        """
        micros = -1 if math.isinf(most) else math.floor(round(most * _MICRO, 3))
        task = self._send(self._reserve(self._keys(key), cost, micros))
        deadline = context.deadline
        # A deadline that somebody enforces is left to whoever does it.
        limit = asyncio.timeout_at(None if type(deadline) is Enforced else deadline)
        found: Reservation | None = None
        try:
            async with limit:
                found = await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the local limit decides
            if not limit.expired():
                self._note_failure(error, context)
            return None
        finally:
            if found is None:
                # The start that may be reserved will not be used.
                task.add_done_callback(self._return_unused)
            # It holds its error, whose traceback leads to this frame.
            del task
        self._is_away = False
        if found is not None and found.was_malformed:
            emit(context, "rate_limit.storage_malformed")
        return found

    async def put_off(
        self, reservation: Reservation, overdue: float, context: WorkflowContext
    ) -> float:
        """Return by how many seconds penalties have put off a reserved start.

        Args:
            reservation: Of the start.
            overdue: How many seconds ago it would have been without any.
            context: The call's view.
        """
        try:
            found = await self._run(SHIFT, reservation.keys)
            shift, lives_for = map(int, found)
        except Exception as error:  # noqa: BLE001 - as above
            self._note_failure(error, context)
            return 0.0
        seconds = max(0, shift - reservation.shift) / _MICRO
        # A start to come is kept until then and longer, or it is none of ours.
        return seconds if (seconds - overdue) * 1000 <= lives_for else 0.0

    def give_back(self, reservation: Reservation) -> None:
        """Give a start back that will not be used; if Redis is away it is lost."""
        # A coroutine may be closed after its loop.
        if reservation.is_reserved and _get_running_loop() is not None:
            self._send(self._give_back(reservation))

    async def penalize(
        self, key: Hashable, seconds: float, context: WorkflowContext
    ) -> None:
        """Let nobody start for so many seconds, in all processes."""
        errand = self._penalize(self._keys(key), seconds, context)
        await asyncio.shield(self._send(errand))

    async def _reserve(
        self, keys: tuple[str, ...], cost: float, most: int
    ) -> Reservation:
        found = await self._run(self._scripts.reserve, keys, _text(cost), most)
        try:
            reserved, wait, number, shift, before, malformed = map(int, found)
        except (TypeError, ValueError) as error:
            msg = f"Redis has answered what no rate limit asks for: {found!r}"
            raise ValueError(msg) from error
        seconds = max(0, wait) / _MICRO
        return Reservation(
            keys,
            cost,
            bool(reserved),
            seconds,
            number,
            shift,
            before,
            bool(malformed),
        )

    async def _give_back(self, one: Reservation) -> None:
        arguments = (_text(one.cost), one.number, one.shift, one.before)
        # If Redis is away now, the units are lost.
        with suppress(Exception):
            await self._run(self._scripts.give_back, one.keys, *arguments)

    async def _penalize(
        self, keys: tuple[str, ...], seconds: float, context: WorkflowContext
    ) -> None:
        try:
            await self._run(
                self._scripts.penalize, keys, math.ceil(round(seconds * _MICRO, 3))
            )
        except Exception as error:  # noqa: BLE001 - as above
            self._note_failure(error, context)

    def _return_unused(self, task: asyncio.Task[Reservation]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.give_back(task.result())

    def _send(self, errand: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something that goes on when its caller is cancelled."""
        task = asyncio.get_running_loop().create_task(errand, name="rate limit")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def _run(
        self, script: Script, keys: tuple[str, ...], *arguments: str | int
    ) -> Any:  # noqa: ANN401 - as the script answers
        return await self._link.run(script, keys, (*self._figures, *arguments))

    def _keys(self, key: Hashable) -> tuple[str, ...]:
        name = self._prefix
        if key is not None:
            name = f"{name}:{digest(_canonical(key))}"
        if self._limit.algorithm == "sliding_window":
            return name, f"{name}:log"
        return (name,)

    def _note_failure(self, error: Exception, context: WorkflowContext) -> None:
        emit(context, "rate_limit.storage_failed", error=error)
        if not self._is_away:
            self._is_away = True
            logger.warning(
                "the rate limit %s goes on without its storage: %r", self._prefix, error
            )


def _text(number: float) -> str:
    """Write a number so that it comes back as it is."""
    return f"{number:.17g}"


def _canonical(key: Hashable) -> str:
    try:
        return canonical(key)
    except CacheKeyError:
        msg = (
            f"key(input, context)={key!r} must be made of plain values, such as texts "
            "and tuples, because other processes must recognise it in the storage"
        )
        raise TypeError(msg) from None
