#!lua flags=allow-oom
-- Raise the highest number of shards ever used to that of the configuration, or of the files; never lowers it.
--
-- KEYS   1 the prefix's shards key
-- ARGV   1 the number of shards there are at least
-- Reply  the number that now holds
--
-- Atomic because two processes that know of different numbers must end at the larger one, whoever comes last. A full
-- server takes it too: its shards must find their owners.

local used, wanted = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if wanted > used then
  redis.call('SET', KEYS[1], ARGV[1])
  return wanted
end
return used
