"""One cache's part of a storage: its keys, and the form in which values lie there."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from tta_primitives.errors import CacheStorageError
from tta_primitives.keys import canonical, digest, memory_key, type_name
from tta_primitives.performance.copying import is_immutable
from tta_primitives.performance.memory import CopiedEntry, Entry, MemoryStorage
from tta_primitives.performance.records import Record, UnreadableRecord
from tta_primitives.performance.serializers import mark_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Sequence
    from typing import Any

    from tta_primitives.performance.serializers import Serializer
    from tta_primitives.performance.storage import LeaseStorage, Storage

__all__ = [
    "CopyMode",
    "CorruptRecordError",
    "Found",
    "MemoryShelf",
    "Shelf",
    "StorageShelf",
    "copied",
]

SHORT_TEXT = 256
"""How long a text may be whose key is remembered."""

CopyMode: TypeAlias = Literal["auto", "deep", "none"]


class CorruptRecordError(CacheStorageError):
    """What lies at a key is no record of this cache."""


class Found(NamedTuple):
    """A value that was found.

    Attributes:
        value: The value.
        fresh_for: Seconds until it is stale; negative once it is.
        is_original: Whether it lies in the storage itself, so that a caller who might
            change it must get a copy.
        tags: What it can be invalidated by.
    """

    value: Any
    fresh_for: float
    is_original: bool
    tags: tuple[str, ...] = ()

    @property
    def age(self) -> float:
        """Seconds for which the value has been stale."""
        # To the nanosecond, as entries are dated.
        return round(-self.fresh_for, 9)

    def take(self) -> Any:  # noqa: ANN401 - whatever was cached
        """Return the value for one caller."""
        return copy.deepcopy(self.value) if self.is_original else self.value


def copied(value: Any, mode: CopyMode) -> Any:  # noqa: ANN401 - whatever was loaded
    """Return a value that shares nothing changeable with the given one.

    Raises:
        CacheStorageError: It cannot be copied.
    """
    if mode == "none" or (mode == "auto" and is_immutable(value)):
        return value
    try:
        return copy.deepcopy(value)
    except Exception as error:
        msg = (
            f"a value of type {type_name(type(value))} cannot be copied, so "
            'callers would share it; say copy="none" if they may, or '
            "cache_if=... to leave such values out"
        )
        raise CacheStorageError(msg) from error


class Shelf(Protocol):
    """Where one cache keeps its values; every method may raise CacheStorageError."""

    def key(self, value: object, /) -> Hashable:
        """Return the key of an input."""
        ...

    async def find(self, key: Hashable, /) -> Found | None:
        """Return the value that lies there, fresh or not."""
        ...

    async def put(
        self, key: Hashable, record: Record, token: str | None, /
    ) -> int | None:
        """Keep a value; return how many others were evicted for it.

        Args:
            key: What it is found by.
            record: The value as an object, its times and its tags.
            token: That of a lease: if it is no longer held, nothing is kept, and None
                is returned.
        """
        ...

    async def drop(self, key: Hashable, /) -> None:
        """Forget a key."""
        ...

    async def drop_tagged(self, tags: Sequence[str], /) -> None:
        """Forget what has one of these tags."""
        ...

    async def drop_all(self) -> None:
        """Forget everything of this cache."""
        ...


class MemoryShelf:
    """Values in this process, as objects.

    Args:
        storage: The memory.
        prefix: What this cache's keys begin with; None if the memory is its own.
        mode: Which values are copied when they are put in and handed out.
    """

    def __init__(
        self, storage: MemoryStorage, prefix: str | None, mode: CopyMode
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._mode: CopyMode = mode

    def key(self, value: object, /) -> Hashable:
        """Return the key of an input."""
        if self._prefix is None:
            return memory_key(value)
        return self._prefix + canonical(value)

    async def find(self, key: Hashable, /) -> Found | None:
        """Return the value that lies there, fresh or not."""
        entry = self._storage.read(key)
        if entry is None:
            return None
        fresh_for = entry.fresh_until - self._storage.clock.now()
        tags = self._storage.tags_of(key)
        return Found(entry.value, fresh_for, type(entry) is CopiedEntry, tags)

    async def put(self, key: Hashable, record: Record, _: str | None, /) -> int:
        """Keep a value; return how many others were evicted for it."""
        value, fresh_for, kept_for, tags = record
        own = copied(value, self._mode)
        as_it_is = self._mode == "none" or (self._mode == "auto" and own is value)
        kind = Entry if as_it_is else CopiedEntry
        return self._storage.write(key, own, fresh_for, kept_for, kind=kind, tags=tags)

    async def drop(self, key: Hashable, /) -> None:
        """Forget a key."""
        self._storage.remove(key)

    async def drop_tagged(self, tags: Sequence[str], /) -> None:
        """Forget what has one of these tags."""
        self._storage.remove_tagged(tags)

    async def drop_all(self) -> None:
        """Forget everything of this cache."""
        if self._prefix is None:
            self._storage.remove_all()
        else:
            await self._storage.clear(self._prefix)


class StorageShelf:
    """Values in a storage outside of this process, as bytes.

    Args:
        storage: The storage.
        prefix: What this cache's keys begin with.
        serializer: Makes bytes of values.
    """

    def __init__(self, storage: Storage, prefix: str, serializer: Serializer) -> None:
        self._storage = storage
        self._prefix = prefix
        self._serializer = serializer
        self._mark = mark_of(serializer)
        # Most inputs are short texts, and what is often asked is asked again.
        self._key_of_text = lru_cache(maxsize=512)(self._digested)

    def key(self, value: object, /) -> str:
        """Return the key of an input."""
        if type(value) is str and len(value) <= SHORT_TEXT:
            return self._key_of_text(value)
        return self._digested(value)

    def _digested(self, value: object) -> str:
        return self._prefix + digest(canonical(value))

    async def find(self, key: Hashable, /) -> Found | None:
        """Return the value that lies there, fresh or not."""
        try:
            [record] = await self._storage.get_many([str(key)])
        except Exception as error:
            raise self._failed(error, "read") from error
        if record is None:
            return None
        value = self._value(key, record)
        return Found(value, record.fresh_for, False, record.tags)  # type: ignore[union-attr]  # noqa: FBT003

    def _value(self, key: Hashable, record: Record | UnreadableRecord) -> Any:  # noqa: ANN401 - whatever was cached
        """Return the value of a record that may have been written by anybody."""
        if isinstance(record, UnreadableRecord):
            msg = f"the record of {key!r} cannot be read: {record.reason}"
            raise CorruptRecordError(msg)
        data, mark = record.value, self._mark
        if not isinstance(data, bytes) or not data.startswith(mark):
            msg = f"the record of {key!r} was not written by {mark.decode()[:-1]!r}"
            raise CorruptRecordError(msg)
        try:
            return self._serializer.loads(data[len(mark) :])
        except Exception as error:
            msg = f"the record of {key!r} cannot be read: {error!r}"
            raise CorruptRecordError(msg) from error

    async def put(
        self, key: Hashable, record: Record, token: str | None, /
    ) -> int | None:
        """Keep a value; None if the lease with this token is no longer held."""
        try:
            data = self._mark + self._serializer.dumps(record.value)
        except Exception as error:
            msg = f"a value cannot be written to the storage: {error}"
            raise CacheStorageError(msg) from error
        record = record._replace(value=data)
        if token is None:
            await self._asked("write", self._storage.set_many({str(key): record}))
            return 0
        storage: Any = self._storage
        leases: LeaseStorage = storage
        written = leases.set_leased(str(key), record, token)
        return 0 if await self._asked("write", written) else None

    async def drop(self, key: Hashable, /) -> None:
        """Forget a key."""
        await self._asked("delete", self._storage.delete([str(key)]))

    async def drop_tagged(self, tags: Sequence[str], /) -> None:
        """Forget what has one of these tags."""
        await self._asked("delete", self._storage.delete_tagged(tags))

    async def drop_all(self) -> None:
        """Forget everything of this cache."""
        await self._asked("clear", self._storage.clear(self._prefix))

    async def _asked(self, what: str, operation: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what it returns
        try:
            return await operation
        except Exception as error:
            raise self._failed(error, what) from error

    def _failed(self, error: Exception, what: str) -> CacheStorageError:
        kind = type_name(type(self._storage))
        return CacheStorageError(f"the storage {kind} could not {what}: {error!r}")
