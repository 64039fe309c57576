#!lua flags=allow-oom
-- Keep a lease while there is nothing to commit.
-- KEYS  1 lease  2 fence
-- ARGV  1 fence  2 owner  3 lease time in ms
-- Reply 1, or 0 when another owner has raised the fence.
-- Atomic, because a lease renewed after a take-over would lock the new owner out.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
