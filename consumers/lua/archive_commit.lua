#!lua flags=allow-oom
-- Confirm what the archiver has made durable: move the group's position, write books and dead letters.
-- KEYS  1 stream  2 lease  3 fence  4 books  5 dead letters
-- ARGV  1 fence  2 owner  3 lease time in ms  4 group  5 where the owner left the group  6 position
--       7 entries read ('' = unknown)  8 number of book fields, then that many field, value;
--       the rest: dead letter id, dead letter
-- Reply 1; 0 when another owner has raised the fence; -1 when the group is not where the owner left it. Then nothing
--       was written.
-- Atomic, because position, books and dead letters tell of the same entries. Values are absolute: twice is once. The two
-- counts of letters are not, so whoever runs this again after a crash looks first whether its letters are in the books.
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
  return 0
end
-- A stream that was made anew, perhaps by a slower clock, holds entries that this position would hide.
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do
    group[row[i]] = row[i + 1]
  end
  if group['name'] == ARGV[4] and group['last-delivered-id'] ~= ARGV[5] then
    return -1
  end
end
if ARGV[7] == '' then
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[4], ARGV[6])
else
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[4], ARGV[6], 'ENTRIESREAD', ARGV[7])
end
local last = 8 + 2 * tonumber(ARGV[8])
for i = 9, last, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
if last < #ARGV then
  -- A program that sends nothing but nonsense must not fill the server. The first letters tell what is wrong.
  local MOST, MOST_BYTES = 10000, 64 * 1024 * 1024
  local held = redis.call('HLEN', KEYS[5])
  local bytes = tonumber(redis.call('HGET', KEYS[4], 'dead.bytes') or '0')
  local unkept = 0
  for i = last + 1, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[5], ARGV[i]) == 0 then
      if held >= MOST or bytes + #ARGV[i + 1] > MOST_BYTES then
        unkept = unkept + 1
      else
        redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
        held = held + 1
        bytes = bytes + #ARGV[i + 1]
      end
    end
  end
  redis.call('HSET', KEYS[4], 'dead.bytes', string.format('%.0f', bytes))
  redis.call('HINCRBY', KEYS[4], 'archive.dead_unkept', unkept)
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
