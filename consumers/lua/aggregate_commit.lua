#!lua flags=allow-oom
-- Write the windows that a run of entries changed, and move the group's position past those entries.
-- KEYS  1 stream  2 lease  3 fence  4 books  5 sessions  6… one hash per window, of series or of totals
-- ARGV  1 fence  2 owner  3 lease time in ms  4 group  5 where the owner left the group  6 position
--       7 entries read ('' = unknown)  8 number of book fields, then that many field, value;
--       then for each window key: expiry in Unix seconds, number of fields, that many series key or metric, blob;
--       then, where sessions were seen: seconds they are kept, the Unix second before which they are dropped, how many
--       are kept at most, and Unix second of the newest event, session for each
-- Reply 1; 0 when another owner has raised the fence; -1 when the group is not where the owner left it: it has to attach
--       anew, which notes since when windows are complete. Then nothing was written.
-- Atomic, because a blob holds exactly the entries up to the position. All values are absolute: twice is once.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
  return 0
end
-- A stream that was made anew while the owner slept lacks what it never saw, and its group begins elsewhere.
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do
    group[row[i]] = row[i + 1]
  end
  if group['name'] == ARGV[4] and group['last-delivered-id'] ~= ARGV[5] then
    return -1
  end
end
local CHUNK = 2000 -- arguments of one command: unpack of many thousands exceeds Lua's stack
local at = 9 + 2 * tonumber(ARGV[8])
for k = 6, #KEYS do
  local expiry, series = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  local stop = at + 2 * series - 1
  while at <= stop do
    local upto = math.min(at + CHUNK - 1, stop)
    redis.call('HSET', KEYS[k], unpack(ARGV, at, upto))
    at = upto + 1
  end
  redis.call('EXPIREAT', KEYS[k], expiry)
end
if at <= #ARGV then
  for from = at + 3, #ARGV, CHUNK do
    redis.call('ZADD', KEYS[5], 'GT', unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. ARGV[at + 1])
  local over = redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[at + 2])
  if over > 0 then
    redis.call('ZREMRANGEBYRANK', KEYS[5], 0, over - 1)
    redis.call('HINCRBY', KEYS[4], ARGV[4] .. '.sessions_cut', over)
  end
  redis.call('EXPIRE', KEYS[5], ARGV[at])
end
if ARGV[7] == '' then
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[4], ARGV[6])
else
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[4], ARGV[6], 'ENTRIESREAD', ARGV[7])
end
for i = 9, 8 + 2 * tonumber(ARGV[8]), 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
