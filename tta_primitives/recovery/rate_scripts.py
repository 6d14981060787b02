"""What Redis does with a rate limit that processes share, each in one step.

The clock is the server's, in microseconds. A call *reserves* its start, and later calls
of all processes come behind it. The state is one hash:

    since, spent    the bucket was full at one moment, and so many units went since
    last            the latest start that is reserved
    gate            nobody starts before: a penalty
    shift           by how much penalties have put off what was reserved
    number          of the last reservation, so that it can be given back
    floor           reservations up to this number are over and done with
    back, top       units that were given back out of turn, and the highest cost

Numbers go on from the time of the first, so that one from before a restart of the
server is none of a later call. A reservation that is given back while others stand
behind it leaves a *hole*, the field `hole:<number>`; when those behind it are given
back as well, it is as if none of them had been made. Now and then, holes that lie in
the past are forgotten.

A sliding window keeps in a second key, sorted by their start, all calls of the last
period and those that have reserved; `spent` is their units.

What cannot be read counts as absent, and so does what lies further ahead than the key
may live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tta_primitives.redis_link import Script

if TYPE_CHECKING:
    from tta_primitives.recovery.rate_algorithms import Algorithm

__all__ = ["SCRIPTS", "SHIFT", "Scripts"]


class Scripts(NamedTuple):
    """The scripts of one algorithm; all of them take rate, period and capacity first.

    Attributes:
        reserve: With the cost and the longest wait (-1 for any): returns whether the
            start is reserved, the wait, and what giving it back takes.
        give_back: With the cost, and the number, shift and start before of the
            reservation.
        penalize: With the microseconds for which nobody starts.
    """

    reserve: Script
    give_back: Script
    penalize: Script


SHIFT = Script("""
local shift = redis.pcall('HGET', KEYS[1], 'shift')
return {tonumber(shift and not shift.err and shift or 0) or 0,
        redis.call('PTTL', KEYS[1])}
""")
"""Returns by how much penalties have put off starts, and how long that may be kept."""


_STATE = """
local key, log = KEYS[1], KEYS[2]
local rate, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local capacity = tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local malformed = 0
local unpack = unpack or table.unpack
local FIELDS = {'since', 'spent', 'last', 'gate', 'shift', 'number', 'floor', 'back',
                'top'}
local MOST = 9e15

-- Lua itself would write a large number as 1.7e+15.
local function text(value)
  if value % 1 == 0 then return string.format('%.0f', value) end
  return string.format('%.17g', value)
end

local function span(units) return units * period / rate end

local function fresh()
  return {since = now, spent = 0, last = 0, gate = 0, shift = 0, number = now,
          floor = now, back = 0, top = 0}
end

FULL

local function parsed(found)
  local state = {}
  for i, name in ipairs(FIELDS) do
    local value = found[i] and tonumber(found[i])
    if not (value and value >= 0 and value < MOST) then return nil end
    state[name] = value
  end
  local lives_until = now + redis.call('PTTL', key) * 1000 + 1000
  if math.max(full(state), state.last, state.gate) > lives_until then return nil end
  return state
end

local function forget()
  redis.call('DEL', key)
  if log then redis.call('DEL', log) end
  return fresh()
end

local function read()
  local kind = log and redis.call('TYPE', log)
  kind = kind and (kind.ok or kind)
  local found = redis.pcall('HMGET', key, unpack(FIELDS))
  if not found.err and (not kind or kind == 'zset' or kind == 'none') then
    local state = parsed(found)
    if state then return state end
    if redis.call('EXISTS', key) == 0 then return forget() end
  end
  malformed = 1
  return forget()
end

local function save(state)
  local fields = {}
  for _, name in ipairs(FIELDS) do
    table.insert(fields, name)
    table.insert(fields, text(state[name]))
  end
  redis.call('HSET', key, unpack(fields))
  local used_until = math.max(full(state), state.last, state.gate)
  local ms = text(math.max(0, math.ceil((used_until - now) / 1000)) + MARGIN)
  redis.call('PEXPIRE', key, ms)
  if log then redis.call('PEXPIRE', log, ms) end
end
""".replace("MARGIN", "5000")  # A waiting call finds it although it wakes late.

_BUCKET = (
    _STATE.replace(
        "FULL",
        """
local function full(state) return state.since + span(state.spent) end
""",
    )
    + """
local function hole(number) return 'hole:' .. text(number) end

local function parts_of(value)
  local parts = {}
  for part in string.gmatch(value or '', '%S+') do
    table.insert(parts, tonumber(part))
  end
  return #parts == 4 and parts or nil
end

-- Forgets holes whose reservations were to start before a moment.
local function fill(moment)
  if redis.call('HLEN', key) <= #FIELDS then return end
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'hole:' then
      local parts = parts_of(fields[i + 1])
      if not parts or parts[3] < moment then redis.call('HDEL', key, fields[i]) end
    end
  end
end

local function settle(state, since)
  state.since, state.spent, state.back, state.top = since, 0, 0, 0
  state.floor = state.number
  fill(MOST)
end
"""
)

_RESERVE_BUCKET = (
    _BUCKET
    + """
local cost, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local state = read()
if now >= full(state) then settle(state, now) end
local inside = math.max(0, full(state) - math.max(now, state.gate)) * rate / period
-- What rounding has added is no microsecond.
local due = state.since + math.ceil(span(DUE) - 0.001)
local start = math.max(now, due, state.last, state.gate)
local wait = start - now
if (most >= 0 and wait > most) or not (ROOM) then
  return {0, wait, 0, 0, 0, malformed}
end
local before = state.last
state.spent, state.top = state.spent + cost, math.max(state.top, cost)
state.last, state.number = start, state.number + 1
if state.number % 100 == 0 then fill(now) end
save(state)
return {1, wait, state.number, state.shift, before, malformed}
"""
)

_GIVE_BACK_BUCKET = (
    _BUCKET
    + """
local cost, number = tonumber(ARGV[4]), tonumber(ARGV[5])
local shift, before = tonumber(ARGV[6]), tonumber(ARGV[7])
local state = read()
if number <= state.floor or number > state.number then return 0 end

local function undo(cost, shift, before)
  state.last = math.max(0, before + state.shift - shift)
  state.number = state.number - 1
  state.spent = math.max(0, state.spent - cost)
end

if number == state.number then
  undo(cost, shift, before)
  while state.number > state.floor do
    local name = hole(state.number)
    local parts = parts_of(redis.call('HGET', key, name))
    if not parts then break end
    redis.call('HDEL', key, name)
    undo(parts[1] - parts[4], parts[2], parts[3])
    state.back = math.max(0, state.back - parts[4])
  end
else
  -- Those behind keep their starts. So much fits in beside them; more would be lost at
  -- the brim, and must not be promised to anybody.
  local credit = 0
  if state.back + cost <= SPARE then credit = cost end
  state.spent, state.back = math.max(0, state.spent - credit), state.back + credit
  redis.call('HSET', key, hole(number),
             table.concat({text(cost), text(shift), text(before), text(credit)}, ' '))
end
save(state)
return 1
"""
)

_PENALIZE_BUCKET = (
    _BUCKET
    + """
local state = read()
local over = now + tonumber(ARGV[4])
local delay = over - math.max(now, state.gate)
if delay <= 0 then return 0 end
if now >= full(state) then
  settle(state, now)
elseif state.last > now then
  -- Who waits goes on waiting, in the same order and at the same distances.
  state.since, state.last = state.since + delay, state.last + delay
  state.shift = state.shift + delay
end
state.gate = over
local full_then = over + math.ceil(span(REST))
if full(state) < full_then then settle(state, full_then) end
save(state)
return 1
"""
)

_WINDOW = (
    _STATE.replace(
        "FULL",
        """
local function full(state)
  if state.spent == 0 then return 0 end
  return state.last + period
end
""",
    )
    + """
local function units_of(member)
  local units = tonumber(string.match(member, ':(.+)$'))
  return units and units > 0 and units < MOST and units or nil
end

-- Lets those go that have left the period; false if there is what cannot be read.
local function slide(state)
  local left = text(now - period)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', log, '-inf', left)) do
    local units = units_of(member)
    if not units then return false end
    state.spent = state.spent - units
  end
  redis.call('ZREMRANGEBYSCORE', log, '-inf', left)
  local latest = redis.call('ZRANGE', log, -1, -1, 'WITHSCORES')
  if #latest == 0 then
    state.spent, state.last = 0, 0
    return true
  end
  state.last = tonumber(latest[2])
  local lives_until = now + redis.call('PTTL', key) * 1000 + 1000
  return state.spent > 0 and state.last <= lives_until
end
"""
)

_RESERVE_WINDOW = (
    _WINDOW
    + """
local cost, most = tonumber(ARGV[4]), tonumber(ARGV[5])

-- Returns when so many units have left; nothing if there are not so many.
local function gone_at(must_go)
  local gone, first = 0, 0
  while true do
    local some = redis.call('ZRANGE', log, first, first + 99, 'WITHSCORES')
    if #some == 0 then return nil end
    for i = 1, #some, 2 do
      local units = units_of(some[i])
      if not units then return nil end
      gone = gone + units
      if gone >= must_go then return tonumber(some[i + 1]) + period end
    end
    first = first + 100
  end
end

local state = read()
local must_go, due = 0, now
if slide(state) then
  must_go = state.spent + cost - rate - 1e-9
  if must_go > 0 then due = gone_at(must_go) end
else
  due = nil
end
if not due then
  state, due, malformed = forget(), now, 1
end
local start = math.max(now, due, state.last, state.gate)
local wait = start - now
if most >= 0 and wait > most then
  save(state)
  return {0, wait, 0, 0, 0, malformed}
end
state.number, state.last = state.number + 1, start
state.spent = state.spent + cost
redis.call('ZADD', log, text(start), text(state.number) .. ':' .. text(cost))
save(state)
return {1, wait, state.number, state.shift, 0, malformed}
"""
)

_GIVE_BACK_WINDOW = (
    _WINDOW
    + """
local cost, number = tonumber(ARGV[4]), tonumber(ARGV[5])
local state = read()
if not slide(state) then
  forget()
  return 0
end
if redis.call('ZREM', log, text(number) .. ':' .. text(cost)) == 0 then return 0 end
state.spent = state.spent - cost
if slide(state) then save(state) else forget() end
return 1
"""
)

_PENALIZE_WINDOW = (
    _WINDOW
    + """
local state = read()
if not slide(state) then state = forget() end
local over = now + tonumber(ARGV[4])
local delay = over - math.max(now, state.gate)
if delay <= 0 then return 0 end
-- Who waits goes on waiting, in the same order and at the same distances.
local waiting = redis.call('ZRANGEBYSCORE', log, '(' .. text(now), '+inf', 'WITHSCORES')
for i = 1, #waiting, 2 do
  redis.call('ZADD', log, text(tonumber(waiting[i + 1]) + delay), waiting[i])
end
if #waiting > 0 then
  state.last, state.shift = state.last + delay, state.shift + delay
end
state.gate = over
save(state)
return 1
"""
)


def _of_bucket(due: str, room: str, spare: str, rest: str) -> Scripts:
    reserve = _RESERVE_BUCKET.replace("DUE", due).replace("ROOM", room)
    return Scripts(
        Script(reserve),
        Script(_GIVE_BACK_BUCKET.replace("SPARE", spare)),
        Script(_PENALIZE_BUCKET.replace("REST", rest)),
    )


SCRIPTS: Final[dict[Algorithm, Scripts]] = {
    "token_bucket": _of_bucket(
        due="state.spent + cost - capacity",
        room="true",
        spare="capacity - state.top",
        rest="math.max(0, capacity - 1)",
    ),
    "leaky_bucket": _of_bucket(
        due="state.spent",
        room="inside + cost <= capacity + 1e-9",
        spare="0",
        rest="0",
    ),
    "sliding_window": Scripts(
        Script(_RESERVE_WINDOW), Script(_GIVE_BACK_WINDOW), Script(_PENALIZE_WINDOW)
    ),
}
"""The scripts of each algorithm."""
