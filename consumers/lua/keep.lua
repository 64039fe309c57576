#!lua flags=allow-oom
-- Keep the compactor's lease, and write in its books what it says of itself.
-- KEYS  1 lease  2 fence  3 books
-- ARGV  1 fence  2 owner  3 lease time in ms  4, 5, … field, value; an empty value takes the field away
-- Reply 1, or 0 when another compactor has raised the fence.
-- Atomic, because a lease renewed after a take-over would lock the new owner out, and its books would be another's.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[3], ARGV[i])
  else
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return 1
