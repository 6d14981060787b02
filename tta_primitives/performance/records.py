"""What a storage keeps, and what a cache counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["CacheStats", "Counts", "Record", "UnreadableRecord"]


class Record(NamedTuple):
    """One entry as a storage takes it and gives it back.

    Times are durations from the moment of the call, so a storage may keep them on
    whatever clock it has; two processes need not agree on one.

    Attributes:
        value: The value: bytes, unless the storage keeps objects.
        fresh_for: Seconds until the value is stale; after that how long it has been,
            negative.
        kept_for: Seconds until the storage should forget the record.
        tags: What `delete_tagged` finds it by.
    """

    value: object
    fresh_for: float
    kept_for: float
    tags: tuple[str, ...] = ()


class UnreadableRecord(NamedTuple):
    """What a storage gives back for a key at which something else lies.

    For a cache that is a miss: others use the storage too, and may have written there
    whatever they like.

    Attributes:
        reason: What is wrong with it, as the end of a sentence.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has done so far.

    Attributes:
        hits: Calls answered by a fresh value, or by a remembered failure.
        misses: Calls that found neither a fresh nor a usable stale value.
        stale: Calls answered by a stale value.
        coalesced: Misses that waited for the load of another call.
        lease_waits: Loads that waited for the load of another process.
        loads: Executions of the wrapped primitive, refreshes included.
        refreshes: Loads begun in the background.
        load_errors: Loads that failed.
        errors: Failures of the storage, and values that it could not keep.
        evictions: Entries removed to make room, for all caches on the same memory.
        size: Entries in memory at present; None if the storage is elsewhere.
    """

    hits: int
    misses: int
    stale: int
    coalesced: int
    loads: int
    refreshes: int
    load_errors: int
    errors: int
    lease_waits: int
    evictions: int
    size: int | None

    @property
    def hit_ratio(self) -> float:
        """Calls answered from the cache out of all calls; 0.0 before the first."""
        answered = self.hits + self.stale
        total = answered + self.misses
        return answered / total if total else 0.0


@dataclass(slots=True)
class Counts:
    """The counters of one cache."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    coalesced: int = 0
    loads: int = 0
    refreshes: int = 0
    load_errors: int = 0
    errors: int = 0
    lease_waits: int = 0

    def snapshot(self, *, evictions: int, size: int | None) -> CacheStats:
        """Return the counters as they stand."""
        return CacheStats(
            hits=self.hits,
            misses=self.misses,
            stale=self.stale,
            coalesced=self.coalesced,
            loads=self.loads,
            refreshes=self.refreshes,
            load_errors=self.load_errors,
            errors=self.errors,
            lease_waits=self.lease_waits,
            evictions=evictions,
            size=size,
        )
