"""What a cache asks of the place where its entries are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tta_primitives.performance.records import Record, UnreadableRecord

__all__ = ["LeaseStorage", "Storage"]


@runtime_checkable
class Storage(Protocol):
    """A place for entries that several caches, and several processes, may share.

    Every method may raise any `Exception`; the cache decides what that means. A storage
    must not return a record whose `kept_for` has run out, and should limit how long its
    own operations take.
    """

    async def get_many(
        self, keys: Sequence[str], /
    ) -> Sequence[Record | UnreadableRecord | None]:
        """Return the record of each key, in that order; None where there is none.

        Where something lies that is no record, an UnreadableRecord says so: one such
        key is no reason not to give the others back.
        """
        ...

    async def set_many(self, records: Mapping[str, Record], /) -> None:
        """Keep these records, in place of older ones with the same keys."""
        ...

    async def delete(self, keys: Sequence[str], /) -> None:
        """Forget these keys; one that is not there is no error."""
        ...

    async def delete_tagged(self, tags: Sequence[str], /) -> None:
        """Forget every record that has one of these tags."""
        ...

    async def clear(self, prefix: str, /) -> None:
        """Forget every key that begins with this prefix."""
        ...


@runtime_checkable
class LeaseStorage(Storage, Protocol):
    """A storage by which processes agree who of them loads a key.

    A cache uses these methods if a storage has all of them. A lease belongs to whoever
    gave its token, and ends after its time, when it is given back, when a value is
    kept with it, and when its key is forgotten by whichever of the other methods: what
    was loaded before a key was forgotten is not to be kept after it.
    """

    async def acquire(self, key: str, token: str, seconds: float, /) -> bool:
        """Take the lease of a key for so long, unless somebody has it."""
        ...

    async def renew(self, key: str, token: str, seconds: float, /) -> bool:
        """Keep it for so long from now; False if it is no longer held."""
        ...

    async def release(self, key: str, token: str, /) -> None:
        """Give it back, if it is still held."""
        ...

    async def set_leased(self, key: str, record: Record, token: str, /) -> bool:
        """Keep a record and give the lease back; False if it is no longer held."""
        ...
