#!lua flags=allow-oom
-- Note which entry an owner is about to take, where owners before it have failed.
-- KEYS  1 fence  2 books  3 floor
-- ARGV  1 fence  2 group  3 entry ID  4 crashes after which an entry is taken no more
-- Reply {how often an owner ended while this entry was noted}, or 0 when another owner has raised the fence.
--       From ARGV[4] crashes on nothing is noted; one group goes on without the entry then, and the windows are no longer
--       known to hold what the files hold: they are complete from now on.
-- Atomic, because only the owner may tell the try of its predecessor from its own.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local name = ARGV[2] .. '.tried'
local id, count = string.match(redis.call('HGET', KEYS[2], name) or '', '^(%S+) (%d+) ')
local crashes = id == ARGV[3] and tonumber(count) or 0
if crashes >= tonumber(ARGV[4]) then
  redis.call('SET', KEYS[3], redis.call('TIME')[1])
else
  redis.call('HSET', KEYS[2], name, string.format('%s %d %s', ARGV[3], crashes + 1, ARGV[1]))
end
return {crashes}
