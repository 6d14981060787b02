"""So many calls at a time, and a bounded queue for the others: `BulkheadPrimitive`."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

from tta_primitives.arguments import check_count, seconds
from tta_primitives.context import Enforced
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.errors import BulkheadFullError
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand
from tta_primitives.recovery.options import changed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta
    from typing import Required, Unpack

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive

__all__ = ["BulkheadOptions", "BulkheadPrimitive", "BulkheadStats"]

_Reason: TypeAlias = Literal["deadline", "full", "max_wait"]


class BulkheadOptions(TypedDict, total=False):
    """The keyword arguments of `BulkheadPrimitive`, which documents them."""

    max_concurrency: Required[int]
    max_queue: int | None
    max_wait: float | timedelta | None


@dataclass(frozen=True, slots=True)
class BulkheadStats:
    """What a bulkhead has done so far, and how it stands.

    Attributes:
        active: Calls that hold a slot now.
        queued: Calls that wait for one now.
        calls: All that came, whatever became of them.
        waited: Those that had to queue.
        rejected: Those that were turned away, at once or after waiting.
        abandoned: Those that were cancelled while they waited.
        peak: The most slots that were taken at a time.
    """

    active: int
    queued: int
    calls: int
    waited: int
    rejected: int
    abandoned: int
    peak: int


class BulkheadPrimitive(Wrapper[In, Out]):
    """Executes a primitive for at most so many calls at a time.

    Further calls wait in a queue, first come first served: a slot that becomes free is
    handed to the one who waits longest, and no newcomer overtakes. When the queue is
    full as well a call is rejected at once. A call that is cancelled while it waits
    gives up its place in that instant; a slot that it was just being handed goes to
    the next.

    A stream holds its slot until it is closed.

    Slots belong to an event loop. Where several loops run in threads of one process,
    each has so many of its own.

    Observers hear `bulkhead.queued` (queued: how many wait, this one included),
    `bulkhead.admitted` (waited: the seconds in the queue) and `bulkhead.rejected`
    (reason: `"full"`, `"max_wait"` or `"deadline"`).

    Args:
        primitive: A primitive or a function; without it the bulkhead is open.
        max_concurrency: So many calls may be executing at a time.
        max_queue: So many more may wait; None for any number.
        max_wait: How long a call may wait, in seconds; None for as long as it takes.
            The context's deadline ends the waiting in any case.

    Raises:
        BulkheadFullError: On execution; there was no slot, and no place or no more time
            to wait for one. Nothing was executed.
        TypeError: `max_wait` is neither a number nor a timedelta.
        ValueError: An argument is out of range, or there is a `max_wait` without a
            queue to wait in.
    """

    @overload
    def __init__(
        self: BulkheadPrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[BulkheadOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: AsyncOperand[In, Out], **options: Unpack[BulkheadOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: SyncOperand[In, Out], **options: Unpack[BulkheadOptions]
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        max_concurrency: int,
        max_queue: int | None = 0,
        max_wait: float | timedelta | None = None,
    ) -> None:
        self.max_concurrency: int = check_count(
            "max_concurrency", max_concurrency, minimum=1
        )
        if max_queue is not None:
            check_count("max_queue", max_queue)
        self.max_queue = max_queue
        self.max_wait: float | None = _check_wait(max_wait, max_queue)
        # Those of the loop that was used last.
        self._slots = _NO_SLOTS
        if primitive is not None:
            self._wrap(as_operand(primitive))

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._needs_position = primitive._needs_position
        self._reads_deadline = self.max_queue != 0 or primitive._reads_deadline
        self._by_loop = _SlotsByLoop(self.max_concurrency)
        self._slots = _NO_SLOTS

    def options(self) -> dict[str, Any]:
        """Return the number of slots, and the options that differ from the usual."""
        return {
            "max_concurrency": self.max_concurrency,
            **changed(self, BulkheadPrimitive.__init__),
        }

    @property
    def stats(self) -> BulkheadStats:
        """Return what was counted so far, on all event loops together.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        return self._by_loop.stats()

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive as soon as there is a slot for it."""
        slots = self._slots
        # No newcomer overtakes: while somebody waits, no slot is free.
        if slots.active < slots.limit and slots.loop is get_running_loop():
            slots.calls += 1
            active = slots.active = slots.active + 1
            if active > slots.peak:  # noqa: PLR1730 - `max` takes three times as long
                slots.peak = active
        else:
            slots = await self._admission(context)
        try:
            primitive: Any = self.primitive
            label = self._child_label
            if label is not None:
                context = context.below(self, primitive, label)
            return await primitive.execute(input_data, context)  # type: ignore[no-any-return]
        finally:
            if slots.queue:
                slots.hand_over()
            else:
                slots.active -= 1

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the primitive's chunks, holding a slot until the stream is closed."""
        slots = await self._admission(context)
        try:
            primitive = self._wrapped()
            label = self._child_label
            if label is not None:
                context = context.below(self, primitive, label)
            async with closing(primitive.stream(input_data, context)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            slots.hand_over()

    async def _admission(self, context: WorkflowContext) -> _Slots:
        """Return the slots of the running loop, one of them taken for this call."""
        self._wrapped()
        slots = self._slots = self._by_loop.here()
        slots.calls += 1
        if slots.active < slots.limit:
            slots.active += 1
            slots.peak = max(slots.peak, slots.active)
            return slots
        if self.max_queue is not None and len(slots.queue) >= self.max_queue:
            raise self._full(slots, context, "full")
        ends_at, reason = self._patience(context)
        if ends_at is not None and ends_at <= slots.loop.time():
            raise self._full(slots, context, reason)
        if not await self._wait(slots, ends_at, context):
            raise self._full(slots, context, reason)
        return slots

    def _patience(self, context: WorkflowContext) -> tuple[float | None, _Reason]:
        """Return until when this call may wait, and what sets that limit."""
        now = get_running_loop().time()
        own = None if self.max_wait is None else now + self.max_wait
        deadline = context.deadline
        # What is enforced further outside is left to whoever does it.
        if deadline is None or (type(deadline) is Enforced and deadline > now):
            return own, "max_wait"
        if own is None or deadline <= own:
            return deadline, "deadline"
        return own, "max_wait"

    async def _wait(
        self, slots: _Slots, ends_at: float | None, context: WorkflowContext
    ) -> bool:
        """Queue for a slot; tell whether there was one in time."""
        place = _Place(slots)
        began_at = slots.loop.time()
        timer = None if ends_at is None else slots.loop.call_at(ends_at, place.expire)
        is_served = False
        try:
            if is_listening():
                emit(context, "bulkhead.queued", queued=len(slots.queue))
            if await place:
                if is_listening():
                    waited = slots.loop.time() - began_at
                    emit(context, "bulkhead.admitted", waited=waited)
                is_served = True
        finally:
            if timer is not None:
                timer.cancel()
            if not is_served:
                place.give_up()
        return is_served

    def _full(
        self, slots: _Slots, context: WorkflowContext, reason: _Reason
    ) -> BulkheadFullError:
        """Return the error of a call that is turned away, and tell observers of it."""
        slots.rejected += 1
        if is_listening():
            emit(context, "bulkhead.rejected", reason=reason)
        what = f"{context.position_of(self).path}/{self._wrapped().name}"
        taken = f"{slots.active} of {slots.limit} slots taken"
        if reason == "full":
            queue = f"{len(slots.queue)} of {self.max_queue} places in the queue"
            return BulkheadFullError(f"{what} is full: {taken}, {queue}")
        limit = "the deadline"
        if reason == "max_wait":
            limit = f"max_wait={self.max_wait:g} s"
        return BulkheadFullError(f"{what} had no free slot within {limit}: {taken}")


class _Slots:
    """The slots of one event loop, and the queue for them.

    Attributes:
        active: How many are taken.
        queue: Who waits, in order. It is never filled while a slot is free.
    """

    __slots__ = (
        "abandoned",
        "active",
        "calls",
        "limit",
        "loop",
        "peak",
        "queue",
        "rejected",
        "waited",
    )

    def __init__(self, loop: Any, limit: int) -> None:  # noqa: ANN401 - None stands for no loop
        self.loop = loop
        self.limit = limit
        self.active = self.peak = 0
        self.calls = self.waited = self.rejected = self.abandoned = 0
        # Not a deque: a place in the middle is given up as quickly as any other.
        self.queue: OrderedDict[_Place, None] = OrderedDict()

    def hand_over(self) -> None:
        """Give a slot back: to the first who waits, if there is one."""
        # The tasks that a closed loop has left waiting never run again.
        if self.queue and not self.loop.is_closed():
            place, _ = self.queue.popitem(last=False)
            place.set_result(True)
        else:
            self.active -= 1


class _Place(asyncio.Future[bool]):
    """A place in the queue: True when it was handed a slot, False when time was up."""

    __slots__ = ("_slots",)

    def __init__(self, slots: _Slots) -> None:
        super().__init__(loop=slots.loop)
        self._slots = slots
        slots.queue[self] = None
        slots.waited += 1

    def cancel(self, msg: Any = None) -> bool:  # noqa: ANN401 - as in its base
        """Free the place now, and not only when the cancelled task runs again."""
        self._slots.queue.pop(self, None)
        return super().cancel(msg)

    def expire(self) -> None:
        """Tell the one who waits that time is up."""
        if not self.done():
            del self._slots.queue[self]
            self.set_result(False)

    def give_up(self) -> None:
        """Leave without a slot, or pass on the one that came when it was too late."""
        if not self.done() or self.cancelled():
            self._slots.queue.pop(self, None)
            self._slots.abandoned += 1
        elif self.result():
            self._slots.abandoned += 1
            self._slots.hand_over()


class _SlotsByLoop:
    """The slots of each event loop that a bulkhead is used from."""

    __slots__ = ("_by_loop", "_limit", "_past")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_loop: dict[asyncio.AbstractEventLoop, _Slots] = {}
        # What was counted on loops that are closed.
        self._past = _Slots(None, 0)

    def here(self) -> _Slots:
        """Return the slots of the running loop."""
        loop = get_running_loop()
        slots = self._by_loop.get(loop)
        if slots is None:
            self._forget_closed_loops()
            slots = self._by_loop[loop] = _Slots(loop, self._limit)
        return slots

    def _forget_closed_loops(self) -> None:
        # Another thread may be doing the same.
        for loop in tuple(self._by_loop):
            gone = self._by_loop.pop(loop, None) if loop.is_closed() else None
            if gone is not None:
                past = self._past
                past.calls += gone.calls
                past.waited += gone.waited
                past.rejected += gone.rejected
                past.abandoned += gone.abandoned
                past.peak = max(past.peak, gone.peak)

    def stats(self) -> BulkheadStats:
        """Return the sums; on a loop that is closed nobody is active or waits."""
        self._forget_closed_loops()
        every = (self._past, *tuple(self._by_loop.values()))
        return BulkheadStats(
            active=sum(slots.active for slots in every),
            queued=sum(len(slots.queue) for slots in every),
            calls=sum(slots.calls for slots in every),
            waited=sum(slots.waited for slots in every),
            rejected=sum(slots.rejected for slots in every),
            abandoned=sum(slots.abandoned for slots in every),
            peak=max(slots.peak for slots in every),
        )


# Stands for the slots of a loop that was not seen yet.
_NO_SLOTS = _Slots(None, 0)


def _check_wait(
    max_wait: float | timedelta | None, max_queue: int | None
) -> float | None:
    if max_wait is None:
        return None
    limit = seconds("max_wait", max_wait, zero=True)
    if max_queue == 0:
        msg = (
            f"max_wait={max_wait!r} needs a queue to wait in: "
            "set max_queue= as well (None for any number)"
        )
        raise ValueError(msg)
    return limit
