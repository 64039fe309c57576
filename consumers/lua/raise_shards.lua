#!lua flags=allow-oom
-- Raise the highest number of shards ever used to what the files know of; never lowers it.
-- KEYS  1 the prefix's shards key
-- ARGV  1 the number of shards that have files
-- Reply the number that now holds
-- Atomic, because producers raise it at the same time, and the larger number must stay. Theirs is refused by a full
-- server, which is how they learn that nothing can be appended; owners must find their shards all the same.
local used, found = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if found > used then
  redis.call('SET', KEYS[1], ARGV[1])
  return found
end
return used
