"""The form in which a record lies in Redis: bytes that say what they are.

    tta1  stamp  check  fresh until  kept until  tags  value
    4     16     8      16           16          2...  the rest

The numbers are digits, so that people and scripts can read them: dates in microseconds
since the epoch, the stamp as `redis_storage` explains it, the number of tags and of
each its length. The check is the CRC-32 of all that follows it, in hexadecimal. It
finds what was cut or overwritten; it does not stop who wants to be believed.
"""

from __future__ import annotations

import math
import re
import time
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

FOR_EVER = 9_999_999_999_999_999
"""The date that stands for none."""

# Where what is checked begins, and where the tags or the value do.
_CHECKED, _VALUE = 28, 62
_HEAD = re.compile(rb"tta1\d{16}([0-9a-f]{8})(\d{16})(\d{16})(\d\d)")
_DAY = 86400
_MOST_TAGS = 99
_LONGEST_TAG = 999


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
    body = b"%016d%016d%s%s" % (fresh_until, kept_until, tags, value)
    kept_for = min(record.kept_for, LONGEST_SECONDS)
    milliseconds = max(1, math.ceil(kept_for * 1000))
    return Encoded(b"%08x%s" % (crc32(body), body), milliseconds)


def decoded(data: bytes, now: int) -> Record | UnreadableRecord | None:
    """Return the record that bytes hold; None if its time is over.

    Args:
        data: Whatever was found.
        now: The date, in microseconds since the epoch.
    """
    head = _HEAD.match(data)
    if head is None:
        return UnreadableRecord("it has no form or version that is known here")
    check, fresh, kept, count = head.groups()
    if int(check, 16) != crc32(data[_CHECKED:]):
        return UnreadableRecord("it was cut or changed")
    fresh_until, kept_until = int(fresh), int(kept)
    if kept_until <= now:
        return None
    fresh_for, kept_for = _left(fresh_until, now), _left(kept_until, now)
    if fresh_until > kept_until or LONGEST_SECONDS + _DAY < kept_for < math.inf:
        return UnreadableRecord("its dates make no sense")
    return _with_tags(data, int(count), fresh_for, kept_for)


def _left(until: int, now: int) -> float:
    return math.inf if until == FOR_EVER else (until - now) / 1_000_000


def _date(now: int, seconds: float) -> int:
    """Return the date in so many seconds, in microseconds since the epoch."""
    if seconds > LONGEST_SECONDS:
        return FOR_EVER
    return max(0, now + round(seconds * 1_000_000))


def _encoded_tags(tags: Sequence[str]) -> bytes:
    if not tags:
        return b"00"
    texts = [tag.encode("utf-8", "surrogatepass") for tag in tags]
    if len(texts) > _MOST_TAGS or max(map(len, texts)) > _LONGEST_TAG:
        msg = (
            f"an entry in Redis has at most {_MOST_TAGS} tags of {_LONGEST_TAG} bytes, "
            f"not {len(texts)} of up to {max(map(len, texts))}"
        )
        raise ValueError(msg)
    return b"%02d%s" % (len(texts), b"".join(b"%03d%s" % (len(t), t) for t in texts))


def _with_tags(
    data: bytes, count: int, fresh_for: float, kept_for: float
) -> Record | UnreadableRecord:
    """Return a record of which all that stands before its tags has been read."""
    if not count:
        return Record(data[_VALUE:], fresh_for, kept_for)
    tags: list[str] = []
    at = _VALUE
    try:
        for _ in range(count):
            begin = at + 3
            at = begin + int(data[at:begin])
            tags.append(data[begin:at].decode("utf-8", "surrogatepass"))
    except ValueError:
        return UnreadableRecord("its tags cannot be read")
    return Record(data[at:], fresh_for, kept_for, tuple(tags))
