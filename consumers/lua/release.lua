#!lua flags=allow-oom
-- Give a lease back, so that a successor continues at once.
-- KEYS  1 lease
-- ARGV  1 owner
-- Reply 1 when it was ours, else 0.
-- Atomic, because between a look and a DEL the lease may have become another's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
