"""What caches, sagas, breakers and limits promise of every run: further invariants."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.properties.reading import executions, fail, log_of, undecided, wrapped
from pytest_tta.trace.spans import BEGAN, EVENT
from tta_primitives.keys import memory_key
from tta_primitives.performance.cache import CachePrimitive
from tta_primitives.primitive import WorkflowPrimitive, labels, positions
from tta_primitives.recovery.bulkhead import BulkheadPrimitive
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive
from tta_primitives.recovery.circuit_state import HalfOpen
from tta_primitives.recovery.rate_limit import RateLimitPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from pytest_tta.trace.spans import Span, Trace
    from tta_primitives.door import Call

__all__ = [
    "at_most_once",
    "compensated_in_reverse",
    "nothing_left_running",
    "permits_returned",
    "probes_bounded",
    "single_flight",
    "ttl_kept",
]

_NANOSECOND = 1e-9
_COMPENSATED = "saga.compensating"
_OPEN_OR_CLOSED = {"breaker.opened", "breaker.closed", "breaker.isolated"}


def at_most_once(
    effects: Iterable[Any], *, key: Callable[[Any], Hashable] | None = None
) -> None:
    """Check that nothing was done twice, such as the charges that a double has noted.

    Args:
        effects: What was done, one item for each time.
        key: What tells one from another, such as the idempotency key; the item itself
            unless given.

    Raises:
        AssertionError: Two have the same key.
    """
    __tracebackhide__ = True
    counts = Counter(one if key is None else key(one) for one in effects)
    twice = [f"{one!r} {count} times" for one, count in counts.items() if count > 1]
    if twice:
        msg = f"done more than once: {', '.join(twice)}"
        raise AssertionError(msg)


def nothing_left_running(trace: Trace) -> None:
    """Check that every execution has ended, however it did.

    Args:
        trace: What was recorded.

    Raises:
        AssertionError: One has not.
    """
    __tracebackhide__ = True
    for span in trace.spans:
        if span.status == "unfinished":
            fail(span, f"began at {span.started_at:g} s and never ended")


def permits_returned(workflow: WorkflowPrimitive[Any, Any]) -> None:
    """Check that nobody holds or waits for anything when nothing runs any more.

    That is a slot of a bulkhead, a place in the queue of a rate limit, or the place of
    a probe of a circuit breaker.

    Args:
        workflow: What has run.

    Raises:
        AssertionError: Something is held; or nothing can be decided, because nothing in
            the workflow hands out permits.
    """
    __tracebackhide__ = True
    limits = [(path, _held(one)) for path, one in positions(workflow)]
    if all(held is None for _, held in limits):
        undecided(workflow, "has no bulkhead, rate limit or circuit breaker")
    for path, held in limits:
        if held:
            msg = f"{path} has not got back {held}, and nothing should run any more"
            raise AssertionError(msg)


def _held(one: WorkflowPrimitive[Any, Any]) -> str | None:
    """Say what of a primitive is held; None if it hands nothing out."""
    if isinstance(one, BulkheadPrimitive):
        # Those of the loop that was used last; `stats` leaves out what has been closed.
        slots = one._slots
        counts = {"slots": slots.active, "places in its queue": len(slots.queue)}
    elif isinstance(one, RateLimitPrimitive):
        counts = {"places in its queue": one.stats.waiting}
    elif isinstance(one, CircuitBreakerPrimitive):
        episode = one._circuit.episode
        probes = episode.probes if isinstance(episode, HalfOpen) else ()
        counts = {"probes": len(probes)}
    else:
        return None
    return " and ".join(f"{count} {what}" for what, count in counts.items() if count)


class _Probing:
    """What is known of one breaker.

    Attributes:
        breaker: The breaker.
        probes: Those under way, and when each gives way; None unless it is half-open.
        pause: How long its last break was, in seconds.
    """

    def __init__(self, breaker: CircuitBreakerPrimitive[Any, Any]) -> None:
        self.breaker = breaker
        self.probes: dict[Call, float] | None = None
        self.pause = 0.0
        options = breaker.options()
        self.most: int = options.get("half_open_max_calls", 1)
        self.limit: float | None = options.get("half_open_timeout")
        self.label = labels(breaker.children())[0]

    def tell(self, name: str, detail: dict[str, Any]) -> None:
        """Take in an event."""
        if name == "breaker.half_opened":
            self.probes = {}
        elif name in _OPEN_OR_CLOSED:
            self.probes = None
            self.pause = detail.get("retry_after", self.pause)

    def begin(self, probe: Call, now: float) -> str:
        """Take in a call; say what is wrong with it."""
        if self.probes is None or probe.label != self.label:
            return ""
        late = [one for one, until in self.probes.items() if until <= now + _NANOSECOND]
        if len(self.probes) >= self.most and late:
            del self.probes[late[0]]
        self.probes[probe] = now + (self.limit or self.pause)
        if len(self.probes) <= self.most:
            return ""
        many = f"is one of {len(self.probes)} probes at a time"
        return f"{many}, and {self.breaker!r} allows {self.most}"


def probes_bounded(trace: Trace) -> None:
    """Check that no half-open breaker has more probes at a time than it allows.

    Args:
        trace: What was recorded. Breakers that were closed by hand must have been given
            the context, so that it is.

    Raises:
        AssertionError: One has; or nothing can be decided, because none was half-open.
    """
    __tracebackhide__ = True
    known: dict[int, _Probing] = {}
    has_probed = False
    for what, call, moment, rest in log_of(trace):
        one = call.primitive
        if what == EVENT and isinstance(one, CircuitBreakerPrimitive):
            name, detail = rest
            known.setdefault(id(one), _Probing(one)).tell(name, detail)
            has_probed = has_probed or name == "breaker.half_opened"
        above = None if call.parent_call is None else call.parent_call.primitive
        probing = known.get(id(above))
        if probing is None or probing.probes is None:
            continue
        if what != BEGAN:
            if what != EVENT:
                probing.probes.pop(call, None)
            continue
        wrong = probing.begin(call, moment)
        if wrong:
            msg = f"{call.path} {wrong}"
            raise AssertionError(msg)
    if not has_probed:
        msg = f"no circuit breaker was half-open: {trace!r}"
        raise AssertionError(msg)


def compensated_in_reverse(trace: Trace) -> None:
    """Check that what sagas have undone was undone in the reverse order of completion.

    Args:
        trace: What was recorded.

    Raises:
        AssertionError: Something was undone out of turn; or nothing can be decided,
            because nothing was undone.
    """
    __tracebackhide__ = True
    ended: dict[str, list[int]] = {}
    last: dict[Call, tuple[int, str]] = {}
    for number, (what, call, _, rest) in enumerate(log_of(trace)):
        if what == EVENT and rest[0] == _COMPENSATED:
            step = rest[1]["step"]
            done = ended.get(step) or [-1]
            place, before = done.pop(), last.get(call)
            if before is not None and place > before[0]:
                out_of_turn = f"undid {before[1]!r} before {step!r}"
                msg = f"{call.path} {out_of_turn}, which had ended later"
                raise AssertionError(msg)
            last[call] = place, step
        elif what not in {EVENT, BEGAN}:
            ended.setdefault(call.path, []).append(number)
    if not last:
        msg = f"nothing was undone: {trace!r}"
        raise AssertionError(msg)


class _Load(NamedTuple):
    """One execution of what a cache is around.

    Attributes:
        span: The execution.
        key: What it was for.
    """

    span: Span
    key: Hashable


def _cached(
    trace: Trace,
) -> Iterator[tuple[CachePrimitive[Any, Any], list[Span], list[_Load]]]:
    """Yield the caches that ran, with their executions and their loads.

    Raises:
        AssertionError: There is none of which the keys are known.
    """
    __tracebackhide__ = True
    calls: dict[int, list[Span]] = {}
    caches: dict[int, CachePrimitive[Any, Any]] = {}
    for span, cache in executions(trace, CachePrimitive):
        if not _asks_for_context(cache):
            caches[id(cache)] = cache
            calls.setdefault(id(cache), []).append(span)
    if not caches:
        msg = f"no cache ran whose keys are known from its inputs: {trace!r}"
        raise AssertionError(msg)
    for number, cache in caches.items():
        loads = [
            _Load(load, _key(cache, load.input))
            for span in calls[number]
            for load in wrapped(span, cache)
        ]
        yield cache, calls[number], loads


def _asks_for_context(cache: CachePrimitive[Any, Any]) -> bool:
    function = cache.options().get("key_fn")
    return function is not None and len(inspect.signature(function).parameters) > 1


def _key(cache: CachePrimitive[Any, Any], value: object) -> Hashable:
    function = cache.options().get("key_fn")
    return memory_key(value if function is None else function(value))


def single_flight(trace: Trace) -> None:
    """Check that no cache has loaded one key twice at the same time.

    Caches with `single_flight=False` are left out. A key that was invalidated during a
    load may be loaded again beside it: check runs in which none was.

    Args:
        trace: What was recorded.

    Raises:
        AssertionError: One has; or nothing can be decided, because no cache ran whose
            `key_fn`, if it has one, is a function of the input alone.
    """
    __tracebackhide__ = True
    for cache, _, loads in _cached(trace):
        if not cache.options().get("single_flight", True):
            continue
        latest: dict[Hashable, Span] = {}
        for load, key in loads:
            before = latest.get(key)
            if before is not None and _is_beside(before, load):
                fail(load, f"loaded what {before.path}@{before.execution} was loading")
            latest[key] = load


def _is_beside(before: Span, after: Span) -> bool:
    return before.ended_at is None or after.started_at < before.ended_at - _NANOSECOND


def ttl_kept(trace: Trace) -> None:
    """Check that no cache has returned what is older than its `ttl` allows.

    Its `stale_ttl` and `stale_if_error` count as well.

    Args:
        trace: What was recorded, from the first use of the cache on.

    Raises:
        AssertionError: One has; or nothing can be decided, because no cache ran whose
            `key_fn`, if it has one, is a function of the input alone.
    """
    __tracebackhide__ = True
    for cache, calls, loads in _cached(trace):
        policy = cache._policy
        for span in calls:
            if span.status != "ok":
                continue
            loaded = _loaded_for(span, _key(cache, span.input), loads)
            if loaded is None:
                continue
            ttl = policy.ttl(span.output) if callable(policy.ttl) else policy.ttl
            most = _seconds(ttl) + policy.stale_window
            # A stale value may serve when a load fails that began while it was young.
            age = span.started_at - loaded
            if age > most + _NANOSECOND:
                fail(
                    span,
                    f"returned what was {age:g} s old, and {cache!r} allows {most:g} s",
                )


def _loaded_for(span: Span, key: Hashable, loads: list[_Load]) -> float | None:
    """Return when the newest value was loaded that an execution can have returned."""
    end = span.ended_at
    moments = [
        load.ended_at
        for load, of in loads
        if of == key and load.status == "ok" and load.ended_at is not None
    ]
    known = [one for one in moments if end is None or one <= end + _NANOSECOND]
    return max(known, default=None)


def _seconds(value: Any) -> float:  # noqa: ANN401 - a number or a timedelta
    return float(getattr(value, "total_seconds", lambda: value)())
