"""What one execution of a primitive amounts to: the outcomes that it has shown.

All is derived from what an observer at the door is told: how the call ended, how the
calls below it ended, and what the primitive said in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tta.coverage.kinds import ByKind
from pytest_tta.coverage.universe import attempt_name, undone_by
from tta_primitives.errors import FallbackExhaustedError
from tta_primitives.recovery.hints import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_tta.coverage.nodes import Node
    from tta_primitives.door import Call

__all__ = ["Below", "Seen", "late_event", "outcomes_seen"]

_FAILED = frozenset({"failed", "timed_out"})

_READERS: ByKind[Callable[[Seen, Call], Iterator[str]]] = ByKind()


class Below(NamedTuple):
    """How a call directly below has ended.

    Attributes:
        node: Where it stands.
        status: As `Call.status`.
        error: The class of its error, if it raised one.
    """

    node: Node
    status: str
    error: type[BaseException] | None

    @property
    def has_failed(self) -> bool:
        """Whether an error came out of it."""
        return self.status in _FAILED


class Seen:
    """What was told of one call until it ended.

    Attributes:
        node: Where it stands.
        above: What is noted of the call above; None at the root.
        below: The calls directly below it that have ended, in that order.
        events: What it has told, in order.
        before: The state of a breaker when the call began; the time at which what a
            cache would answer was loaded, None if that is not known.
        is_over: Whether it has ended.
    """

    __slots__ = ("above", "before", "below", "events", "is_over", "node")

    def __init__(self, node: Node, above: Seen | None = None) -> None:
        self.node: Node = node
        self.above: Seen | None = above
        self.below: list[Below] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.before: Any = None
        self.is_over: bool = False

    def told(self, name: str) -> dict[str, Any] | None:
        """Return the detail of the last event of this name, None if there is none."""
        found: dict[str, Any] | None = None
        for other, detail in self.events:
            if other == name:
                found = detail
        return found

    def count(self, name: str) -> int:
        """Return how many events of this name there were."""
        return sum(other == name for other, _ in self.events)

    def failed_labels(self) -> list[str]:
        """Return the labels of the calls below that failed, each of them once."""
        return list(dict.fromkeys(b.node.label for b in self.below if b.has_failed))


def outcomes_seen(seen: Seen, call: Call) -> Iterator[str]:
    """Yield the outcomes that a call has shown, when it has just ended.

    Args:
        seen: What was told of it.
        call: The call, which still has its error.
    """
    read = _READERS.get(seen.node.kind, _other)
    return read(seen, call)


def late_event(seen: Seen, name: str) -> str | None:
    """Return the outcome that an event means which comes when its call has ended."""
    is_refresh = seen.node.kind == "cache" and name == "cache.refresh_failed"
    return "refresh fails" if is_refresh else None


def _other(_seen: Seen, call: Call) -> Iterator[str]:
    yield "failed" if call.status in _FAILED else call.status


def _stop(_seen: Seen, call: Call) -> Iterator[str]:
    if call.status == "cancelled":
        yield "cancelled"


@_READERS.of("sequential")
def _sequential(seen: Seen, call: Call) -> Iterator[str]:
    if call.status == "ok":
        yield "complete"
    elif call.status in _FAILED and seen.below:
        yield f"stops@{seen.below[-1].node.label}"
    yield from _stop(seen, call)


@_READERS.of("parallel")
def _parallel(seen: Seen, call: Call) -> Iterator[str]:
    failed = seen.failed_labels()
    if len(failed) > 1:
        yield "several fail"
    yield from (f"fails@{label}" for label in failed)
    if call.status == "ok" and not failed:
        yield "all ok"
    yield from _stop(seen, call)


@_READERS.of("conditional")
def _conditional(seen: Seen, call: Call) -> Iterator[str]:
    taken = seen.told("branch.taken")
    if taken is not None:
        yield str(taken["branch"])
    if seen.failed_labels():
        yield "branch fails"
    yield from _stop(seen, call)


@_READERS.of("router")
def _router(seen: Seen, call: Call) -> Iterator[str]:
    taken = seen.told("route.taken")
    if taken is not None:
        is_default = seen.node.config["own_default"] and taken["route"] == "default"
        yield "default" if is_default else f"route {taken['route']}"
    elif call.status in _FAILED:
        yield "no route"
    if seen.failed_labels():
        yield "branch fails"
    yield from _stop(seen, call)


@_READERS.of("map")
def _map(seen: Seen, call: Call) -> Iterator[str]:
    failed = seen.failed_labels()
    if failed:
        yield "item fails"
    elif call.status == "ok":
        yield "all ok" if seen.below else "empty"
    yield from _stop(seen, call)


_GAVE_UP = {"deadline": "deadline ends it", "not_retryable": "not retried"}


@_READERS.of("retry")
def _retry(seen: Seen, call: Call) -> Iterator[str]:
    gave_up = seen.told("retry.gave_up")
    if seen.told("retry.exhausted") is not None:
        yield "exhausted"
    elif seen.told("retry.budget_exhausted") is not None:
        yield "budget ends it"
    elif gave_up is not None:
        yield _GAVE_UP.get(gave_up["reason"], "")
    elif call.status == "ok":
        number = max(1, seen.count("retry.attempt"))
        yield attempt_name(number, seen.node.config["max_retries"])
    elif call.status == "cancelled":
        waits = bool(seen.events) and seen.events[-1][0] == "retry.scheduled"
        yield "cancelled in backoff" if waits else "cancelled in attempt"
    for name, detail in seen.events:
        if name == "retry.scheduled":
            error = detail["error"]
            if error is None:
                yield "result refused"
            elif retry_after(error):
                yield "hint honoured"


@_READERS.of("fallback")
def _fallback(seen: Seen, call: Call) -> Iterator[str]:
    if call.status == "ok":
        used = seen.told("fallback.used")
        number = 0 if used is None else used["index"]
        label = seen.node.children[number].label
        yield f"ok@{label}" if number else "primary ok"
    elif call.status in _FAILED:
        has_tried = len(seen.failed_labels()) == len(seen.node.children)
        is_own = isinstance(call.error, FallbackExhaustedError) and has_tried
        yield "all failed" if is_own else "not eligible"
    yield from _stop(seen, call)


@_READERS.of("timeout")
def _timeout(seen: Seen, call: Call) -> Iterator[str]:
    has_expired = seen.told("timeout.expired") is not None
    if seen.told("fallback.used") is not None:
        if call.status != "cancelled":
            yield "fallback answers" if call.status == "ok" else "fallback fails"
    elif has_expired:
        yield "fired"
    elif call.status == "ok":
        yield "in time"
    elif call.status in _FAILED and seen.below:
        error = seen.below[-1].error
        is_timeout = error is not None and issubclass(error, TimeoutError)
        yield "inner TimeoutError" if is_timeout else "inner error"
    yield from _stop(seen, call)


@_READERS.of("breaker")
def _breaker(seen: Seen, call: Call) -> Iterator[str]:
    rejected = seen.told("breaker.rejected")
    is_probe = seen.before == "half_open" or seen.told("breaker.half_opened")
    if rejected is not None:
        yield f"{str(rejected['state']).replace('_', '-')} rejects"
    elif is_probe:
        yield _probe(seen, call)
    elif call.status == "ok":
        yield "ok"
    elif seen.told("breaker.opened") is not None:
        yield "opens"
    elif isinstance(call.error, Exception) and call.status in _FAILED:
        policy = getattr(call.primitive, "_policy", None)
        counts = policy is None or policy.is_failure(call.error)
        yield "error counted" if counts else "error ignored"
    yield from _stop(seen, call)


def _probe(seen: Seen, call: Call) -> str:
    if call.status == "cancelled":
        return "probe cancelled"
    if seen.told("breaker.closed") is not None:
        return "probe closes"
    if seen.told("breaker.opened") is not None:
        return "probe reopens"
    return "probe ok" if call.status == "ok" else ""


_CACHE_EVENTS = {
    "cache.refresh": "refresh",
    "cache.refresh_failed": "refresh fails",
    "cache.coalesced": "coalesced",
    "cache.error": "storage fails",
}


@_READERS.of("cache")
def _cache(seen: Seen, call: Call) -> Iterator[str]:
    names = {name for name, _ in seen.events}
    yield from (_CACHE_EVENTS[name] for name in _CACHE_EVENTS if name in names)
    stale, hit = seen.told("cache.stale"), seen.told("cache.hit")
    if stale is not None:
        yield "stale" if stale["error"] is None else "stale on error"
    if hit is not None:
        yield "failure remembered" if "error" in hit else "hit"
    if seen.failed_labels():
        yield "load fails"
    elif "cache.miss" in names and call.status == "ok" and stale is None:
        yield "miss" if seen.before is None else "expired"
    yield from _stop(seen, call)


@_READERS.of("saga")
def _saga(seen: Seen, call: Call) -> Iterator[str]:
    if call.status == "ok":
        yield "complete"
    undone = [detail for name, detail in seen.events if name == "saga.compensated"]
    failed = [d for name, d in seen.events if name == "saga.compensation_failed"]
    if seen.node.config["listed"]:
        yield from _listed_saga(seen, failed)
    else:
        if call.status in _FAILED:
            yield "fails"
        if failed:
            yield "compensation fails"
        elif undone:
            yield "compensated"
    yield from _stop(seen, call)


def _listed_saga(seen: Seen, failed: list[dict[str, Any]]) -> Iterator[str]:
    undoing = set(undone_by(seen.node).values())
    for label in seen.failed_labels():
        if label not in undoing:
            yield f"fails@{label}"
    for detail in failed:
        yield f"compensation fails@{str(detail['step']).rpartition('/')[2]}"


@_READERS.of("compensation")
def _compensation(seen: Seen, call: Call) -> Iterator[str]:
    if call.status == "ok":
        yield "done"
    elif call.status in _FAILED:
        yield "fails"
    yield from _stop(seen, call)


@_READERS.of("bulkhead")
def _bulkhead(seen: Seen, call: Call) -> Iterator[str]:
    rejected, has_queued = seen.told("bulkhead.rejected"), seen.told("bulkhead.queued")
    if rejected is not None:
        yield f"rejected {rejected['reason']}"
    elif has_queued is None:
        yield "admitted"
    elif seen.told("bulkhead.admitted") is not None:
        yield "queued"
    elif call.status == "cancelled":
        yield "cancelled in queue"
    if seen.failed_labels():
        yield "released after error"
    yield from _stop(seen, call)


@_READERS.of("rate limit")
def _rate_limit(seen: Seen, call: Call) -> Iterator[str]:
    has_waited = seen.told("rate_limit.delayed") is not None
    if seen.told("rate_limit.rejected") is not None:
        yield "rejected"
    elif has_waited and call.status == "cancelled" and not seen.below:
        yield "cancelled in wait"
    else:
        yield "delayed" if has_waited else "admitted"
    if seen.told("rate_limit.penalized") is not None:
        yield "penalized"
    yield from _stop(seen, call)


@_READERS.of("hedge")
def _hedge(seen: Seen, call: Call) -> Iterator[str]:
    has_started = seen.told("hedge.started") is not None
    if not has_started and seen.told("hedge.skipped") is not None:
        yield "not hedged"
    elif call.status == "ok" and seen.told("hedge.won") is not None:
        yield "hedge wins"
    elif call.status == "ok":
        yield "primary wins" if has_started else "primary alone"
    elif call.status in _FAILED and has_started:
        yield "all fail"
    yield from _stop(seen, call)
