"""The Lua scripts, each one atomic step in Redis, and the keys they use.

All keys begin with the prefix in braces, so that a cluster keeps them together. ``ARGV[1]`` is always that prefix.

========================  ==========================================================================================
``call:ID``               a hash: the context as it was registered (``body``, JSON), and each field that changed since
``pending``               sorted set: contextIds by ``expires_at``
``created``               sorted set: *members* by ``created_at``; a member is the number of its registration and the id
``status:STATUS``         the same, of one status
``ended``                 sorted set: contextIds by ``ended_at``
``lease:OWNER``           exists while that process is alive; expires by Redis' own clock
``owners``                set: processes that may have one of the following
``gone``                  set: those of them whose lease was ended explicitly
``claims:OWNER``          set: contextIds whose media that process has
``follows:OWNER``         set: contextIds of outbound calls that it follows
``notices:OWNER``         sorted set: its notices by their numbers
``orders:OWNER``          list: orders for it, as JSON
``key:NAME``              sorted set: contextIds that an API key registered and that are not over; pending ones by
                          ``expires_at``
``journal:ID``            list: the entries of a call's journal, as JSON; their bytes are the call's ``journal_bytes``
``journals``              sorted set: contextIds by the time of their newest entry
``seq``, ``notice``       counters
========================  ==========================================================================================
"""

from __future__ import annotations

from rapida_twisted.store.journal import MAX_BYTES, MAX_ENTRIES
from rapida_twisted.store.orders import LONGEST_QUEUE, ORDER_S
from rapida_twisted.store.redis_client import Script

__all__ = [
    "ADD", "ADD_ENTRY", "ADOPT", "BATCH", "CLAIM", "END_LEASE", "FINISH", "FOLLOW", "FORGET", "FORGET_JOURNALS",
    "MOVE_ON", "ORDER", "ORDERS", "RECENT", "RENEW", "SWEEP",
]  # fmt: skip

BATCH = 500
"""Contexts that one step changes at most: Redis serves nobody else meanwhile."""

_COMMON = """
local P = ARGV[1]
local function call_key(id) return P .. 'call:' .. id end
local function in_hand(status, reason)
    return status == 'claimed' or (status == 'failed' and reason == 'server_lost')
end
local function to_status(member, created_at, from, to)
    if from == to then return end
    redis.call('ZREM', P .. 'status:' .. from, member)
    redis.call('ZADD', P .. 'status:' .. to, created_at, member)
    local id = string.sub(member, 18)
    local key_name = redis.call('HGET', call_key(id), 'key')
    if not key_name or key_name == '' then return end
    if to == 'claimed' then
        redis.call('ZADD', P .. 'key:' .. key_name, '+inf', id)
    else
        redis.call('ZREM', P .. 'key:' .. key_name, id)
    end
end
local function is_gone(owner, presume)
    if redis.call('SISMEMBER', P .. 'gone', owner) == 1 then return true end
    return presume == '1' and redis.call('EXISTS', P .. 'lease:' .. owner) == 0
end
"""


def _script(text: str) -> Script:
    return Script(_COMMON + text)


ADD = _script("""
local id, created_at, expires_at, most, follower = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local key_name = ARGV[7]
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
local waiting = redis.call('ZCOUNT', P .. 'pending', '(' .. created_at, '+inf')
if waiting >= most then return waiting end
local member = string.format('%016d:%s', redis.call('INCR', P .. 'seq'), id)
redis.call('HSET', KEYS[1], 'member', member, 'v', '0', 'key', key_name, unpack(ARGV, 8))
if key_name ~= '' then redis.call('ZADD', P .. 'key:' .. key_name, expires_at, id) end
redis.call('ZADD', P .. 'pending', expires_at, id)
redis.call('ZADD', P .. 'created', created_at, member)
redis.call('ZADD', P .. 'status:pending', created_at, member)
if follower ~= '-' then
    redis.call('SADD', P .. 'owners', follower)
    redis.call('SADD', P .. 'follows:' .. follower, id)
end
return -2
""")

CLAIM = _script("""
local id, now, owner = ARGV[2], ARGV[3], ARGV[4]
local f = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'member', 'created_at', 'peer')
if not f[1] then return 'unknown' end
if f[1] == 'expired' or (f[1] == 'pending' and tonumber(f[2]) <= tonumber(now)) then return 'expired' end
if f[1] ~= 'pending' then return 'claimed ' .. (f[5] or '') end
redis.call('HSET', KEYS[1], 'owner', owner, unpack(ARGV, 5))
redis.call('HINCRBY', KEYS[1], 'v', 1)
redis.call('ZREM', P .. 'pending', id)
to_status(f[3], f[4], 'pending', 'claimed')
if owner ~= '' then
    redis.call('SADD', P .. 'owners', owner)
    redis.call('SADD', P .. 'claims:' .. owner, id)
end
return redis.call('HGETALL', KEYS[1])
""")

FINISH = _script("""
local id, reason, now, status = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local f = redis.call('HMGET', KEYS[1], 'status', 'reason', 'ended_at', 'owner', 'member', 'created_at')
if not f[1] then return 'unknown' end
if in_hand(f[1], f[2]) then
    redis.call('HSET', KEYS[1], unpack(ARGV, 6))
    redis.call('HINCRBY', KEYS[1], 'v', 1)
    to_status(f[5], f[6], f[1], status)
    redis.call('ZADD', P .. 'ended', now, id)
    redis.call('SREM', P .. 'claims:' .. (f[4] or ''), id)
elseif f[2] ~= reason or f[3] ~= now then
    return f[1]
end
return redis.call('HGETALL', KEYS[1])
""")

MOVE_ON = _script("""
local f = redis.call('HMGET', KEYS[1], 'status', 'reason')
if not f[1] then return 'unknown' end
if not in_hand(f[1], f[2]) then return f[1] end
redis.call('HSET', KEYS[1], 'next_dial', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'v', 1)
return redis.call('HGETALL', KEYS[1])
""")

# The caller computes the change from what it read; the script applies it only if the version is still the same.
FOLLOW = _script("""
local id, v, over, status, ended_at, owner, notice = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local f = redis.call('HMGET', KEYS[1], 'v', 'status', 'member', 'created_at', 'follower')
if f[1] ~= v then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 9))
redis.call('HINCRBY', KEYS[1], 'v', 1)
if status ~= f[2] then
    redis.call('ZREM', P .. 'pending', id)
    redis.call('ZADD', P .. 'ended', ended_at, id)
    to_status(f[3], f[4], f[2], status)
end
if over == '1' then redis.call('SREM', P .. 'follows:' .. (f[5] or ''), id) end
if notice ~= '' then
    local number = redis.call('INCR', P .. 'notice')
    redis.call('SADD', P .. 'owners', owner)
    redis.call('ZADD', P .. 'notices:' .. owner, number, string.format('%d', number) .. ' ' .. notice)
end
return 1
""")

RECENT = _script("""
local found = {}
for _, member in ipairs(redis.call('ZREVRANGE', P .. ARGV[2], ARGV[3], ARGV[4])) do
    found[#found + 1] = redis.call('HGETALL', call_key(string.sub(member, 18)))
end
return found
""")

SWEEP = _script("""
local now, most, presume, expired, lost = ARGV[2], tonumber(ARGV[3]), ARGV[4], 0, 0
local function over(id, status, reason)
    local key = call_key(id)
    local f = redis.call('HMGET', key, 'status', 'member', 'created_at')
    if not f[1] or (f[1] ~= 'pending' and f[1] ~= 'claimed') then return 0 end
    redis.call('HSET', key, 'status', status, 'reason', reason, 'ended_at', now)
    redis.call('HINCRBY', key, 'v', 1)
    redis.call('ZADD', P .. 'ended', now, id)
    to_status(f[2], f[3], f[1], status)
    return 1
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'pending', '-inf', now, 'LIMIT', 0, most)) do
    redis.call('ZREM', P .. 'pending', id)
    expired = expired + over(id, 'expired', 'expired')
end
for _, owner in ipairs(redis.call('SMEMBERS', P .. 'owners')) do
    if expired + lost < most and is_gone(owner, presume) then
        for _, id in ipairs(redis.call('SPOP', P .. 'claims:' .. owner, most - expired - lost)) do
            lost = lost + over(id, 'failed', 'server_lost')
        end
        if redis.call('EXISTS', P .. 'claims:' .. owner, P .. 'follows:' .. owner, P .. 'notices:' .. owner) == 0 then
            redis.call('SREM', P .. 'owners', owner)
            redis.call('SREM', P .. 'gone', owner)
        end
    end
end
return {expired, lost}
""")

FORGET = _script("""
local ids = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', '(' .. ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(ids) do
    local key = call_key(id)
    local f = redis.call('HMGET', key, 'member', 'status', 'follower')
    if f[1] then
        redis.call('ZREM', P .. 'created', f[1])
        redis.call('ZREM', P .. 'status:' .. f[2], f[1])
        redis.call('SREM', P .. 'follows:' .. (f[3] or ''), id)
    end
    redis.call('ZREM', P .. 'ended', id)
    redis.call('ZREM', P .. 'journals', id)
    redis.call('UNLINK', key, P .. 'journal:' .. id)
end
return #ids
""")

ADD_ENTRY = _script(f"""
local id, at, size, entry = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local key = P .. 'journal:' .. id
local bytes = tonumber(redis.call('HGET', KEYS[1], 'journal_bytes') or '0')
if redis.call('LLEN', key) >= {MAX_ENTRIES} or bytes + size > {MAX_BYTES} then return 0 end
redis.call('HINCRBY', KEYS[1], 'journal_bytes', size)
redis.call('ZADD', P .. 'journals', at, id)
return redis.call('RPUSH', key, entry)
""")

FORGET_JOURNALS = _script("""
local ids = redis.call('ZRANGEBYSCORE', P .. 'journals', '-inf', '(' .. ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(ids) do
    redis.call('ZREM', P .. 'journals', id)
    redis.call('HDEL', call_key(id), 'journal_bytes')
    redis.call('UNLINK', P .. 'journal:' .. id)
end
return #ids
""")

ADOPT = _script("""
local me, most, presume, notices, calls = ARGV[2], tonumber(ARGV[3]), ARGV[4], 0, {}
for _, owner in ipairs(redis.call('SMEMBERS', P .. 'owners')) do
    if owner == '' and me == '' then
        for _, id in ipairs(redis.call('SMEMBERS', P .. 'follows:')) do
            calls[#calls + 1] = redis.call('HGETALL', call_key(id))
        end
    elseif owner ~= me and (owner == '' or is_gone(owner, presume)) then
        for _, id in ipairs(redis.call('SPOP', P .. 'follows:' .. owner, math.max(0, most - #calls))) do
            redis.call('SADD', P .. 'owners', me)
            redis.call('SADD', P .. 'follows:' .. me, id)
            redis.call('HSET', call_key(id), 'follower', me)
            redis.call('HINCRBY', call_key(id), 'v', 1)
            calls[#calls + 1] = redis.call('HGETALL', call_key(id))
        end
        local moved = redis.call('ZPOPMIN', P .. 'notices:' .. owner, math.max(0, most - notices))
        for i = 1, #moved, 2 do
            redis.call('SADD', P .. 'owners', me)
            redis.call('ZADD', P .. 'notices:' .. me, moved[i + 1], moved[i])
            notices = notices + 1
        end
    end
end
return {notices, calls}
""")

RENEW = _script("""
redis.call('SREM', P .. 'gone', ARGV[2])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[3])
return 1
""")

END_LEASE = _script("""
redis.call('DEL', KEYS[1])
if redis.call('SISMEMBER', P .. 'owners', ARGV[2]) == 1 then redis.call('SADD', P .. 'gone', ARGV[2]) end
return 1
""")

ORDER = _script(f"""
if redis.call('LLEN', KEYS[1]) >= {LONGEST_QUEUE} then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], {int(ORDER_S)})
return 1
""")

ORDERS = _script("""
local found = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return found
""")
