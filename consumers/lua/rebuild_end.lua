#!lua flags=allow-oom
-- Say that the windows of a shard hold everything, now that they were made anew.
-- KEYS  1 fence  2 floor
-- ARGV  1 fence  2 the floor that was noted when the rebuilding began
-- Reply 1; 0 when another owner has raised the fence; -1 when somebody has noted another floor meanwhile, since the server
--       lost something: then it stays.
-- Atomic, because a loss that is noted in between must not be forgotten.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return -1
end
redis.call('SET', KEYS[2], '0')
return 1
