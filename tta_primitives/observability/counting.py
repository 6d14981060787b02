"""The observer that counts: what calls and events become in the numbers of a sheet."""

from __future__ import annotations

import logging
import time
from asyncio import BaseEventLoop
from asyncio.events import _get_running_loop
from bisect import bisect_left
from collections import Counter
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

from tta_primitives.door import Observer
from tta_primitives.observability import families
from tta_primitives.recovery.circuit_breaker import CircuitBreakerPrimitive

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ReferenceType

    from tta_primitives.door import Call
    from tta_primitives.observability.families import Family
    from tta_primitives.observability.redaction import Redactor
    from tta_primitives.observability.sheets import Cell, Histogram, Sheet, Values

__all__ = ["OTHER", "CountingObserver"]

logger: logging.Logger = logging.getLogger("tta_primitives.observability")

# What a label says where there would be too many values.
OTHER: Final = "(other)"
_LONGEST_LABEL = 200
_MOST_SETS = 500
_STATES = ("closed", "half_open", "open", "isolated")


class _NoLoop:
    """Stands for a loop before one was found: no thread runs it."""

    _thread_id = None


class _Node:
    """One path of a workflow, with its numbers.

    Attributes:
        path: As it is exported.
        children: The nodes of the primitives that were called from there, by identity.
        values: Where the number of running calls lies.
        running: Which one it is.
        ended: The numbers of each way to end.
        events: The numbers of what happens there.
    """

    __slots__ = ("children", "ended", "events", "path", "running", "values")

    def __init__(self, path: str, running: Cell) -> None:
        self.path: str = path
        self.children: Nodes = {}
        values, number = running
        self.values: Values = values
        self.running: int = number
        self.ended: dict[str, Histogram] = {}
        self.events: dict[tuple[str, ...], Any] = {}


Nodes: TypeAlias = "dict[int, tuple[ReferenceType[Any], _Node]]"
_no_nodes: Nodes = {}
_no_loop: Any = _NoLoop()


def _never() -> float:
    """Stand for the time where no loop is running."""
    return 0.0


class CountingObserver(Observer):
    """Counts calls and events, in constant time and without a lock.

    Args:
        sheet: Makes the sheet when the first number is needed; a forked process that
            executes nothing needs none.
        max_paths: How many paths are told apart; those that come later are counted
            together as `(other)`, so that names made of input fill no memory.
        redact: Takes secrets out of labels.
    """

    def __init__(
        self, sheet: Callable[[], Sheet], max_paths: int, redact: Redactor
    ) -> None:
        self._make_sheet = sheet
        self._max_paths = max_paths
        self._redact = redact
        self._warned: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a forked process all numbers are the parent's."""
        self._lock = RLock()
        self._sheet: Sheet | None = None
        self._bounds: tuple[float, ...] = ()
        self._lowest = 0.0
        self._roots: Nodes = {}
        self._paths: dict[str, _Node] = {}
        self._sets: dict[tuple[str, ...], Any] = {}
        self._counts: Counter[str] = Counter()
        self._live: dict[Call, tuple[_Node, Callable[[], float], float]] = {}
        # Loops of other makes do not say which thread they run in.
        self._loop: Any = _no_loop
        self._read: Callable[[], float] = _never

    def started(self, call: Call, /) -> None:
        """Count one more that is running."""
        # What this and `finished` take is what metrics cost.
        parent, primitive = call.parent, call.primitive
        if parent is None:
            nodes = self._roots
        else:
            above = self._live.get(parent)  # type: ignore[call-overload]
            nodes = _no_nodes if above is None else above[0].children
        known = nodes.get(id(primitive))
        if known is not None and known[0]() is primitive:
            node = known[1]
        else:
            node = self._node(call, nodes)
        if self._loop._thread_id != get_ident():
            self._follow()
        read = self._read
        self._live[call] = (node, read, read())
        node.values[node.running] += 1

    def finished(self, call: Call, /) -> None:
        """Count how it ended and how long it took."""
        entry = self._live.pop(call, None)
        if entry is None:
            return
        node, read, began = entry
        seconds = read() - began
        node.values[node.running] -= 1
        ended = node.ended.get(call.status)
        if ended is None:
            ended = self._ended(node, call.status)
        times, buckets, total = ended
        # Where it matters what this takes, the step took next to nothing.
        at = 0 if seconds <= self._lowest else bisect_left(self._bounds, seconds)
        times[buckets[at]] += 1
        times[total] += seconds

    def _follow(self) -> None:
        """Find out how to read the time of the loop that runs in this thread."""
        loop = _get_running_loop()
        self._loop = loop if isinstance(loop, BaseEventLoop) else _no_loop
        if loop is None:
            self._read = _never
        elif type(loop).time is BaseEventLoop.time:
            # All that it does, without a call in between.
            self._read = time.monotonic  # noqa: TID251 - it is the time of this loop
        else:
            self._read = loop.time

    def event(self, call: Call, name: str, detail: dict[str, Any], /) -> None:
        """Count what happened in a call."""
        count = _EVENTS.get(name)
        if count is not None:
            entry = self._live.get(call)
            # It may be over: a cache refreshes in the background.
            node = entry[0] if entry is not None else self._at(call.path)
            count(self, node, detail)

    def count(
        self, node: _Node, family: Family, *labels: str, amount: float = 1
    ) -> None:
        """Add to a counter of this path."""
        self.cell(node, family, *labels).add(amount)

    def cell(self, node: _Node, family: Family, *labels: str) -> Cell:
        """Return the number of a counter or a gauge of this path."""
        key = (family.name, *labels)
        found = node.events.get(key)
        if found is None:
            found = self._found(family, (node.path, *labels))
            if (family.name, node.path, *labels) in self._sets:
                # What is counted with the others may have any number of names.
                node.events[key] = found
        cell: Cell = found
        return cell

    def count_apart(self, family: Family, *labels: str, amount: float = 1) -> None:
        """Add to a counter that belongs to no path."""
        cell: Cell = self._found(family, labels)
        cell.add(amount)

    def wait(self, node: _Node, by: str, seconds: float) -> None:
        """Note how long something was waited for."""
        key = (families.WAITS.name, by)
        found = node.events.get(key)
        if found is None:
            found = node.events[key] = self._found(families.WAITS, (node.path, by))
        values, buckets, total = found
        values[buckets[bisect_left(self._bounds, seconds)]] += 1
        values[total] += seconds

    def set_state(self, node: _Node, state: str) -> None:
        """Note the state of a circuit."""
        for one in _STATES:
            value = 1.0 if one == state else 0.0
            self.cell(node, families.CIRCUIT_STATE, one).set(value)

    @property
    def sheet(self) -> Sheet:
        """Where numbers are kept."""
        sheet = self._sheet
        if sheet is None:
            with self._lock:
                sheet = self._sheet
                if sheet is None:
                    sheet = self._sheet = self._make_sheet()
                    self._bounds = sheet.bounds
                    self._lowest = sheet.bounds[0]
        return sheet

    def _found(self, family: Family, labels: tuple[str, ...]) -> Any:  # noqa: ANN401 - a cell or a histogram
        """Return the numbers with these labels; beyond a bound, those of the others."""
        key = (family.name, *labels)
        found = self._sets.get(key)
        if found is not None:
            return found
        with self._lock:
            count = self._counts[family.name]
            if count >= max(_MOST_SETS, self._max_paths * len(_STATES)):
                self._warn(family.name, "label sets", count)
                labels = (OTHER,) * len(labels)
                key = (family.name, *labels)
            else:
                self._counts[family.name] += 1
            clean = tuple(self._clean(label) for label in labels)
            is_histogram = family.kind == "histogram"
            make = self.sheet.histogram if is_histogram else self.sheet.cell
            return self._sets.setdefault(key, make(family, clean))

    def _clean(self, label: str) -> str:
        return self._redact.text(label[: 2 * _LONGEST_LABEL])[:_LONGEST_LABEL]

    def _node(self, call: Call, nodes: Nodes) -> _Node:
        """Return the node of a primitive that was not called from there before."""
        node, primitive = self._at(call.path), call.primitive
        if nodes is not _no_nodes:
            # The same workflow may be built anew for each request.
            key = id(primitive)
            nodes[key] = ref(primitive, lambda _: nodes.pop(key, None)), node
        if isinstance(primitive, CircuitBreakerPrimitive):
            self.set_state(node, primitive.state)
        return node

    def _at(self, path: str) -> _Node:
        """Return the node of a path, in which siblings of one name are one."""
        if "#" in path:
            path = "/".join(part.partition("#")[0] for part in path.split("/"))
        node = self._paths.get(path)
        if node is None:
            with self._lock:
                if len(path) > _LONGEST_LABEL or len(self._paths) >= self._max_paths:
                    self._warn("path", "paths", len(self._paths))
                    path = OTHER
                node = self._paths.get(path)
                if node is None:
                    cell = self.sheet.cell(families.IN_FLIGHT, (self._clean(path),))
                    node = self._paths[path] = _Node(path, cell)
        return node

    def _ended(self, node: _Node, status: str) -> Histogram:
        with self._lock:
            labels = (self._clean(node.path), status)
            made = self.sheet.histogram(families.DURATION, labels)
            return node.ended.setdefault(status, made)

    def _warn(self, what: str, kind: str, count: int) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(
                "Metrics tell %d %s of %s apart; more are counted together as %s. "
                "Do not make names of primitives or models from input.",
                count,
                kind,
                what,
                OTHER,
            )


Count: TypeAlias = "Callable[[CountingObserver, _Node, dict[str, Any]], None]"


def _counts(family: Family, *labels: str) -> Count:
    return lambda to, node, _: to.count(node, family, *labels)


def _counts_by(family: Family, name: str) -> Count:
    """Count by what the event says under a name: one of few words, or a number."""

    def count(to: CountingObserver, node: _Node, detail: dict[str, Any]) -> None:
        # Input may say which way it goes: of a long one not all is kept.
        label = str(detail.get(name, ""))[: 2 * _LONGEST_LABEL]
        to.count(node, family, label)

    return count


def _hit(to: CountingObserver, node: _Node, detail: dict[str, Any]) -> None:
    result = "negative_hit" if "error" in detail else "hit"
    to.count(node, families.CACHE_REQUESTS, result)


def _evicted(to: CountingObserver, node: _Node, detail: dict[str, Any]) -> None:
    to.count(node, families.CACHE_EVICTIONS, amount=detail.get("count", 1))


def _scheduled(to: CountingObserver, node: _Node, detail: dict[str, Any]) -> None:
    to.count(node, families.RETRIES)
    to.wait(node, "retry", detail.get("delay", 0.0))


def _changes(state: str) -> Count:
    def count(to: CountingObserver, node: _Node, _: dict[str, Any]) -> None:
        to.count(node, families.CIRCUIT_CHANGES, state)
        to.set_state(node, state)

    return count


def _waited(by: str, name: str) -> Count:
    return lambda to, node, detail: to.wait(node, by, detail.get(name, 0.0))


def _used(to: CountingObserver, _: _Node, detail: dict[str, Any]) -> None:
    of = (
        str(detail.get("gen_ai.provider.name")),
        str(detail.get("gen_ai.request.model")),
    )
    for direction, name in (
        ("input", "gen_ai.usage.input_tokens"),
        ("cached_input", "gen_ai.usage.cache_read.input_tokens"),
        ("output", "gen_ai.usage.output_tokens"),
    ):
        amount = detail.get(name) or 0
        to.count_apart(families.TOKENS, *of, direction, amount=amount)
    for reason in detail.get("gen_ai.response.finish_reasons", ()):
        to.count_apart(families.ANSWERS, *of, str(reason))


_EVENTS: Final[dict[str, Count]] = {
    "retry.attempt": _counts(families.ATTEMPTS),
    "retry.scheduled": _scheduled,
    "retry.exhausted": _counts(families.RETRIES_ENDED, "exhausted"),
    "retry.budget_exhausted": _counts(families.RETRIES_ENDED, "budget_exhausted"),
    "retry.gave_up": _counts_by(families.RETRIES_ENDED, "reason"),
    "timeout.expired": _counts(families.TIMEOUTS, "expired"),
    "timeout.ignored": _counts(families.TIMEOUTS, "ignored"),
    "timeout.overrun": _counts(families.TIMEOUTS, "overrun"),
    "fallback.used": _counts_by(families.FALLBACKS, "index"),
    "branch.taken": _counts_by(families.ROUTES, "branch"),
    "route.taken": _counts_by(families.ROUTES, "route"),
    "cache.hit": _hit,
    "cache.miss": _counts(families.CACHE_REQUESTS, "miss"),
    "cache.stale": _counts(families.CACHE_REQUESTS, "stale"),
    "cache.coalesced": _counts(families.CACHE_EVENTS, "coalesced"),
    "cache.refresh": _counts(families.CACHE_EVENTS, "refresh"),
    "cache.refresh_failed": _counts(families.CACHE_EVENTS, "refresh_failed"),
    "cache.invalidated": _counts(families.CACHE_EVENTS, "invalidated"),
    "cache.lease_waited": _counts(families.CACHE_EVENTS, "lease_waited"),
    "cache.lease_lost": _counts(families.CACHE_EVENTS, "lease_lost"),
    "cache.evict": _evicted,
    "cache.error": _counts(families.STORAGE_ERRORS, "cache"),
    "cache.corrupt": _counts(families.STORAGE_ERRORS, "cache"),
    "breaker.closed": _changes("closed"),
    "breaker.opened": _changes("open"),
    "breaker.half_opened": _changes("half_open"),
    "breaker.isolated": _changes("isolated"),
    "breaker.rejected": _counts(families.REJECTIONS, "breaker"),
    "breaker.storage_failed": _counts(families.STORAGE_ERRORS, "breaker"),
    "breaker.storage_malformed": _counts(families.STORAGE_ERRORS, "breaker"),
    "bulkhead.rejected": _counts(families.REJECTIONS, "bulkhead"),
    "bulkhead.admitted": _waited("bulkhead", "waited"),
    "rate_limit.rejected": _counts(families.REJECTIONS, "rate_limit"),
    "rate_limit.delayed": _waited("rate_limit", "seconds"),
    "rate_limit.storage_failed": _counts(families.STORAGE_ERRORS, "rate_limit"),
    "rate_limit.storage_malformed": _counts(families.STORAGE_ERRORS, "rate_limit"),
    "hedge.started": _counts(families.HEDGES, "started"),
    "hedge.won": _counts(families.HEDGES, "won"),
    "hedge.skipped": _counts(families.HEDGES, "skipped"),
    "saga.compensating": _counts(families.COMPENSATIONS, "started"),
    "saga.compensated": _counts(families.COMPENSATIONS, "done"),
    "saga.compensation_failed": _counts(families.COMPENSATIONS, "failed"),
    "llm.usage": _used,
}
