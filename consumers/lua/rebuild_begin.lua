#!lua flags=allow-oom
-- Empty the windows of a shard, and let their group stand where the files are that they are made anew from.
-- KEYS  1 stream  2 fence  3 books  4 floor  5… the windows there are, of series and of totals
-- ARGV  1 fence  2 group  3 position of the files  4 group that wrote them  5 its position one commit before
--       6… the group's book fields: field, value
-- Reply {1, floor}: since when windows are complete, until the end of the rebuilding: from now on, in a form that nobody
--       else writes; {0} when another owner has raised the fence; {-1} while the stream holds entries at or before the
--       position that are not in the files. Then nothing was written.
-- Atomic, because windows that hold more than the group's position says would count twice what is read again.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return {0}
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
local writer
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = pairs_of(row)
  if group['name'] == ARGV[4] then
    writer = group
  end
end
-- A server that lost its data is another one to the files until their writer has come to it.
local known = redis.call('HGET', KEYS[3], ARGV[4] .. '.position')
if not writer or not known then
  return {-1}
end
local at = writer['last-delivered-id']
if before(at, position) and #redis.call('XRANGE', KEYS[1], '(' .. at, position, 'COUNT', 1) > 0 then
  -- After a crash of the writer the server is one commit behind its files. Anything else came with IDs used before.
  if known ~= ARGV[5] or #redis.call('XRANGE', KEYS[1], position, position) == 0 then
    return {-1}
  end
end
local stream = pairs_of(redis.call('XINFO', 'STREAM', KEYS[1]))
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local read
if at == position then
  read = writer['entries-read']
elseif not before(position, stream['last-generated-id']) then
  read = stream['entries-added']
elseif #first == 0 or before(position, first[1][1]) then
  read = stream['entries-added'] - stream['length']
end
if read then
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], position, 'ENTRIESREAD', read)
else
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], position)
end
local time = redis.call('TIME')
local floor = string.format('%s.%06d', time[1], time[2])
redis.call('SET', KEYS[4], floor)
for k = 5, #KEYS do
  redis.call('UNLINK', KEYS[k])
end
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
return {1, floor}
