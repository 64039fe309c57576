#!lua flags=allow-oom
-- Take a shard over for one group: the lease says when one may try, the fence makes it true.
-- KEYS  1 lease  2 fence
-- ARGV  1 owner  2 lease time in ms  3 highest epoch seen on disk  4 random token  5 '1' to replace a living owner
-- Reply {1, fence} when taken; {0, holder, ms left} while another holds the lease.
-- Atomic, because two owners who both saw a free lease must not both raise the fence.
local holder = redis.call('GET', KEYS[1])
-- A lease that ends later than any was given for was given before the server's clock was set back: it says nothing.
local binds = ARGV[5] ~= '1' and redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2])
if holder and holder ~= ARGV[1] and binds then
  return {0, holder, redis.call('PTTL', KEYS[1])}
end
local fence = redis.call('GET', KEYS[2])
local seen = fence and tonumber(string.match(fence, '^(%d+):')) or 0
local epoch = math.max(seen, tonumber(ARGV[3])) + 1
local raised = string.format('%d:%s', epoch, ARGV[4])
redis.call('SET', KEYS[2], raised)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, raised}
