#!lua flags=allow-oom
-- Make a shard's stream readable for one group from where that group stands.
-- KEYS  1 stream  2 fence  3 books  4 floor
-- ARGV  1 fence  2 group  3 position the caller knows of ('' = ask the books)  4 '1' to note the floor of the windows
--       5 the position the caller had committed before that one, which the books may still show after a crash
--       The floor is the Unix second since when windows hold everything: 0 where nothing was ever taken off the stream.
--       The owner's start is noted in the books, `<group>.began`: position, how many in a row began there, its fence.
-- Reply {entries ever added, length, entries the group has read or -1, position, books as a flat list}, 0 when fenced.
--       The position is the group's; where the books were asked, the later of the two.
-- Atomic, because an entry added between creating the group and raising the last ID could take an ID already used.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
local function pairs_of(flat)
  local out = {}
  for i = 1, #flat, 2 do
    out[flat[i]] = flat[i + 1]
  end
  return out
end
local function before(a, b)
  local ams, an = string.match(a, '^(%d+)-(%d+)$')
  local bms, bn = string.match(b, '^(%d+)-(%d+)$')
  ams, an, bms, bn = tonumber(ams), tonumber(an), tonumber(bms), tonumber(bn)
  return ams < bms or (ams == bms and an < bn)
end
local position = ARGV[3]
if position == '' then
  position = redis.call('HGET', KEYS[3], ARGV[2] .. '.position') or '0-0'
end
local began, starts = string.match(redis.call('HGET', KEYS[3], ARGV[2] .. '.began') or '', '^(%S+) (%d+) ')
starts = began == position and starts + 1 or 1
redis.call('HSET', KEYS[3], ARGV[2] .. '.began', string.format('%s %d %s', position, starts, ARGV[1]))
local found
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = pairs_of(row)
    if group['name'] == ARGV[2] then
      found = group
    end
  end
end
if not found then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], '0', 'MKSTREAM')
  found = {['last-delivered-id'] = '0-0', ['entries-read'] = false}
end
-- After a restored or failed-over server the stream may lag behind what was read from it: new entries must not get old IDs.
local stream = pairs_of(redis.call('XINFO', 'STREAM', KEYS[1]))
local lost = before(stream['last-generated-id'], position)
if lost then
  redis.call('XSETID', KEYS[1], position)
end
-- What a server lost, its windows may lack, even where newer entries hide it: then the books do not know the position
-- that the caller does, or a group is not where the books say.
if ARGV[3] ~= '' then
  local known = redis.call('HGET', KEYS[3], ARGV[2] .. '.position')
  -- After a crash the books are one commit behind, and what it took is still there: nothing is trimmed beyond the books.
  local crashed = known == ARGV[5] and #redis.call('XRANGE', KEYS[1], position, position) > 0
  lost = lost or (position ~= '0-0' and known ~= position and not crashed)
else
  lost = lost or before(found['last-delivered-id'], position)
end
local time = redis.call('TIME')
local now = time[1]
if lost then
  redis.call('SET', KEYS[4], now)
  if ARGV[3] ~= '' then
    -- What the books counted as appended was counted anew after an older copy took over: another epoch of them begins.
    redis.call('HSET', KEYS[3], 'append.epoch', now .. string.format('%06d', time[2]), 'append.events', 0)
  end
elseif ARGV[4] == '1' then
  redis.call('SET', KEYS[4], stream['entries-added'] == stream['length'] and '0' or now, 'NX')
end
local at = found['last-delivered-id']
if ARGV[3] == '' then
  if before(at, position) then
    at = position
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], at)
  end
  redis.call('HSET', KEYS[3], ARGV[2] .. '.position', at)
end
return {stream['entries-added'] or -1, stream['length'], found['entries-read'] or -1, at, redis.call('HGETALL', KEYS[3])}
