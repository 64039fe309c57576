#!lua flags=allow-oom
-- Forget producers that have not sent anything since they were looked at.
-- KEYS  1 producers
-- ARGV  producer, what was seen of it; and so on in pairs
-- Reply number of producers forgotten.
-- Atomic, because a number that was raised after the look must stay: without it a repeated batch would be added again.
local forgotten = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return forgotten
