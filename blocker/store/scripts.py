"""The store's Lua scripts: each is one atomic step, small, and may run twice with the effect of once.

All keys come through KEYS, as Redis Cluster needs; nothing newer than Redis 6.2 is used (which replicates a script's
effects, so reading TIME before writing is sound).
"""

from __future__ import annotations

from blocker.store.connection import Script

# Give the store its life, once, and tell who it is.
# KEYS: meta. ARGV: schema, a fresh epoch, fingerprint of the lookup key and of the seal key ('' where there is none).
# Returns schema, epoch, lookup, seal as stored ('' where there is none). Writes nothing once all are there, so that a
# full or read-only server can still be read.
IDENTIFY = Script("""
local names = {'schema', 'epoch', 'lookup', 'seal'}
local stored = redis.call('HMGET', KEYS[1], unpack(names))
if stored[1] and stored[1] ~= ARGV[1] then return {stored[1], '', '', ''} end
for i, value in ipairs(ARGV) do
  if not stored[i] and value ~= '' then
    redis.call('HSET', KEYS[1], names[i], value)
    stored[i] = value
  end
end
return {stored[1], stored[2], stored[3] or '', stored[4] or ''}
""")

# Mark blobs as wanted now, before they are uploaded, and tell which are missing.
# KEYS: blobs, then each blob. ARGV: each blob's member of blobs.
# Returns the server's time in seconds as text, then the positions (from 1) of the missing blobs.
TOUCH = Script("""
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local result = {now}
for i, member in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], now, member)
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then result[#result + 1] = i end
end
return result
""")

# One change of the deployment: perhaps a new head of a list, further small writes, and its link of the audit chain.
# KEYS: meta, heads, commits, blobs, audit, audit:head, the manifest (or meta), then each blob, then the keys of extras.
# ARGV: epoch; list ('' for a change that moves no head), expected serial, manifest, head, digest, commits kept; of the
# audit chain the hash before, then sequence, hash and record; number of blobs; extras (JSON); then each blob's member
# of blobs. extras: `expected`, each [number of the key from 1, field, text or '' for none], and `writes`, each
# [command, number of the key, further words].
# Returns {'done'}, or, with nothing written, {'epoch', the stored one}, {'conflict', the head's serial}, {'missing',
# how many blobs}, {'moved', the field that is not as expected}, {'chain', sequence and hash of the newest record}.
# What was done already is done: the manifest stands there, byte for byte, or without one the record is the newest.
# Every blob is marked as wanted now, since a rollback names blobs that a collection under way may have found unused.
CHANGE = Script("""
local epoch, list, expected = ARGV[1], ARGV[2], tonumber(ARGV[3])
local blobs, extras = tonumber(ARGV[12]), cjson.decode(ARGV[13])
local serial = expected + 1
local stored = redis.call('HGET', KEYS[1], 'epoch')
if stored ~= epoch then return {'epoch', stored or ''} end
local chain = redis.call('HMGET', KEYS[6], 'seq', 'hash')
if list == '' and chain[2] == ARGV[10] then return {'done'} end
if list ~= '' then
  local head = redis.call('HGET', KEYS[2], list)
  local current = head and cjson.decode(head).serial or 0
  if current >= serial and redis.call('GET', KEYS[7]) == ARGV[4] then return {'done'} end
  if current ~= expected then return {'conflict', current} end
end
for _, check in ipairs(extras.expected) do
  if (redis.call('HGET', KEYS[7 + blobs + check[1]], check[2]) or '') ~= check[3] then return {'moved', check[2]} end
end
local missing = 0
for i = 8, 7 + blobs do missing = missing + 1 - redis.call('EXISTS', KEYS[i]) end
if missing > 0 then return {'missing', missing} end
if (chain[2] or '') ~= ARGV[8] then return {'chain', chain[1] or '0', chain[2] or ''} end
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
for i = 14, 13 + blobs do redis.call('ZADD', KEYS[4], now, ARGV[i]) end
redis.call('XADD', KEYS[5], '*', 'record', ARGV[11], 'hash', ARGV[10])
redis.call('HSET', KEYS[6], 'seq', ARGV[9], 'hash', ARGV[10])
for _, write in ipairs(extras.writes) do
  redis.call(write[1], KEYS[7 + blobs + write[2]], unpack(write, 3))
end
if list ~= '' then
  redis.call('SET', KEYS[7], ARGV[4])
  redis.call('HSET', KEYS[2], list, ARGV[5])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*',
    'epoch', epoch, 'list', list, 'serial', string.format('%d', serial), 'digest', ARGV[6])
end
return {'done'}
""")

# Drop blobs that nobody wanted since they were found unused.
# KEYS: blobs, then each blob. ARGV: member and score as found, for each blob.
# Returns how many were dropped and their bytes.
DROP = Script("""
local dropped, bytes = 0, 0
for i = 2, #KEYS do
  local member, score = ARGV[2 * i - 3], tonumber(ARGV[2 * i - 2])
  local now = redis.call('ZSCORE', KEYS[1], member)
  if now and tonumber(now) == score then
    bytes = bytes + redis.call('STRLEN', KEYS[i])
    dropped = dropped + redis.call('UNLINK', KEYS[i])
    redis.call('ZREM', KEYS[1], member)
  end
end
return {dropped, bytes}
""")

# Count a flush of hits unless it was counted before.
# KEYS: the node's hits, its sequences, nodes. ARGV: node, boot, sequence, boots kept, then cell and count in turn.
# Returns 1 if it was counted now. Each boot has its own sequence, so that no order of arrival counts twice.
FLUSH = Script("""
local node, boot, sequence, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local rank, counted = nil, 0
local stored = redis.call('HGET', KEYS[2], boot)
if stored then
  rank, counted = string.match(stored, '^(%d+):(%d+)$')
  if sequence <= tonumber(counted) then return 0 end
else
  local ranks = {}
  for _, value in ipairs(redis.call('HVALS', KEYS[2])) do
    ranks[#ranks + 1] = tonumber(string.match(value, '^%d+'))
  end
  table.sort(ranks)
  rank = (ranks[#ranks] or 0) + 1
  if #ranks >= kept then
    local boots = redis.call('HGETALL', KEYS[2])
    for i = 1, #boots, 2 do
      if tonumber(string.match(boots[i + 1], '^%d+')) <= ranks[#ranks - kept + 1] then
        redis.call('HDEL', KEYS[2], boots[i])
      end
    end
  end
end
redis.call('HSET', KEYS[2], boot, string.format('%d:%d', rank, sequence))
redis.call('SADD', KEYS[3], node)
for i = 5, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
""")

# Forget the week of old cells: each leaves, and its figure is added to the cell without a week.
# KEYS: the node's hits, its folded cells. ARGV: cell, count as found, cell without a week and figure, in turn.
# Returns how many left. A cell whose count has changed since stays as it is, for the next time.
FOLD = Script("""
local folded = 0
for i = 1, #ARGV, 4 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('HINCRBY', KEYS[2], ARGV[i + 2], ARGV[i + 3])
    folded = folded + 1
  end
end
return folded
""")

# Write down what is published, once.
# KEYS: releases. ARGV: field, text, how many releases the caller has seen.
# Returns the text that stands under the field, or '' with nothing written when there are others than the caller saw.
RELEASE = Script("""
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then return stored end
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[3]) then return '' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
""")

# The server's clock, from the node that holds the deployment's slot. KEYS: meta.
TIME = Script("return redis.call('TIME')")

# The serial of a zone's version: what it has, or a new one. A node that has read older lists than another gets none.
# One serial must have one content on all nodes, also where the store has forgotten what it gave, which shows when a
# node serves what was not given here. Then the new serial leaps over all that others may serve by now: a day, which is
# more than clocks differ by or versions run ahead of them. What a serial means is certain from the leap on, or from the
# oldest that is still noted: no differences lead to a version from before.
# KEYS: the zone. ARGV: digest of what it says, rank of the lists it was made from (the sum of all serials), 1 where a
# lower rank counts as well: a failover may have forgotten commits; 1 where this is what the node serves and there is
# nothing newer; serial and digest of what the node serves, '' for none; the lowest serial that is wanted, '' for any.
# Returns the serial and the first that is certain; -1 twice for none. `given` is what was given since then, as
# `<serial>:<digest> `, of the digest as much as no two share. Serials are of 32 bits and wrap around (RFC 1982), which
# seconds do in 2106.
ZONE_SERIAL = Script("""
local LEAP, ALL, HALF, NOTED = 86400, 4294967296, 2147483648, 8000
local digest, rank, forced, kept, served = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1', tonumber(ARGV[5])
local found = redis.call('HMGET', KEYS[1], 'digest', 'serial', 'rank', 'given')
local known, given = found[1] and tonumber(found[2]), found[4] or ''
local function entry(serial, of) return string.format('%d:%s ', serial, of:sub(1, 24)) end
local function is_newer(one, other) return one ~= other and (one - other) % ALL < HALF end
local function later(serial, other)
  if other and not is_newer(serial, other) then return (other + 1) % ALL end
  return serial
end
local function first() return tonumber(given:match('^%d+') or known) end
local least = tonumber(ARGV[7])
local low = least and known and is_newer(least, known)
local forgot = served and not (' ' .. given):find(' ' .. entry(served, ARGV[6]), 1, true)
  and not (known and is_newer(first(), served))
if known and not forgot and not low and digest == found[1] then
  if rank > tonumber(found[3]) then redis.call('HSET', KEYS[1], 'rank', ARGV[2]) end
  return {known, first()}
end
if known and rank < tonumber(found[3]) and not forced then return {-1, -1} end
if kept and not forgot and not low then return {served, first()} end
local serial = later(later(tonumber(redis.call('TIME')[1]) % ALL, known), served)
if least then serial = later(serial, (least - 1) % ALL) end
if forgot then serial, given = (serial + LEAP) % ALL, '' end
given = given .. entry(serial, digest)
while #given > NOTED do given = given:match(' (.*)') end
local text = string.format('%d', serial)
redis.call('HSET', KEYS[1], 'digest', digest, 'serial', text, 'rank', ARGV[2], 'given', given)
return {serial, first()}
""")

# Note that a node lives, and forget those that were silent for too long.
# KEYS: beats, the node's beat. ARGV: node, what it says of itself, seconds for which that is kept.
BEAT = Script("""
local now, kept = tonumber(redis.call('TIME')[1]), tonumber(ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - kept)
redis.call('EXPIRE', KEYS[1], kept)
redis.call('SET', KEYS[2], ARGV[2], 'EX', kept)
return 'OK'
""")

# The nodes that lived lately. KEYS: beats. Returns the server's time in seconds, then node and seconds of each.
BEATS = Script("""
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
return {redis.call('TIME')[1], unpack(found)}
""")
