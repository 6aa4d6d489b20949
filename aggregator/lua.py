"""Lua run inside Redis, where reading and changing must be one step.

Promise: nothing here deletes an entry that a group has not acknowledged; leases are kept, commits noted and databases
named also while Redis is out of memory, for only acknowledged entries can be trimmed. A script's SET is refused then,
unless the script has written before: hence a write first that takes no memory.
"""

from typing import Final

_COMPARE: Final = """
local function parts(id)
    local ms, seq = string.match(id, '^(%d+)%-?(%d*)$')
    if seq == '' then seq = '0' end
    return ms, seq
end
local function less_number(a, b)
    if #a ~= #b then return #a < #b end
    return a < b
end
local function less(x, y)
    local xm, xs = parts(x)
    local ym, ys = parts(y)
    if xm ~= ym then return less_number(xm, ym) end
    return less_number(xs, ys)
end
"""

TRIM: Final = (
    _COMPARE
    + """
-- KEYS[1] stream; ARGV: oldest id to keep for replay, byte cap, first id that a standby may lack.
-- Returns {entries trimmed, bytes now, 1 if the cap cut the replay window, first id that a group needs}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0, 0, '0-0'} end
local bound = nil
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    local first = group['last-delivered-id']
    if group['pending'] > 0 then
        first = redis.call('XPENDING', KEYS[1], group['name'])[2]
    end
    if bound == nil or less(first, bound) then bound = first end
end
if bound == nil then return {0, redis.call('MEMORY', 'USAGE', KEYS[1]), 0, '0-0'} end
local last = bound
if less(ARGV[3], last) then last = ARGV[3] end
local keep = ARGV[1]
if less(last, keep) then keep = last end
local trimmed = redis.call('XTRIM', KEYS[1], 'MINID', keep)
local bytes = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
local cut = 0
if bytes > tonumber(ARGV[2]) and less(keep, last) then
    trimmed = trimmed + redis.call('XTRIM', KEYS[1], 'MINID', last)
    bytes = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
    cut = 1
end
return {trimmed, bytes, cut, bound}
"""
)

WEIGH: Final = """
-- KEYS[1] stream; ARGV: group, first id, most entries, consumer or nothing, least idle ms, most bytes.
-- Returns how many pending entries from there on hold together at most so many bytes; the first one counts in any case.
local filter = {'XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[5], ARGV[2], '+', ARGV[3]}
if ARGV[4] ~= '' then filter[#filter + 1] = ARGV[4] end
local pending = redis.pcall(unpack(filter))
if pending.err then return 1 end
local bytes, count = 0, 0
for _, one in ipairs(pending) do
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], one[1], one[1])) do
        for _, text in ipairs(entry[2]) do bytes = bytes + #text end
    end
    if count > 0 and bytes > tonumber(ARGV[6]) then break end
    count = count + 1
end
return math.max(count, 1)
"""

RENEW: Final = """
-- KEYS[1] lease; ARGV: consumer, lifetime ms. Takes or keeps the lease; returns 1 if it is ours. One that has longer to
-- live than a lease may was taken before the clock was set back: its owner is judged by when it would have renewed it.
local owner = redis.call('GET', KEYS[1])
local left = redis.pcall('PTTL', KEYS[1])
local is_of_time = type(left) ~= 'number' or left <= tonumber(ARGV[2])
if owner and owner ~= ARGV[1] and is_of_time then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

BEAT: Final = """
-- KEYS[1] consumers by the time of their last beat; ARGV: consumer, now, lifetime ms. Returns how many there are: those
-- heard of within a lifetime, before now or, where the clock was set back, after it.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', ARGV[2] + ARGV[3]), '+inf')
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return redis.call('ZCARD', KEYS[1])
"""

HOLD_BACK: Final = """
-- KEYS[1] flag; ARGV: lifetime ms. Also, and above all, where memory is short.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
"""

RELEASE: Final = """
-- KEYS[1] lease; ARGV: consumer.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

RAISE: Final = """
-- KEYS: number, whose it is; ARGV: number, who says so. Keeps the larger: aggregators tell of their commits in any
-- order. Returns 0 where it is another's: commits to this database are no longer, or not yet, to be acknowledged.
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[2] then return 0 end
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) <= known then return 1 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

PUT: Final = """
-- KEYS[1] text; ARGV: text.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

RAISE_FIELDS: Final = """
-- KEYS[1] hash of numbers; ARGV: field, number, and so on. Keeps the larger ones.
local all = {}
local function raise(flat)
    for i = 1, #flat, 2 do
        if not all[flat[i]] or tonumber(flat[i + 1]) > tonumber(all[flat[i]]) then all[flat[i]] = flat[i + 1] end
    end
end
raise(redis.call('HGETALL', KEYS[1]))
raise(ARGV)
redis.call('DEL', KEYS[1])
for field, number in pairs(all) do redis.call('HSET', KEYS[1], field, number) end
return 1
"""

CLAIM: Final = """
-- KEYS[1] database; ARGV: system identifier, timeline. Puts ours, unless a newer timeline of it is there; returns whose
-- it is.
local ours = ARGV[1] .. '/' .. ARGV[2]
local owner = redis.call('GET', KEYS[1])
if owner then
    local system, timeline = string.match(owner, '^(.*)/(%d+)$')
    if system == ARGV[1] and tonumber(timeline) > tonumber(ARGV[2]) then return owner end
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ours)
return ours
"""

DROP_IDLE_CONSUMERS: Final = """
-- KEYS[1] stream; ARGV: group, idle ms. Deleting a consumer deletes its pending list, so check and delete are one.
local dropped = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    if consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[2]) then
        dropped = dropped + 1
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    end
end
return dropped
"""
