"""The form in which a record lies in Redis: bytes that say what they are.

    tta1  stamp      check  fresh until  kept until  tags  value
    4     16 digits  4      8            8           1...  the rest

Dates are microseconds since the epoch, the first byte of the tags is their number, and
each begins with its length. The check is the CRC-32 of all that follows it: it finds
what was cut or overwritten, and does not stop who wants to be believed. The stamp, as
`redis_storage` explains it, is written in digits and by Redis itself.
"""

from __future__ import annotations

import math
import time
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from tta_primitives.performance.records import Record, UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAGIC", "Encoded", "decoded", "encoded", "wall_now"]

MAGIC = b"tta1"
"""What every record begins with; the digit is the version of the form."""

LONGEST_SECONDS = 100 * 365 * 86400
"""A century: what is kept for longer, or for ever, is kept for that."""

FOR_EVER = (1 << 63) - 1
"""The date that stands for none."""

_HEAD = Struct(">4s16sIqqB")
_CHECKED = 24  # Where what is checked begins.
_BODY = Struct(">qqB")
_CENTURY = (LONGEST_SECONDS + 86400) * 1_000_000  # With a day for clocks that differ.
_MOST_TAGS, _LONGEST_TAG = 255, 255


class Encoded(NamedTuple):
    """A record as it is written.

    Attributes:
        body: What follows the stamp.
        milliseconds: When Redis is to forget it.
    """

    body: bytes
    milliseconds: int


def wall_now() -> int:
    """Return the date, in microseconds since the epoch.

    The event loop's clock means nothing in another process, and a record may be read
    in one that starts tomorrow.
    """
    return time.time_ns() // 1000  # noqa: TID251 - a date enters and leaves here


def encoded(record: Record, now: int) -> Encoded:
    """Return a record as bytes.

    Args:
        record: The record; its value must be bytes.
        now: The date, in microseconds since the epoch.

    Raises:
        TypeError: Its value is not bytes.
        ValueError: It has too many tags, or one that is too long.
    """
    value = record.value
    if not isinstance(value, bytes):
        msg = f"a value in Redis must be bytes, not {type(value).__name__}"
        raise TypeError(msg)
    fresh_until = _date(now, record.fresh_for)
    kept_until = _date(now, record.kept_for)
    tags = _encoded_tags(record.tags)
    head = _BODY.pack(fresh_until, kept_until, len(record.tags))
    body = b"%s%s%s" % (head, tags, value)
    kept_for = min(record.kept_for, LONGEST_SECONDS)
    milliseconds = max(1, math.ceil(kept_for * 1000))
    return Encoded(crc32(body).to_bytes(4) + body, milliseconds)


def decoded(data: bytes, now: int) -> Record | UnreadableRecord | None:
    """Return the record that bytes hold; None if its time is over.

    Args:
        data: Whatever was found.
        now: The date, in microseconds since the epoch.
    """
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        return UnreadableRecord("it has no form or version that is known here")
    _, _, check, fresh_until, kept_until, count = _HEAD.unpack_from(data)
    if crc32(data[_CHECKED:]) != check:
        return UnreadableRecord("it was cut or changed")
    if kept_until <= now:
        return None
    if fresh_until > kept_until or now + _CENTURY < kept_until < FOR_EVER:
        return UnreadableRecord("its dates make no sense")
    fresh_for, kept_for = _left(fresh_until, now), _left(kept_until, now)
    if count:
        return _with_tags(data, count, fresh_for, kept_for)
    return Record(data[_HEAD.size :], fresh_for, kept_for)


def _left(until: int, now: int) -> float:
    return math.inf if until == FOR_EVER else (until - now) / 1_000_000


def _date(now: int, seconds: float) -> int:
    """Return the date in so many seconds, in microseconds since the epoch."""
    if seconds > LONGEST_SECONDS:
        return FOR_EVER
    return max(0, now + round(seconds * 1_000_000))


def _encoded_tags(tags: Sequence[str]) -> bytes:
    if not tags:
        return b""
    texts = [tag.encode("utf-8", "surrogatepass") for tag in tags]
    longest = max(map(len, texts))
    if len(texts) > _MOST_TAGS or longest > _LONGEST_TAG:
        msg = (
            f"an entry in Redis has at most {_MOST_TAGS} tags of {_LONGEST_TAG} bytes, "
            f"not {len(texts)} of up to {longest}"
        )
        raise ValueError(msg)
    return b"".join(bytes([len(text)]) + text for text in texts)


def _with_tags(
    data: bytes, count: int, fresh_for: float, kept_for: float
) -> Record | UnreadableRecord:
    tags: list[str] = []
    at = _HEAD.size
    try:
        for _ in range(count):
            begin = at + 1
            at = begin + data[at]
            tags.append(data[begin:at].decode("utf-8", "surrogatepass"))
    except (IndexError, UnicodeDecodeError):
        return UnreadableRecord("its tags cannot be read")
    return Record(data[at:], fresh_for, kept_for, tuple(tags))
