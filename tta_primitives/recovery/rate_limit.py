"""So many units in each period, with waiting in order: `RateLimitPrimitive`."""

from __future__ import annotations

import asyncio
import math
from asyncio import get_running_loop
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, overload

from tta_primitives.arguments import check_choice, check_number, seconds
from tta_primitives.cancellation import is_cancellation
from tta_primitives.door import closing, emit, is_listening
from tta_primitives.errors import ExecutionRejectedError, RateLimitExceededError
from tta_primitives.namespace import namespace_of
from tta_primitives.primitive import In, Open, Out, Wrapper, as_operand
from tta_primitives.recovery.classify import ErrorFilter, any_matches, check_filter
from tta_primitives.recovery.hints import retry_after, status
from tta_primitives.recovery.options import SharedOptions, changed
from tta_primitives.recovery.rate_algorithms import SLACK, Algorithm, Limit
from tta_primitives.recovery.rate_queue import Lane, LanesByLoop
from tta_primitives.recovery.rate_shared import SharedLimit
from tta_primitives.redis_link import link_to
from tta_primitives.signature import of_both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable
    from datetime import timedelta
    from typing import Required, Unpack

    from redis.asyncio import Redis

    from tta_primitives.context import WorkflowContext
    from tta_primitives.operands import AsyncOperand, SyncOperand
    from tta_primitives.primitive import WorkflowPrimitive
    from tta_primitives.recovery.rate_queue import Waiter
    from tta_primitives.recovery.rate_shared import Reservation

__all__ = ["RateLimitOptions", "RateLimitPrimitive", "RateLimitStats"]

Cost: TypeAlias = (
    "float | Callable[[Any], float] | Callable[[Any, WorkflowContext], float]"
)
Key: TypeAlias = (
    "Callable[[Any], Hashable] | Callable[[Any, WorkflowContext], Hashable]"
)

_ALGORITHMS: Final = ("token_bucket", "leaky_bucket", "sliding_window")
_TOO_MANY_REQUESTS: Final = 429
# Whatever a server says, one call may ask again after a day.
_LONGEST_PAUSE: Final = 24 * 3600.0


class RateLimitOptions(SharedOptions, total=False):
    """The keyword arguments of `RateLimitPrimitive`, which documents them."""

    rate: Required[float]
    period: float | timedelta
    algorithm: Algorithm
    burst: float | None
    cost: Cost
    max_wait: float | timedelta | None
    key: Key | None
    penalize_on: ErrorFilter | None


@dataclass(frozen=True, slots=True)
class RateLimitStats:
    """What a rate limit has done so far in this process, and how it stands.

    Attributes:
        admitted: Calls that were let start.
        delayed: Calls that had to wait, whatever became of them.
        rejected: Calls that were turned away.
        abandoned: Calls that were cancelled while they waited.
        waiting: Calls that wait now.
        waited_seconds: How long the admitted ones have waited, all together.
        penalties: Errors that have closed the limit for a while.
        keys: Keys that are not as good as unused; 0 without `key=`.
        available: Units that could start now without waiting, as far as this process
            knows; None with `key=` or `storage=`. For a leaky bucket 1 or 0.
    """

    admitted: int
    delayed: int
    rejected: int
    abandoned: int
    waiting: int
    waited_seconds: float
    penalties: int
    keys: int
    available: float | None


class RateLimitPrimitive(Wrapper[In, Out]):
    """Lets calls of a primitive start at a limited rate; the others wait their turn.

    A call takes one unit, or as many as `cost` says. Whoever has to wait queues: first
    come, first served, also when the first needs many units and those behind it few.
    How long the wait will be is known when a call comes. If that is longer than
    `max_wait`, or than the context's deadline leaves time for, the call is rejected at
    once with a `RateLimitExceededError`, whose `retry_after` is that wait. A call that
    is cancelled while it waits takes nothing, and those behind it move up.

    - `"token_bucket"`: so many units as `burst` may start at once, after a pause; then
      they come at the rate.
    - `"leaky_bucket"`: no bursts. Each start is as long after the one before as that
      one's units take at the rate.
    - `"sliding_window"`: in no period, wherever it begins, start more than `rate`
      units. Every start of the last period is remembered.

    A server that answers "too many requests" knows better: an error that `penalize_on`
    matches closes the limit, for the key of its call alone, until its Retry-After has
    passed (a day at most), also for those who wait already.

    A stream counts when it starts. Limits belong to an event loop: where several loops
    run in threads of one process, each has its own. With `storage=` all processes share
    one, kept in Redis by the server's clock; a call reserves its start there, and gives
    it back if it is cancelled. While Redis is away each process limits itself.

    Observers hear `rate_limit.delayed` (seconds), `rate_limit.rejected` (retry_after),
    `rate_limit.penalized` (seconds), and with a storage `rate_limit.storage_failed`
    (error) and `rate_limit.storage_malformed`.

    Args:
        primitive: A primitive or a function; without it the limit is open.
        rate: So many units in each period, above 0; it need not be a whole number.
        period: In seconds.
        algorithm: How starts are spread, as above.
        burst: Of a token bucket, how many units it holds: None for `rate`, but at least
            1. Of a leaky bucket, how many units may be in it at a time, waiting ones
            included: None for any number. A sliding window has none.
        cost: The units that a call takes, or f(input) or f(input, context) that returns
            them: tokens of a prompt, for instance.
        max_wait: How long a call may wait, in seconds; 0 to reject at once, None for as
            long as it takes.
        key: f(input) or f(input, context) that returns whose call it is, such as a
            tenant: each key has a limit of its own. None for one limit for all.
        penalize_on: Which errors close the limit: a type, a tuple of types, or a
            predicate; without a Retry-After for as long as one unit takes. None for
            those of HTTP status 429 with a Retry-After, `()` for none.
        storage: A `redis.asyncio.Redis` in which all processes share the limit.
        namespace: What tells this limit from others in the same storage. None derives
            it from the wrapped primitives: their classes, names, options and functions.

    Raises:
        RateLimitExceededError: On execution; it would start too late. Nothing was
            executed.
        TypeError: An argument is of the wrong kind, or what `cost` or `key` returned.
        ValueError: An argument is out of range, or a cost, which may not be above the
            units that there ever are at a time; or with a storage, a lambda or a local
            function has no `namespace`.
    """

    @overload
    def __init__(
        self: RateLimitPrimitive[Open, Open],
        primitive: None = None,
        **options: Unpack[RateLimitOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: AsyncOperand[In, Out], **options: Unpack[RateLimitOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, primitive: SyncOperand[In, Out], **options: Unpack[RateLimitOptions]
    ) -> None: ...
    def __init__(
        self,
        primitive: WorkflowPrimitive[Any, Any] | Callable[..., Any] | None = None,
        *,
        rate: float,
        period: float | timedelta = 1.0,
        algorithm: Algorithm = "token_bucket",
        burst: float | None = None,
        cost: Cost = 1,
        max_wait: float | timedelta | None = None,
        key: Key | None = None,
        penalize_on: ErrorFilter | None = None,
        storage: Redis | None = None,
        namespace: str | None = None,
    ) -> None:
        self.rate: float = check_number("rate", rate)
        self.period: float = seconds("period", period)
        self.algorithm = cast(
            "Algorithm", check_choice("algorithm", algorithm, _ALGORITHMS)
        )
        self.burst: float | None = _check_burst(burst, self.algorithm)
        self._limit = Limit(self.algorithm, self.rate, self.period, self._capacity())
        self.cost: Cost = self._check_cost(cost)
        self._units = 0.0 if callable(cost) else float(cost)
        self.max_wait: float | None = _check_wait(max_wait)
        self.key = key
        self.penalize_on: ErrorFilter | None = (
            None if penalize_on is None else check_filter("penalize_on", penalize_on)
        )
        if storage is not None:
            link_to("storage", storage)
        self.storage = storage
        self.namespace: str | None = _check_namespace(namespace)
        is_one = key is None and storage is None
        self._is_plain = is_one and not callable(cost)
        self._ask_cost = of_both("cost", cost) if callable(cost) else None
        self._ask_key = None if key is None else of_both("key", key)
        if primitive is not None:
            self._wrap(as_operand(primitive))

    # The lane of all calls, if they need nothing but that; made by the first one.
    _lane: Lane | None = None
    # The limit of all processes, if there is one.
    _shared: SharedLimit | None = None

    def _capacity(self) -> float:
        """Return how many units there are at most at a time."""
        if self.algorithm == "sliding_window":
            return self.rate
        if self.burst is not None:
            return self.burst
        return max(1.0, self.rate) if self.algorithm == "token_bucket" else math.inf

    def _check_cost(self, cost: Cost) -> Cost:
        return cost if callable(cost) else self._checked_units("cost", cost)

    def _checked_units(self, name: str, value: object) -> float:
        capacity = self._limit.capacity
        if type(value) is int and 0 < value <= capacity:
            return value
        units = check_number(name, value)
        if units > capacity:
            what = "rate" if self.algorithm == "sliding_window" else "burst"
            msg = (
                f"{name}={value!r} must be at most {what}={capacity:g}: there are "
                "never more units at a time"
            )
            raise ValueError(msg)
        return units

    def _wrap(self, primitive: WorkflowPrimitive[Any, Any]) -> None:
        super()._wrap(primitive)
        self._needs_position = primitive._needs_position
        self._reads_deadline = True
        self._by_loop = LanesByLoop(self._limit)
        if self.storage is not None:
            namespace = self.namespace or namespace_of(primitive)
            self._shared = SharedLimit(self._limit, self.storage, namespace)

    def options(self) -> dict[str, Any]:
        """Return the rate, and the options that differ from the usual ones."""
        return {"rate": self.rate, **changed(self, RateLimitPrimitive.__init__)}

    @property
    def stats(self) -> RateLimitStats:
        """Return what was counted so far, on all event loops together.

        Raises:
            OpenWrapperError: It wraps nothing yet.
        """
        self._wrapped()
        counts, by_loop, shared = self._by_loop.counts, self._by_loop, self._shared
        has_default = self.key is None and shared is None
        return RateLimitStats(
            admitted=counts.admitted,
            delayed=counts.delayed,
            rejected=counts.rejected,
            abandoned=counts.abandoned,
            waiting=by_loop.waiting() + (0 if shared is None else shared.waiting),
            waited_seconds=round(counts.waited_seconds, 9),
            penalties=counts.penalties,
            keys=0 if self.key is None else by_loop.keys(),
            available=by_loop.available() if has_default else None,
        )

    async def execute(self, input_data: In, context: WorkflowContext, /) -> Out:
        """Execute the primitive as soon as the limit allows it."""
        lane, key = self._lane, None
        if lane is None or not lane.enter(get_running_loop(), self._units):
            key = await self._admission(input_data, context)
        view = context
        try:
            primitive: Any = self.primitive
            label = self._child_label
            if label is not None:
                view = context.below(self, primitive, label)
            return await primitive.execute(input_data, view)  # type: ignore[no-any-return]
        except Exception as error:
            await self._learn(error, key, context)
            raise

    async def stream(
        self, input_data: In, context: WorkflowContext, /
    ) -> AsyncIterator[Any]:
        """Yield the primitive's chunks as soon as the limit allows to start."""
        key = await self._admission(input_data, context)
        primitive, view = self._wrapped(), context
        if self._child_label is not None:
            view = context.below(self, primitive, self._child_label)
        try:
            async with closing(primitive.stream(input_data, view)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            await self._learn(error, key, context)
            raise

    async def _admission(self, input_data: In, context: WorkflowContext) -> Hashable:
        """Let a call start when it may; return its key."""
        self._wrapped()
        units, key = self._units, None
        if self._ask_cost is not None:
            asked = self._ask_cost(input_data, context)
            units = self._checked_units("cost(input, context)", asked)
        if self._ask_key is not None:
            key = _checked_key(self._ask_key(input_data, context))
        shared = self._shared
        if shared is not None and (
            await self._enter_shared(shared, key, units, context)
        ):
            return key
        lanes = self._by_loop.here()
        now = lanes.now()
        lane = lanes.lane(key, now)
        if self._is_plain:
            self._lane = lane
        if not lane.enter_at(now, units):
            await self._queue(lane, units, now, context)
        return key

    async def _queue(
        self, lane: Lane, units: float, now: float, context: WorkflowContext
    ) -> None:
        """Wait for the start of a call that cannot start at once."""
        due, latest = lane.due(now, units), self._latest(now, context)
        if due > latest or not lane.has_room(now, units):
            raise self._exceeded(due - now, context)
        self._by_loop.counts.delayed += 1
        if is_listening():
            emit(context, "rate_limit.delayed", seconds=round(due - now, 9))
        waiter = lane.join(units, now, latest)
        if not await self._wait(waiter):
            raise self._exceeded(waiter.due - lane.loop.time(), context)

    async def _wait(self, waiter: Waiter) -> bool:
        """Wait in the queue; tell whether the call may start, or is too late now."""
        is_told = False
        try:
            may_start = await waiter
            is_told = True
        finally:
            if not is_told:
                self._by_loop.counts.abandoned += 1
                waiter.leave()
        return may_start

    async def _enter_shared(
        self,
        shared: SharedLimit,
        key: Hashable,
        units: float,
        context: WorkflowContext,
    ) -> bool:
        """Let a call start when all processes may; return False if Redis is away."""
        now = get_running_loop().time()
        most = max(0.0, self._latest(now, context) - now)
        found = await shared.reserve(key, units, most, context)
        if found is None:
            return False
        if not found.is_reserved:
            raise self._exceeded(found.wait, context)
        counts = self._by_loop.counts
        if found.wait:
            counts.delayed += 1
            emit(context, "rate_limit.delayed", seconds=found.wait)
            counts.waited_seconds += await self._wait_shared(shared, found, context)
        counts.admitted += 1
        # Should Redis go away, the local limit goes on from here.
        lanes = self._by_loop.here()
        now = lanes.now()
        lanes.lane(key, now).bucket.take(now, units)
        return True

    async def _wait_shared(
        self, shared: SharedLimit, found: Reservation, context: WorkflowContext
    ) -> float:
        """Wait for a reserved start; return for how many seconds."""
        clock = get_running_loop().time
        began_at = due = clock()
        latest = self._latest(began_at, context)
        promised = start = began_at + found.wait
        is_used = is_late = False
        try:
            shared.waiting += 1
            while due < start - SLACK:
                due, is_late = start, start > latest
                if is_late:
                    raise self._exceeded(due - clock(), context)
                await asyncio.sleep(due - clock())
                overdue = clock() - promised
                start = promised + await shared.put_off(found, overdue, context)
            is_used = True
        finally:
            shared.waiting -= 1
            if not is_used:
                self._by_loop.counts.abandoned += not is_late
                shared.give_back(found)
        return clock() - began_at

    def _latest(self, now: float, context: WorkflowContext) -> float:
        """Return the latest moment at which a call may start that comes now."""
        latest = math.inf if self.max_wait is None else now + self.max_wait + SLACK
        deadline = context.deadline
        # A call that starts when the time is up has none.
        return latest if deadline is None else min(latest, deadline - SLACK)

    def _exceeded(
        self, wait: float, context: WorkflowContext
    ) -> RateLimitExceededError:
        """Return the error of a call that would start too late, and tell of it."""
        self._by_loop.counts.rejected += 1
        wait = max(0.0, round(wait, 9))
        if is_listening():
            emit(context, "rate_limit.rejected", retry_after=wait)
        limit = "" if self.max_wait is None else f", max_wait={self.max_wait:g} s"
        if context.deadline is not None:
            limit += ", the deadline"
        what = f"{context.position_of(self).path}/{self._wrapped().name}"
        msg = (
            f"{what} could start in {wait:g} s at the earliest: "
            f"{self.rate:g} per {self.period:g} s{limit}"
        )
        return RateLimitExceededError(msg, retry_after=wait)

    async def _learn(
        self, error: Exception, key: Hashable, context: WorkflowContext
    ) -> None:
        """Close the limit for a while if an error says so."""
        pause = self._asked_to_pause(error)
        if pause is None:
            return
        lanes = self._by_loop.here()
        lanes.counts.penalties += 1
        emit(context, "rate_limit.penalized", seconds=pause)
        now = lanes.now()
        lanes.lane(key, now).penalize(now, pause)
        if self._shared is not None:
            await self._shared.penalize(key, pause, context)

    def _asked_to_pause(self, error: Exception) -> float | None:
        """Return for how many seconds an error closes the limit, None if not at all."""
        errors = self.penalize_on
        if errors == () or is_cancellation(error):
            return None
        if errors is None:
            return _hint(error) if _is_too_many(error) else None
        if isinstance(errors, tuple) and isinstance(error, ExecutionRejectedError):
            # A filter as wide as `Exception` was not written with it in mind.
            errors = tuple(t for t in errors if issubclass(t, ExecutionRejectedError))
        if not any_matches(errors, error):
            return None
        hint = _hint(error)
        return self._limit.seconds_for(1) if hint is None else hint


def _hint(error: Exception) -> float | None:
    hint = retry_after(error)
    return None if hint is None else min(hint, _LONGEST_PAUSE)


def _is_too_many(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return any(map(_is_too_many, error.exceptions))
    return status(error) == _TOO_MANY_REQUESTS


def _check_burst(burst: object, algorithm: Algorithm) -> float | None:
    if burst is None:
        return None
    if algorithm == "sliding_window":
        msg = (
            f"burst={burst!r} has no meaning for algorithm='sliding_window': in no "
            "period start more than rate units"
        )
        raise ValueError(msg)
    return check_number("burst", burst)


def _check_wait(max_wait: float | timedelta | None) -> float | None:
    return None if max_wait is None else seconds("max_wait", max_wait, zero=True)


def _check_namespace(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    msg = f"namespace={value!r} must be a non-empty text, or None"
    raise (ValueError if value == "" else TypeError)(msg)


def _checked_key(value: Any) -> Hashable:  # noqa: ANN401 - what a function returned
    try:
        hash(value)
    except TypeError:
        msg = f"key(input, context)={value!r} must be hashable, such as a text or tuple"
        raise TypeError(msg) from None
    return value  # type: ignore[no-any-return]
