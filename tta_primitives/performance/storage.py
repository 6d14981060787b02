"""What a cache asks of the place where its entries are kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tta_primitives.performance.records import Record

__all__ = ["JsonSerializer", "Serializer", "Storage"]


@runtime_checkable
class Storage(Protocol):
    """A place for entries that several caches, and several processes, may share.

    Every method may raise any `Exception`; the cache decides what that means. A storage
    must not return a record whose `kept_for` has run out, and should limit how long its
    own operations take.
    """

    async def get_many(self, keys: Sequence[str], /) -> Sequence[Record | None]:
        """Return the record of each key, in that order; None where there is none."""
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
class Serializer(Protocol):
    """Turns values into bytes for a storage, and back.

    What `loads` is given may have been written by anybody who can reach the storage: a
    serializer must not execute what it reads, as pickle does.
    """

    def dumps(self, value: object, /) -> bytes:
        """Return a value as bytes."""
        ...

    def loads(self, data: bytes, /) -> object:
        """Return the value that `dumps` was given."""
        ...


class JsonSerializer:
    """JSON, refusing what would come back as something else."""

    def dumps(self, value: object, /) -> bytes:
        """Return a value as JSON.

        Raises:
            TypeError: A part of it is not of a JSON type; a tuple would come back as a
                list, and the key 1 as "1".
        """
        _check_json(value)
        return json.dumps(value, separators=(",", ":")).encode()

    def loads(self, data: bytes, /) -> object:
        """Return the value that the JSON stands for."""
        return json.loads(data)


_JSON_ATOMS = frozenset({str, int, float, bool, type(None)})


def _check_json(value: object) -> None:
    if type(value) in _JSON_ATOMS:
        return
    if type(value) is list:
        for part in value:
            _check_json(part)
    elif type(value) is dict and all(type(key) is str for key in value):
        for part in value.values():
            _check_json(part)
    else:
        msg = (
            f"a {type(value).__name__} would not come back from JSON as it is; give "
            "the cache a serializer= with dumps and loads for such values"
        )
        raise TypeError(msg)
