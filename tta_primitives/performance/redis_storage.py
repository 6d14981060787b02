"""Entries in a Redis that several processes share.

A tag is no list of keys: lists grow, and Redis may evict them before what they list.
Instead each tag has a *stamp*, the moment at which it was last invalidated, and a
record has the stamp of the moment at which its load began. A record counts only while
each of its tags has a stamp, and none that is later. So invalidating a tag is one step,
whatever it concerns; loads that were under way then are not kept; and a tag that Redis
has evicted takes its entries with it. (One thing is lost with a stamp: that a load
which is still under way began before it.) Stamps are microseconds on the server's
clock, never the same one before and after an invalidation, even if the clock stands
still.

A lease is a key beside the record's. It holds the stamp, and the token of its holder.
"""

from __future__ import annotations

import asyncio
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tta_primitives.arguments import check_count
from tta_primitives.performance.records import Record, UnreadableRecord
from tta_primitives.performance.redis_records import (
    MAGIC,
    Encoded,
    decoded,
    encoded,
    wall_now,
)
from tta_primitives.redis_link import PACKED, Lookup, Script, link_to

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from redis.asyncio import Redis

__all__ = ["RedisStorage"]

MAX_RECORD_BYTES = 1 << 20
"""The usual limit of a record: a mebibyte."""

READ_BYTES = 1 << 20
"""How many bytes of records come in one answer before the rest is asked for again."""

CHUNK = 256
"""How many keys one command names, so that none keeps the server for long."""

_TAG_PREFIX = "tta:cache-tag:"
_CLOCK = "tta:cache-clock"
_LEASE_SUFFIX = ":lease"
_NO_STAMP = b"0" * 16
_NO_TEXT, _TOO_LONG = -1, -2
# Longer than any load that should still find that its tag was invalidated.
_TAG_MILLISECONDS = 3_600_000
_CLOCK_MILLISECONDS = 86_400_000

_NUMBER = """
local function number(key)
  local text = redis.pcall('GET', key)
  local value = type(text) == 'string' and tonumber(text)
  -- Above 2^53 numbers are not told apart, and no stamp is there for centuries.
  return value and value >= 0 and value < 9007199254740992 and value or nil
end
local function digits(stamp)
  return string.format('%016.0f', stamp)
end
"""

_NOW = (
    _NUMBER
    + """
local function now(clock)
  local time = redis.call('TIME')
  return math.max(time[1] * 1000000 + time[2], number(clock) or 0)
end
"""
)

_READ = Script(
    _NUMBER
    + PACKED
    + """
-- KEYS: records. ARGV: the limit of one in bytes, what keys of tags begin with, and
-- the limit of all. Of each the record, false if it is none, -1 if it is no text, -2 if
-- it is too long, -3 if it is to be asked for again.
local limit, prefix, room = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local get, byte = redis.pcall, string.byte
local function counts(record)
  if byte(record, 41) == 0 or string.sub(record, 1, 4) ~= 'tta1' then return true end
  local at, stamp = 42, tonumber(string.sub(record, 5, 20)) or 0
  for _ = 1, string.byte(record, 41) or 0 do
    local length = string.byte(record, at)
    if not length then return true end
    local seen = number(prefix .. string.sub(record, at + 1, at + length))
    if not seen or seen > stamp then return false end
    at = at + 1 + length
  end
  return true
end
local answers = {}
for i, key in ipairs(KEYS) do
  local record = room > 0 and get('GETRANGE', key, 0, limit)
  if not record then
    answers[i] = -3
  elseif type(record) ~= 'string' then
    answers[i] = -1
  elseif #record > limit then
    answers[i] = -2
  else
    answers[i] = #record > 0 and counts(record) and record
    room = room - #record
  end
end
return packed(answers)
"""
)

_WRITE = Script(
    _NOW
    + """
-- KEYS: the record, its lease, the clock. ARGV: the token or nothing, what follows the
-- stamp, the milliseconds, what keys of tags begin with, and the tags.
-- 1 if the record was kept.
local record, lease, clock = KEYS[1], KEYS[2], KEYS[3]
local token, body, life, prefix = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local stamp = now(clock)
if token ~= '' then
  local held = redis.pcall('GET', lease)
  if type(held) ~= 'string' or string.sub(held, 17) ~= token then return 0 end
  stamp = tonumber(string.sub(held, 1, 16)) or 0
  redis.call('UNLINK', lease)
end
for i = 5, #ARGV do
  if (number(prefix .. ARGV[i]) or 0) > stamp then return 0 end
end
for i = 5, #ARGV do
  local tag = prefix .. ARGV[i]
  if not number(tag) then
    redis.call('SET', tag, digits(stamp), 'PX', life + 1000)
    redis.call('SET', clock, digits(now(clock)), 'PX', 86400000)
  elseif redis.call('PTTL', tag) < life + 1000 then
    redis.call('PEXPIRE', tag, life + 1000)
  end
end
redis.call('SET', record, 'tta1' .. digits(stamp) .. body, 'PX', life)
return 1
"""
)

_VOID_TAGS = Script(
    _NOW
    + """
-- KEYS: the clock. ARGV: the milliseconds of the clock and of a tag, what keys of tags
-- begin with, and the tags.
local stamp = digits(now(KEYS[1]) + 1)
redis.call('SET', KEYS[1], stamp, 'PX', ARGV[1])
for i = 4, #ARGV do
  local tag = ARGV[3] .. ARGV[i]
  local left = math.max(redis.call('PTTL', tag), tonumber(ARGV[2]))
  redis.call('SET', tag, stamp, 'PX', left)
end
return stamp
"""
)

_ACQUIRE = Script(
    _NOW
    + """
-- KEYS: the lease, the clock. ARGV: the token, the milliseconds. 1 if it was taken.
local value = digits(now(KEYS[2])) .. ARGV[1]
if redis.call('SET', KEYS[1], value, 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
-- No lease of ours is without an end: somebody else has left something there.
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
return 1
"""
)

_HELD = """
local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' or string.sub(held, 17) ~= ARGV[1] then return 0 end
"""
_RENEW = Script(_HELD + "return redis.call('PEXPIRE', KEYS[1], ARGV[2])")
_RELEASE = Script(_HELD + "return redis.call('UNLINK', KEYS[1])")


@lru_cache(maxsize=16)
def _lookup(limit: int, *, reads_tags: bool) -> Lookup:
    """Return how records are read: the same for all storages with that limit."""

    def alone(key: str) -> tuple[Any, ...]:
        return ("GETRANGE", key, 0, limit)

    arguments = (limit, _TAG_PREFIX, READ_BYTES)
    return Lookup(_READ, arguments, None if reads_tags else alone)


class RedisStorage:
    """Keep entries in a Redis, for all processes that use it.

    `CachePrimitive(..., storage=client)` makes one of these; make your own to say more.
    What is asked in one iteration of the event loop travels in one round trip, every
    command may take 200 ms, and every key expires. What cannot be read is no record.

    Args:
        client: A `redis.asyncio.Redis`, which stays yours to close.
        max_record_bytes: The length of the longest record that is written, and that is
            read, whoever has written it.

    Raises:
        TypeError: The client is something else, such as a blocking one.
        ValueError: `max_record_bytes` is not a whole number of at least 1024.
    """

    def __init__(
        self, client: Redis, *, max_record_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        self._link = link_to("storage", client)
        self.max_record_bytes: int = check_count(
            "max_record_bytes", max_record_bytes, minimum=1024
        )
        # A script must read where there are tags, and costs more where there are none.
        self._lookup = _lookup(self.max_record_bytes, reads_tags=False)

    def __repr__(self) -> str:
        return f"<RedisStorage max_record_bytes={self.max_record_bytes}>"

    async def get_many(
        self, keys: Sequence[str], /
    ) -> list[Record | UnreadableRecord | None]:
        """Return the record of each key, in that order; None where there is none."""
        if len(keys) == 1:
            return [await self._get(keys[0])]
        return list(await asyncio.gather(*map(self._get, keys)))

    async def _get(self, key: str) -> Record | UnreadableRecord | None:
        lookup = self._lookup
        try:
            data = await self._link.look_up(lookup, key)
        except Exception as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            data = _NO_TEXT
        if type(data) is not bytes or not data:
            return self._reason(data)
        if len(data) > self.max_record_bytes:
            return self._reason(_TOO_LONG)
        record = decoded(data, wall_now())
        if type(record) is Record and record.tags and lookup.alone is not None:
            # Not by the script, so nobody has looked whether the tags still count.
            self._expect_tags()
            return await self._get(key)
        return record

    def _reason(self, answer: object) -> UnreadableRecord | None:
        if answer == _NO_TEXT:
            return UnreadableRecord("it is no text")
        if answer == _TOO_LONG:
            return UnreadableRecord(f"it is longer than {self.max_record_bytes} bytes")
        return None

    def _expect_tags(self) -> None:
        self._lookup = _lookup(self.max_record_bytes, reads_tags=True)

    async def set_many(self, records: Mapping[str, Record], /) -> None:
        """Keep these records, in place of older ones with the same keys.

        Raises:
            ValueError: A record is too long, or has tags that are; none is written.
        """
        # All are made before the first is sent.
        forms = {key: self._encoded(record) for key, record in records.items()}
        writes = [
            self._write(key, form, records[key].tags, "") for key, form in forms.items()
        ]
        if len(writes) == 1:
            await writes[0]
        else:
            await asyncio.gather(*writes)

    def _encoded(self, record: Record) -> Encoded:
        form = encoded(record, wall_now())
        length = len(MAGIC) + len(_NO_STAMP) + len(form.body)
        if length > self.max_record_bytes:
            msg = (
                f"a record of {length} bytes is longer than "
                f"max_record_bytes={self.max_record_bytes}"
            )
            raise ValueError(msg)
        return form

    def _write(
        self, key: str, form: Encoded, tags: tuple[str, ...], token: str
    ) -> Coroutine[Any, Any, Any]:
        """Return what writes a record, and ends a lease if there is one."""
        if not tags and not token:
            data = MAGIC + _NO_STAMP + form.body
            return self._link.command("SET", key, data, "PX", form.milliseconds)
        if tags:
            self._expect_tags()
        keys = [key, key + _LEASE_SUFFIX, _CLOCK]
        arguments: list[Any] = [token, form.body, form.milliseconds, _TAG_PREFIX]
        return self._link.run(_WRITE, keys, [*arguments, *map(_tag_bytes, tags)])

    async def delete(self, keys: Sequence[str], /) -> None:
        """Forget these keys, and let nobody keep what is being loaded for them."""
        await self._unlink(
            [name for key in keys for name in (key, key + _LEASE_SUFFIX)]
        )

    async def delete_tagged(self, tags: Sequence[str], /) -> None:
        """Forget every record that has one of these tags.

        What has such a tag and is being loaded under a lease is not kept either.
        """
        fixed: list[Any] = [_CLOCK_MILLISECONDS, _TAG_MILLISECONDS, _TAG_PREFIX]
        for some in _chunks([_tag_bytes(tag) for tag in tags]):
            await self._link.run(_VOID_TAGS, [_CLOCK], [*fixed, *some])

    async def clear(self, prefix: str, /) -> None:
        """Forget every key that begins with this prefix.

        The whole Redis is walked through, twice and in small steps: first leases are
        ended, so that nothing old is written behind the second walk.
        """
        pattern = re.sub(r"([\\*?\[\]^-])", r"\\\1", prefix) + "*"
        for which in (pattern + _LEASE_SUFFIX, pattern):
            cursor = 0
            while True:
                answer = await self._link.command(
                    "SCAN", cursor, "MATCH", which, "COUNT", CHUNK
                )
                cursor = int(answer[0])
                await self._unlink(answer[1])
                if not cursor:
                    break

    async def _unlink(self, keys: Sequence[bytes | str]) -> None:
        for some in _chunks(keys):
            await self._link.command("UNLINK", *some)

    async def acquire(self, key: str, token: str, seconds: float, /) -> bool:
        """Take the lease of a key, unless somebody has it."""
        keys = [key + _LEASE_SUFFIX, _CLOCK]
        return bool(await self._link.run(_ACQUIRE, keys, [token, _ms(seconds)]))

    async def renew(self, key: str, token: str, seconds: float, /) -> bool:
        """Keep the lease for that long from now; False if it is no longer held."""
        keys = [key + _LEASE_SUFFIX]
        return bool(await self._link.run(_RENEW, keys, [token, _ms(seconds)]))

    async def release(self, key: str, token: str, /) -> None:
        """Give the lease back, if it is still held."""
        await self._link.run(_RELEASE, [key + _LEASE_SUFFIX], [token])

    async def set_leased(self, key: str, record: Record, token: str, /) -> bool:
        """Keep a record and give the lease back; False if it is no longer held."""
        written = self._write(key, self._encoded(record), record.tags, token)
        return bool(await written)


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _tag_bytes(tag: str) -> bytes:
    return tag.encode("utf-8", "surrogatepass")


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(items), CHUNK):
        yield items[at : at + CHUNK]
