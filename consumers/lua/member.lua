#!lua flags=allow-oom
-- Note that a process works for a group, and count those that do.
-- KEYS  1 sorted set of members
-- ARGV  1 member  2 ms after which a silent member counts no more  3 '1' to leave
-- Reply number of members.
-- Atomic, and on the server's clock, so that all processes count alike.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
-- Seen in the future: the server's clock was set back since. Who lives comes again.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
return redis.call('ZCARD', KEYS[1])
