#!lua
-- Raise the highest number of shards ever used to the configured one; never lowers it.
--
-- KEYS   1 the prefix's shards key
-- ARGV   1 the configured number of shards
-- Reply  the number that now holds
--
-- Atomic because two processes with different configurations must end at the larger number, whoever comes last.

local used, wanted = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if wanted > used then
  redis.call('SET', KEYS[1], ARGV[1])
  return wanted
end
return used
