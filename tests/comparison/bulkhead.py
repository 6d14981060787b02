"""Bulkhead: the libraries, the cases, and the probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.comparison.cases import OURS, Area, LacksError, Library, verdict
from tests.comparison.steps import outcome_of, settle

if TYPE_CHECKING:
    from tests.comparison.cases import Finding, Function

__all__ = ["BULKHEAD"]


class Bulkhead(Library):
    """What a bulkhead may be asked for."""

    @classmethod
    def bulkhead(cls, function: Function, *, slots: int, queue: int) -> Function:
        """Let so many run and so many wait; refuse the others."""
        raise LacksError

    @classmethod
    def queued(cls, function: Function, *, slots: int) -> Function:
        """Let so many run, and many wait."""
        return cls.bulkhead(function, slots=slots, queue=100)

    @classmethod
    def waiting(cls, function: Function, seconds: float) -> Function:
        """Let one run, and others wait for so many seconds at most."""
        raise LacksError

    @classmethod
    def is_rejection(cls, error: object) -> bool:
        """Tell whether nothing was executed."""
        raise LacksError


class Ours(Bulkhead):
    """BulkheadPrimitive."""

    name = OURS

    @classmethod
    def _made(cls, function: Any, **options: Any) -> Function:
        from tta_primitives import WorkflowContext
        from tta_primitives.recovery import BulkheadPrimitive

        made = BulkheadPrimitive(function, **options)
        return lambda value=None: made.execute(value, WorkflowContext())

    @classmethod
    def bulkhead(cls, function, *, slots, queue):
        return cls._made(function, max_concurrency=slots, max_queue=queue)

    @classmethod
    def waiting(cls, function, seconds):
        return cls._made(function, max_concurrency=1, max_queue=9, max_wait=seconds)

    @classmethod
    def is_rejection(cls, error):
        from tta_primitives.errors import BulkheadFullError

        return isinstance(error, BulkheadFullError)


class Hyx(Bulkhead):
    """`async with bulkhead`."""

    name = distribution = "hyx"

    @classmethod
    def bulkhead(cls, function, *, slots, queue):
        from hyx.bulkhead import bulkhead

        places = bulkhead(max_concurrency=slots, max_capacity=slots + queue)

        async def limited(value=None):
            async with places:
                return await function(value)

        return limited

    @classmethod
    def is_rejection(cls, error):
        from hyx.bulkhead.exceptions import BulkheadFull

        return isinstance(error, BulkheadFull)


class HyxDecorator(Hyx):
    """`@bulkhead`."""

    name = "hyx, as decorator"

    @classmethod
    def bulkhead(cls, function, *, slots, queue):
        from hyx.bulkhead import bulkhead

        return bulkhead(max_concurrency=slots, max_capacity=slots + queue)(function)


class Semaphore(Bulkhead):
    """`asyncio.Semaphore`."""

    name = "asyncio.Semaphore"

    @classmethod
    def queued(cls, function, *, slots):
        places = asyncio.Semaphore(slots)

        async def limited(value=None):
            async with places:
                return await function(value)

        return limited


BULKHEAD = Area("Bulkhead", Ours, Hyx, HyxDecorator, Semaphore)


class Room:
    """What is limited: those inside wait until the door opens.

    Attributes:
        entered: Who came in, in order.
        door: Opens for all.
    """

    def __init__(self) -> None:
        self.entered: list[object] = []
        self.door = asyncio.Event()

    def step(self) -> Function:
        """Return it as a plain async function."""

        async def room(value: object = None) -> object:
            self.entered.append(value)
            await self.door.wait()
            return value

        return room


async def begin(call: Function, *values: object) -> list[asyncio.Task[object]]:
    """Start a call for each value, in order."""
    tasks = []
    for value in values:
        tasks.append(asyncio.create_task(outcome_of(call(value))))
        await settle()
    return tasks


@BULKHEAD.case("One that is cancelled while it waits gives its place back", 76)
async def places_are_given_back(library: type[Bulkhead]) -> Finding:
    """Cancel the one in the queue; then let one run and one wait again."""
    room = Room()
    call = library.bulkhead(room.step(), slots=1, queue=1)
    first, second = await begin(call, 1, 2)
    second.cancel()
    await settle()
    room.door.set()
    await asyncio.wait([first, second])
    room.door.clear()
    later = await begin(call, 3, 4)
    room.door.set()
    outcomes = await asyncio.gather(*later)
    lost = sum(library.is_rejection(one) for one in outcomes)
    return verdict(outcomes == [3, 4], f"{lost} of 2 later calls are rejected")


@BULKHEAD.case("One that is cancelled while it runs gives its slot back", 76)
async def slots_are_given_back(library: type[Bulkhead]) -> Finding:
    """Cancel the one inside, and see whether the next comes in."""
    room = Room()
    call = library.queued(room.step(), slots=1)
    first, second = await begin(call, 1, 2)
    first.cancel()
    await settle()
    room.door.set()
    await asyncio.wait([first, second], timeout=1)
    return verdict(room.entered == [1, 2], "the next does not come in")


@BULKHEAD.case("A call for which there is no place is rejected before any await", 77)
async def rejections_come_at_once(library: type[Bulkhead]) -> Finding:
    """Take one step of a call beyond the queue."""
    room = Room()
    call = library.bulkhead(room.step(), slots=1, queue=1)
    tasks = await begin(call, 1, 2)
    coroutine = call(3)
    try:
        coroutine.send(None)
        error = None
    except StopIteration:
        error = None
    except Exception as raised:
        error = raised
    finally:
        coroutine.close()
        room.door.set()
        await asyncio.wait(tasks)
    return verdict(library.is_rejection(error), "it waits")


@BULKHEAD.case("Who waits comes in in order", 77)
async def queues_are_fair(library: type[Bulkhead]) -> Finding:
    """Let ten wait, and one that comes when a slot has just become free."""
    room = Room()
    call = library.queued(room.step(), slots=1)
    tasks = await begin(call, *range(10))
    room.door.set()
    tasks += [asyncio.create_task(outcome_of(call("late")))]
    await asyncio.wait(tasks)
    is_kept = room.entered == [*range(10), "late"]
    return verdict(is_kept, " ".join(map(str, room.entered)))


@BULKHEAD.case("Waiting has a limit of its own", 77)
async def waits_are_limited(library: type[Bulkhead]) -> Finding:
    """Wait for 30 ms behind one that stays."""
    room = Room()
    call = library.waiting(room.step(), 0.03)
    first, second = await begin(call, 1, 2)
    await asyncio.wait([second], timeout=0.5)
    is_kept = second.done() and library.is_rejection(second.result())
    room.door.set()
    await asyncio.wait([first, second])
    return verdict(is_kept, "it waits on")
