"""What makes bytes of values for a storage outside of this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tta_primitives.extras import needs
from tta_primitives.keys import type_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JsonSerializer", "MsgpackSerializer", "Serializer", "mark_of"]


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


def mark_of(serializer: Serializer) -> bytes:
    """Return what stands before values that a serializer has written.

    So that nothing is read by another one, whose numbers may be this one's texts.
    """
    name = _MARKS.get(type(serializer)) or type_name(type(serializer))
    return f"{name}:".encode()


class JsonSerializer:
    """JSON, refusing what would come back as something else."""

    def dumps(self, value: object, /) -> bytes:
        """Return a value as JSON.

        Raises:
            TypeError: A part of it is not of a JSON type; a tuple would come back as a
                list, and the key 1 as "1".
        """
        _check_parts(value, _JSON_ATOMS, "JSON")
        return json.dumps(value, separators=(",", ":")).encode()

    def loads(self, data: bytes, /) -> object:
        """Return the value that the JSON stands for."""
        text = data.decode()
        # Without the search for blanks at both ends, and for the encoding.
        value, end = _decode(text)
        if end != len(text):
            msg = (
                f"what follows the first {end} characters does not belong to the value"
            )
            raise ValueError(msg)
        return value


class MsgpackSerializer:
    """MessagePack, refusing what would come back as something else.

    It is smaller and quicker than JSON, and knows bytes.

    Raises:
        ImportError: The package msgpack is not installed.
    """

    def __init__(self) -> None:
        with needs("msgpack", "serializer='msgpack'"):
            import msgpack  # type: ignore[import-untyped]  # It has no types.
        # What it says of its types is not true of every way to call it.
        packb: Any = msgpack.packb
        self._pack: Callable[[object], bytes] = packb
        self._unpack: Callable[..., Any] = msgpack.unpackb

    def dumps(self, value: object, /) -> bytes:
        """Return a value as MessagePack.

        Raises:
            TypeError: A part of it is not of a type that MessagePack has; a tuple would
                come back as a list.
            OverflowError: A number has more than 64 bits.
        """
        _check_parts(value, _MSGPACK_ATOMS, "MessagePack")
        return self._pack(value)

    def loads(self, data: bytes, /) -> object:
        """Return the value that the MessagePack stands for."""
        return self._unpack(data, ext_hook=_refuse)


_decode = json.JSONDecoder().raw_decode
_MARKS = {JsonSerializer: "json", MsgpackSerializer: "msgpack"}
_JSON_ATOMS: frozenset[Any] = frozenset({str, int, float, bool, type(None)})
_MSGPACK_ATOMS = _JSON_ATOMS | {bytes}


def _check_parts(value: object, atoms: frozenset[Any], name: str) -> None:
    if type(value) in atoms:
        return
    if type(value) is list:
        for part in value:
            _check_parts(part, atoms, name)
    elif type(value) is dict and all(type(key) is str for key in value):
        for part in value.values():
            _check_parts(part, atoms, name)
    else:
        msg = (
            f"a {type(value).__name__} would not come back from {name} as it is; give "
            "the cache a serializer= with dumps and loads for such values"
        )
        raise TypeError(msg)


def _refuse(code: int, _: bytes) -> object:
    msg = f"a value of the extension type {code}, which this serializer does not write"
    raise ValueError(msg)
