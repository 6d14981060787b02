"""Entries in this process: a bounded dictionary that forgets the least used."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tta_primitives.arguments import check_count
from tta_primitives.loops import LoopClock
from tta_primitives.performance.records import Record

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

__all__ = ["CopiedEntry", "Entry", "MemoryStorage"]


class Entry:
    """A value that every caller may be handed as it is.

    Attributes:
        value: What was loaded.
        fresh_until: When it becomes stale, on the storage's clock.
        kept_until: When it is forgotten.
    """

    __slots__ = ("fresh_until", "kept_until", "value")

    value: Any
    fresh_until: float
    kept_until: float

    def __init__(self, value: object, fresh_until: float, kept_until: float) -> None:
        self.value = value
        self.fresh_until = fresh_until
        self.kept_until = kept_until


class CopiedEntry(Entry):
    """A value of which every caller gets a copy."""

    __slots__ = ()


class MemoryStorage:
    """Keep entries in this process, for one cache or for several that share it.

    A cache makes one of its own unless it is given a storage. It holds at most
    `max_size` entries: the least recently used goes first. There is no timer; what has
    expired is forgotten when it is asked for or when its turn comes.

    Args:
        max_size: The number of entries, over all caches that share this storage.

    Raises:
        ValueError: `max_size` is not a whole number of at least 1.
    """

    def __init__(self, max_size: int = 1024) -> None:
        self.max_size: int = check_count("max_size", max_size, minimum=1)
        self.clock: LoopClock = LoopClock()
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.evictions: int = 0
        self._tags: dict[Hashable, tuple[str, ...]] = {}
        self._tagged: dict[str, set[Hashable]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<MemoryStorage {len(self)} of {self.max_size}>"

    def read(self, key: Hashable) -> Entry | None:
        """Return a living entry and note that it was used."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if self.clock.now() >= entry.kept_until:
            self.remove(key)
            return None
        with suppress(KeyError):  # Another thread may have removed it just now.
            self.entries.move_to_end(key)
        return entry

    def write(
        self,
        key: Hashable,
        value: object,
        fresh_for: float,
        kept_for: float,
        *,
        kind: type[Entry] = Entry,
        tags: tuple[str, ...] = (),
    ) -> int:
        """Keep a value; return how many entries had to go for it.

        Args:
            key: What it is found by.
            value: Anything.
            fresh_for: Seconds until it is stale.
            kept_for: Seconds until it is forgotten.
            kind: How it is handed out.
            tags: What it can be removed by.
        """
        now = self.clock.now()
        # Rounded to nanoseconds: 0.1 + 0.2 is due at 0.3, when a timer of 0.2 fires.
        fresh_until = round(now + fresh_for, 9)
        kept_until = fresh_until if kept_for == fresh_for else round(now + kept_for, 9)
        self._untag(key)
        self.entries[key] = kind(value, fresh_until, kept_until)
        self.entries.move_to_end(key)
        if tags:
            self._tag(key, tags)
        return self._evict()

    def tags_of(self, key: Hashable) -> tuple[str, ...]:
        """Return what an entry can be removed by."""
        return self._tags.get(key, ())

    def remove(self, key: Hashable) -> None:
        """Forget a key; one that is not there is no error."""
        self.entries.pop(key, None)
        self._untag(key)

    def remove_tagged(self, tags: Sequence[str]) -> None:
        """Forget every entry that has one of these tags."""
        for tag in tags:
            for key in tuple(self._tagged.get(tag, ())):
                self.remove(key)

    def remove_all(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._tags.clear()
        self._tagged.clear()

    def _evict(self) -> int:
        count = 0
        while len(self.entries) > self.max_size:
            key, _ = self.entries.popitem(last=False)
            self._untag(key)
            count += 1
        self.evictions += count
        return count

    def _tag(self, key: Hashable, tags: tuple[str, ...]) -> None:
        self._tags[key] = tags
        for tag in tags:
            self._tagged.setdefault(tag, set()).add(key)

    def _untag(self, key: Hashable) -> None:
        for tag in self._tags.pop(key, ()):
            keys = self._tagged[tag]
            keys.discard(key)
            if not keys:
                del self._tagged[tag]

    async def get_many(self, keys: Sequence[str], /) -> list[Record | None]:
        """Return the record of each key, in that order; None where there is none."""
        return [self._record(key) for key in keys]

    def _record(self, key: str) -> Record | None:
        entry = self.read(key)
        if entry is None:
            return None
        now = self.clock.now()
        fresh_for, kept_for = entry.fresh_until - now, entry.kept_until - now
        return Record(entry.value, fresh_for, kept_for, self.tags_of(key))

    async def set_many(self, records: Mapping[str, Record], /) -> None:
        """Keep these records, in place of older ones with the same keys."""
        for key, record in records.items():
            self.write(
                key, record.value, record.fresh_for, record.kept_for, tags=record.tags
            )

    async def delete(self, keys: Sequence[str], /) -> None:
        """Forget these keys; one that is not there is no error."""
        for key in keys:
            self.remove(key)

    async def delete_tagged(self, tags: Sequence[str], /) -> None:
        """Forget every record that has one of these tags."""
        self.remove_tagged(tags)

    async def clear(self, prefix: str, /) -> None:
        """Forget every key that begins with this prefix."""
        for key in tuple(self.entries):
            if isinstance(key, str) and key.startswith(prefix):
                self.remove(key)
