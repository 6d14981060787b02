"""What Redis does with the state of a breaker that processes share, each in one step.

The state is one hash: the circuit's record, the permits of probes, and counts of calls
by slices of time. Its clock is the server's, in microseconds. Whatever in it cannot be
read is thrown away and counts as absent, which is a closed circuit. No two episodes
have one number, so that a vote that comes from another is known.
"""

from __future__ import annotations

from tta_primitives.recovery.circuit_windows import SLICES
from tta_primitives.redis_link import Script

__all__ = ["ADMIT", "FREE", "REPORT", "SET"]

# What is isolated by hand stays so as long as somebody asks at least this often.
_ISOLATED_MS = 30 * 24 * 3600 * 1000

_RECORD = """
local key, keep_ms = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local malformed = 0
local STATES = {closed = 1, open = 1, half_open = 1, isolated = 1}

-- Lua itself would write a large number as 1.7e+15.
local function text(number)
  return string.format('%.0f', number)
end

-- What we have written is whole, and small enough to be exact.
local function whole(value)
  local number = value and tonumber(value)
  if number and number >= 0 and number < 9e15 and number % 1 == 0 then
    return number
  end
  return nil
end

local function fresh()
  return {state = 'closed', episode = 0, openings = 0, failures = 0, successes = 0,
          permits = 0, ends = 0, pause = 0, is_new = true}
end

local function read()
  local found = redis.pcall('HMGET', key, 'state', 'episode', 'openings', 'failures',
                            'successes', 'permits', 'ends', 'pause')
  if not found.err and not found[1] and redis.call('EXISTS', key) == 0 then
    return fresh()
  end
  if not found.err and found[1] and STATES[found[1]] then
    local circuit = {state = found[1], episode = whole(found[2]),
                     openings = whole(found[3]), failures = whole(found[4]),
                     successes = whole(found[5]), permits = whole(found[6]),
                     ends = whole(found[7]), pause = whole(found[8])}
    if circuit.episode and circuit.openings and circuit.failures
        and circuit.successes and circuit.permits and circuit.ends
        and circuit.pause then
      return circuit
    end
  end
  redis.call('DEL', key)
  malformed = 1
  return fresh()
end

local function save(circuit)
  redis.call('HSET', key, 'state', circuit.state, 'episode', text(circuit.episode),
             'openings', text(circuit.openings), 'failures', text(circuit.failures),
             'successes', text(circuit.successes), 'permits', text(circuit.permits),
             'ends', text(circuit.ends), 'pause', text(circuit.pause))
  local ms = keep_ms
  if circuit.state == 'isolated' then ms = ISOLATED_MS end
  redis.call('PEXPIRE', key, text(math.max(ms, math.ceil(circuit.pause / 500))))
end

local function begin(circuit, state)
  circuit.state = state
  circuit.episode = math.max(circuit.episode + 1, now)
  circuit.failures, circuit.successes, circuit.permits = 0, 0, 0
  redis.call('DEL', key)
  save(circuit)
end

local function answer(circuit, is_admitted, permit, reason)
  local left = 0
  if circuit.state == 'open' then left = math.max(0, circuit.ends - now) end
  return {is_admitted, circuit.state, circuit.episode, left, circuit.pause,
          circuit.openings, circuit.failures, permit, reason, now, malformed}
end
""".replace("ISOLATED_MS", str(_ISOLATED_MS))

ADMIT = Script(
    _RECORD
    + """
local most, timeout = tonumber(ARGV[2]), tonumber(ARGV[3])
local circuit = read()
local reason = ''

if circuit.state == 'closed' then return answer(circuit, 1, 0, reason) end
if circuit.state == 'isolated' then
  if redis.call('PTTL', key) < ISOLATED_MS / 2 then save(circuit) end
  return answer(circuit, 0, 0, reason)
end
if circuit.state == 'open' then
  if circuit.ends > now + circuit.pause then
    -- The server's clock has been set back since.
    circuit.ends = now + circuit.pause
    save(circuit)
  end
  if circuit.ends > now then return answer(circuit, 0, 0, reason) end
  begin(circuit, 'half_open')
  reason = 'recovery_timeout'
end

if timeout == 0 then timeout = circuit.pause end
local held, hanging = 0, nil
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local permit = whole(string.match(fields[i], '^probe:(%d+)$'))
  if permit then
    held = held + 1
    local ends = whole(fields[i + 1])
    local is_over = not ends or ends <= now or ends > now + timeout
    if is_over and (not hanging or permit < hanging) then hanging = permit end
  end
end
if held >= most then
  if not hanging then return answer(circuit, 0, 0, reason) end
  redis.call('HDEL', key, 'probe:' .. text(hanging))
end
circuit.permits = circuit.permits + 1
redis.call('HSET', key, 'probe:' .. text(circuit.permits), text(now + timeout))
save(circuit)
return answer(circuit, 1, circuit.permits, reason)
""".replace("ISOLATED_MS", str(_ISOLATED_MS))
)
"""Admit a call, as a probe if the break is over.

Args: milliseconds to keep the state, probes at a time, microseconds for a probe (0 for
the length of the break).
"""

REPORT = Script(
    _RECORD
    + """
local episode, permit = ARGV[2], ARGV[3]
local failed, slow = ARGV[4] == '1', ARGV[5] == '1'
local threshold, needed = tonumber(ARGV[7]), tonumber(ARGV[8])
local slice, minimum = tonumber(ARGV[9]), tonumber(ARGV[10])
local failure_rate, slow_rate = tonumber(ARGV[11]), tonumber(ARGV[12])
local circuit = read()
local this = slice > 0 and math.floor(now / slice) or 0

local function open(reason)
  circuit.openings = circuit.openings + 1
  circuit.pause = tonumber(ARGV[6])
  circuit.ends = now + circuit.pause
  begin(circuit, 'open')
  return answer(circuit, 0, 0, reason)
end

local function count(what)
  local field = what .. ':' .. text(this)
  local total = redis.pcall('HINCRBY', key, field, 1)
  if type(total) == 'number' then return total end
  redis.call('HSET', key, field, '1')
  malformed = 1
  return 1
end

local function sum(what)
  local total = 0
  for i = this - SLICES + 1, this do
    total = total + (whole(redis.call('HGET', key, what .. ':' .. text(i))) or 0)
  end
  return total
end

local function forget()
  local fields = redis.call('HKEYS', key)
  for _, field in ipairs(fields) do
    local number = whole(string.match(field, '^%a+:(%d+)$'))
    if number and (number <= this - SLICES or number > this) then
      redis.call('HDEL', key, field)
    end
  end
end

if text(circuit.episode) ~= episode then return answer(circuit, 0, 0, '') end

if circuit.state == 'half_open' then
  if redis.call('HDEL', key, 'probe:' .. permit) == 0 then
    return answer(circuit, 0, 0, '')
  end
  if failed or slow then return open('probe_failed') end
  circuit.successes = circuit.successes + 1
  if circuit.successes < needed then
    save(circuit)
    return answer(circuit, 0, 0, '')
  end
  circuit.openings, circuit.pause, circuit.ends = 0, 0, 0
  begin(circuit, 'closed')
  return answer(circuit, 0, 0, 'probes_succeeded')
end

local in_a_row = 0
if failed and threshold > 0 then in_a_row = circuit.failures + 1 end
local must_save = in_a_row ~= circuit.failures
circuit.failures = in_a_row
if slice > 0 then
  if count('calls') == 1 then
    forget()
    must_save = true
  end
  if failed then count('failures') end
  if slow then count('slow') end
end
if must_save then save(circuit) end
if failed or slow then
  if threshold > 0 and in_a_row >= threshold then return open('failures') end
  local calls = slice > 0 and sum('calls') or 0
  if calls >= minimum and failure_rate > 0
      and sum('failures') / calls >= failure_rate then
    return open('failure_rate')
  end
  if calls >= minimum and slow_rate > 0 and sum('slow') / calls >= slow_rate then
    return open('slow_call_rate')
  end
end
return answer(circuit, 0, 0, '')
""".replace("SLICES", str(SLICES))
)
"""Count a call that has ended, if it still has a vote, and draw the consequence.

Args: milliseconds to keep the state, episode, permit (0 for none), failed, slow (1 or
0), microseconds of the break if this opens it, failures in a row that open (0 for
none), probes that close, microseconds of a slice (0 for no window), least number of
calls, failure rate, rate of slow calls (0 for none).
"""

FREE = Script(
    _RECORD
    + """
local circuit = read()
if circuit.state == 'half_open' and text(circuit.episode) == ARGV[2] then
  redis.call('HDEL', key, 'probe:' .. ARGV[3])
end
return answer(circuit, 0, 0, '')
"""
)
"""Make room for another probe: this one ends without a vote.

Args: milliseconds to keep the state, episode, permit.
"""

SET = Script(
    _RECORD
    + """
local circuit = read()
if circuit.state ~= 'isolated' or ARGV[2] ~= 'isolated' then
  circuit.openings, circuit.pause, circuit.ends = 0, 0, 0
  begin(circuit, ARGV[2])
end
return answer(circuit, 0, 0, 'by_hand')
"""
)
"""Change the state by hand.

Args: milliseconds to keep the state, the state.
"""
